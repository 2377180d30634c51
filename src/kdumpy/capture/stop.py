"""When the capture has to end early: SIGTERM, or its time budget.

Only a long piece of work is interrupted, at once; the saving of the log is not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """The capture is to end now. No Exception: nothing on the way may take it for a failure of its own."""


class Stop:
    """Whether to go on."""

    def __init__(self, budget_s: float = 0) -> None:
        self.reason = ""
        """Why the capture ends early; empty while it need not."""
        self._deadline = time.monotonic() + budget_s if budget_s else None
        self._budget_s = budget_s
        self._armed = False
        self._process = os.getpid()

    def install(self) -> None:
        """Take over the signals."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        if self._deadline is not None:
            signal.signal(signal.SIGALRM, self._on_alarm)
            # Again and again: the first may come while nothing may be interrupted.
            signal.setitimer(signal.ITIMER_REAL, max(self._deadline - time.monotonic(), 0.001), 1)

    @property
    def remaining_s(self) -> float | None:
        """Seconds of the budget that are left; None where there is none."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a block be ended by Stopped; at its start at once, when the time is up already."""
        if self.reason:
            raise Stopped(self.reason)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            os._exit(128 + number)  # a forked worker: its parent tells what is to be told
        self._end(f"{signal.Signals(number).name} came")

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self._end(f"the time budget of {self._budget_s:.0f} s is used up")

    def _end(self, reason: str) -> None:
        self.reason = self.reason or reason
        if self._armed:
            self._armed = False
            raise Stopped(self.reason)
