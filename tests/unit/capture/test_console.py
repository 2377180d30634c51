"""What the console shows: lines on a serial line, a bar on a screen, and nothing that can end a capture."""

from __future__ import annotations

import io
import os
import pty
import re
import time

import pytest

from kdumpy.capture.console import Console, is_screen


class Clock:
    """Time that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_a_serial_line_gets_a_line_each_ten_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    out = io.StringIO()
    console = Console(out)
    console.start(4096)
    for done in range(0, 1001, 5):
        clock.now += 0.01
        console.progress(done, 1000, done * 1024)
    lines = out.getvalue().splitlines()
    assert [int(line.split()[1]) for line in lines] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert lines[4] == "kdumpy:  50 %, 2.0 MiB of memory, 500.0 KiB written, 1.0 s left"
    assert "left" not in lines[-1]


def test_a_serial_line_gets_a_line_each_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    out = io.StringIO()
    console = Console(out)
    console.start(4096)
    for done in range(60):
        clock.now += 1
        console.progress(done, 100000, 0)
    assert len(out.getvalue().splitlines()) == 12


def test_a_screen_gets_a_bar_that_makes_room_for_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    out = io.StringIO()
    console = Console(out, screen=True)
    console.start(4096)
    clock.now += 1
    console.progress(500, 1000, 1 << 20)
    console.say("something happened")
    console.end()
    bar, wiped, line = out.getvalue().split("\r")[1:]
    assert re.match(r"kdumpy: \[#{15}\.{15}\]  50 %", bar)
    assert wiped == " " * len(bar.rstrip())
    assert line == "kdumpy: something happened\n"


def test_a_screen_is_told_from_a_file_and_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_screen(io.StringIO())
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setenv("TERM", "linux")
        assert is_screen(terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert not is_screen(terminal)
        monkeypatch.setenv("TERM", "vt220")
        for name, expected in (("/dev/ttyS0", False), ("/dev/hvc0", False), ("/dev/ttyAMA0", False),
                               ("/dev/tty1", True)):
            monkeypatch.setattr(os, "ttyname", lambda _fd, name=name: name)
            assert is_screen(terminal) is expected
    os.close(ours)


def test_a_console_that_is_gone_does_not_matter() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    console = Console(stream)
    for _line in range(3):
        console.say("nobody hears this")
    with pytest.raises(BrokenPipeError):
        stream.close()
    console.say("closed")
