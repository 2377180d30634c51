"""What the capture says on the machine's console: `kdumpy: …` lines, and how far the dump is.

A serial line gets a line now and then; a real screen a bar. Nothing that goes wrong here may end a capture.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import TextIO

from kdumpy.units import human_bytes, human_seconds

_SECONDS = 5.0
"""A line at least so often while something is under way."""
_PERCENT = 10
_BAR_SECONDS = 0.2
_BAR_WIDTH = 30


def is_screen(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that a cursor can be moved on: no file, no serial line, no boot console."""
    try:
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            return False
        name = os.ttyname(stream.fileno())
    except (OSError, ValueError):
        return False
    if name == "/dev/console":
        try:
            # The last one listed is where /dev/console's output goes.
            name = "/dev/" + Path("/sys/class/tty/console/active").read_text().split()[-1]
        except (OSError, IndexError):
            return False
    return re.fullmatch(r"/dev/(tty\d+|pts/\d+)", name) is not None


class Console:
    """Writes lines, and one progress at a time."""

    def __init__(self, stream: TextIO, *, screen: bool | None = None) -> None:
        self._stream = stream
        self._screen = is_screen(stream) if screen is None else screen
        self._bar = 0
        """Characters of the bar that stands on the line now."""
        self._begin(1)

    def _begin(self, unit: int) -> None:
        self._unit = unit
        self._started = self._said = time.monotonic()
        self._said_percent = 0

    def say(self, text: str) -> None:
        """Write a line."""
        self._clear()
        self._write(f"kdumpy: {text}\n")

    def start(self, unit: int) -> None:
        """Begin a progress whose pages have `unit` bytes."""
        self._begin(unit)

    def progress(self, done: int, total: int, written: int) -> None:
        """Tell how far the dump is: pages done, pages in all, bytes written."""
        now = time.monotonic()
        percent = 100 * done // total if total else 100
        if self._screen:
            if now - self._said >= _BAR_SECONDS or percent >= 100:
                self._said = now
                self._draw(percent, done, total, written, now)
        elif percent >= self._said_percent + _PERCENT or now - self._said >= _SECONDS:
            self._said, self._said_percent = now, percent - percent % _PERCENT
            self._write(f"kdumpy: {self._state(percent, done, total, written, now)}\n")

    def end(self) -> None:
        """End a progress; what stands on the line is wiped."""
        self._clear()

    def _state(self, percent: int, done: int, total: int, written: int, now: float) -> str:
        text = f"{percent:3} %, {human_bytes(done * self._unit)} of memory, {human_bytes(written)} written"
        passed = now - self._started
        # The first part of a second tells nothing.
        if 0 < done < total and passed > 0.5:
            text += f", {human_seconds(passed * (total - done) / done)} left"
        return text

    def _draw(self, percent: int, done: int, total: int, written: int, now: float) -> None:
        full = _BAR_WIDTH * min(percent, 100) // 100
        line = f"kdumpy: [{'#' * full}{'.' * (_BAR_WIDTH - full)}] {self._state(percent, done, total, written, now)}"
        with contextlib.suppress(OSError, ValueError):
            line = line[:os.get_terminal_size(self._stream.fileno()).columns - 1]
        self._write(f"\r{line}{' ' * (self._bar - len(line))}")
        self._bar = len(line)

    def _clear(self) -> None:
        if self._bar:
            self._write(f"\r{' ' * self._bar}\r")
            self._bar = 0

    def _write(self, text: str) -> None:
        # A console that went away, or a closed pipe, is no reason to lose the dump.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
