"""Locks of the laboratory: held across processes, freed by the death of their holder."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpy.vm import paths

_HOLDER = """
import sys, time
from kdumpy.vm.paths import room_for_a_guest
with room_for_a_guest():
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDUMPY_LAB", str(tmp_path))
    return tmp_path


def holder() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _HOLDER], stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_there_is_room_for_as_many_guests_as_there_are_cpus(home: Path) -> None:
    running = [holder() for _ in range(os.cpu_count() or 1)]
    try:
        assert [line(process) for process in running] == ["in\n"] * len(running)
        late = holder()
        running.append(late)
        assert late.stdout is not None
        assert select.select([late.stdout], [], [], 2)[0] == []
        running[0].send_signal(signal.SIGKILL)
        assert line(late) == "in\n"
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_an_error_inside_is_not_swallowed(home: Path) -> None:
    with pytest.raises(BlockingIOError), paths.room_for_a_guest():
        raise BlockingIOError
