"""The steps of a diagnosis, each with its bound of CPU time: one that does not end must not cost the verdict.

Lists that run in a circle are found where they are followed; this is for what nobody has thought of, and for sizes that
are possible and absurd.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError
from kdumpy.kernel.deadline import Deadline, TookTooLong

EACH = 30.0
"""Seconds of CPU time of one step. All of them take 0.3 s on a small dump, 3 s with 3,000 tasks."""
_STEPS_OF_ALL = 6
"""So many times that long all steps may take together; then each that is left gets `_REST` of its time. Several mostly
stop in the same place, where what they share is damaged."""
_REST = 0.1

T = TypeVar("T")


class OutOfTime(KdumpyError):
    """A step took too long."""

    exit_code = 1


class Steps:
    """The clock of one diagnosis."""

    def __init__(self, problems: dict[str, str], each: float = EACH) -> None:
        """`problems`: is told what was stopped; `each`: seconds of CPU time, 0 for no bound."""
        self.problems = problems
        self.each = each
        self._end = time.process_time() + _STEPS_OF_ALL * each

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Bound what runs. Where a clock runs already, such as a profiler's or the shell's, that is left alone.

        Raises:
            OutOfTime: it was stopped.
        """
        seconds = self.each if time.process_time() < self._end else self.each * _REST
        busy = signal.getitimer(signal.ITIMER_PROF)[0] or signal.getitimer(signal.ITIMER_VIRTUAL)[0]
        try:
            with Deadline(0 if busy else seconds).running():
                yield
        except TookTooLong as stopped:
            raise OutOfTime(f"stopped after {seconds:g} s of CPU time", why=stopped.where and f"in {stopped.where}",
                            mend="--timeout gives it longer") from None

    def get(self, what: str, make: Callable[[], T], otherwise: T) -> T:
        """Return what a step makes; where it takes too long or fails, something else, and the problem is told."""
        try:
            with self.step():
                return make()
        except READ_ERRORS as error:
            self.problems[what] = str(error)
        except Exception as error:      # a dump may be damaged anywhere; what else there is to say is said all the same
            self.problems[what] = f"{type(error).__name__}: {error}"
        return otherwise
