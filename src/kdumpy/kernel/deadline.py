"""Nothing runs for ever: what burns so many seconds of CPU time without a sign of life is stopped.

The clock is the process's own CPU time (ITIMER_PROF), so that a pager that somebody reads, a slow disk and a busy
machine do not count. A line of output starts it again. Where the engine's C code does not come back, no Python code
can be run: then a second clock ends the process, after it has said where it hung.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

DEFAULT_SECONDS = 60
"""Seconds of CPU time without a line; `set timeout` changes it."""
_GRACE = 10
"""Seconds that Python code has to come back, before the process ends."""
_AGAIN = 1
"""Seconds after which it is tried again, where somebody's code has taken the first for an error of its own."""


class TookTooLong(BaseException):
    """A command was stopped. Not an Exception: what handles errors of a dump must not take it for one."""

    def __init__(self, seconds: float, where: str) -> None:
        super().__init__(seconds, where)
        self.seconds = seconds
        self.where = where
        """The code that ran."""


class Deadline:
    """The clock of one session. Commands that run commands share it."""

    def __init__(self, seconds: float = DEFAULT_SECONDS) -> None:
        self.seconds = seconds
        """0: none."""
        self.chosen = False
        """The user has said how many: they hold for the user's own code too."""
        self._depth = 0
        self._started = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let the clock run; it raises `TookTooLong` in what runs."""
        if self._depth or not self.seconds or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._depth, self._started = 1, 0.0
        before = signal.signal(signal.SIGPROF, self._ring)
        descriptor = _standard_error()
        if descriptor is not None:
            faulthandler.register(signal.SIGVTALRM, descriptor, all_threads=False, chain=True)
        try:
            self.alive()
            yield
        finally:
            self._stop()
            self._depth = 0
            faulthandler.unregister(signal.SIGVTALRM)
            signal.signal(signal.SIGPROF, before)

    def begin(self) -> None:
        """Start the time again, in a forked process too: clocks do not pass on to it."""
        self._started = 0.0
        self.alive()

    def alive(self) -> None:
        """Start the time again: something came out."""
        now = time.monotonic()
        if self._depth == 1 and now - self._started > min(self.seconds / 10, 1):     # it is asked for every line
            self._started = now
            signal.setitimer(signal.ITIMER_PROF, self.seconds, _AGAIN)
            signal.setitimer(signal.ITIMER_VIRTUAL, self.seconds + _GRACE)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock for what may take any time: the user's own code and programs."""
        running, self._depth = self._depth, 2 if self._depth else 0
        self._stop()
        try:
            yield
        finally:
            self._depth, self._started = running, 0.0
            self.alive()

    def _ring(self, _signal: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_name == "__del__":
            return              # what is raised there is lost, with a traceback; it rings again
        raise TookTooLong(self.seconds, _place(frame))

    @staticmethod
    def _stop() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _standard_error() -> int | None:
    """Return where the process says where it hung; None where whoever calls us keeps its errors in memory."""
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            return stream.fileno()      # type: ignore[union-attr]  # None where there is no standard error
    return None


def _place(frame: FrameType | None) -> str:
    """Return the innermost function of kdumpy or drgn that ran."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in ("kdumpy", "drgn") and module != __name__:
            return f"{frame.f_code.co_name} ({module})"
        frame = frame.f_back
    return ""
