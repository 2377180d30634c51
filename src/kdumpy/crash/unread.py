"""What of many things cannot be read: it takes no other with it, and is told behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import drgn

from kdumpy.crash.failures import explain
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump

Thing = TypeVar("Thing")
Row = TypeVar("Row")


class Unread:
    """Makes rows of things, and keeps the reasons why some cannot be made."""

    def __init__(self, what: str) -> None:
        self.what = what
        """Of what kind the things are, such as `mounts`."""
        self._ends: list[Exception] = []
        """Where the lists of the things break off."""
        self._lost: list[tuple[str, Exception]] = []
        """Which things cannot be read, and why."""

    def rows(self, things: Iterable[Thing], make: Callable[[Thing], Row]) -> Iterator[Row]:
        """Yield a row of each thing that can be read."""
        for thing in self.all(things):
            try:
                row = make(thing)
            except READ_ERRORS as error:
                self.lost(f"{thing.value_():016x}" if isinstance(thing, drgn.Object) else str(thing), error)
                continue
            yield row

    def all(self, things: Iterable[Thing]) -> Iterator[Thing]:
        """Yield things as far as they can be reached."""
        given = iter(things)
        while True:
            try:
                thing = next(given)
            except StopIteration:
                return
            except READ_ERRORS as error:
                self._ends.append(error)
                return
            yield thing

    def lost(self, which: str, error: Exception) -> None:
        """Keep the reason why a thing is not there, or not whole."""
        self._lost.append((which, error))

    def tell(self) -> None:
        """Say what could not be read.

        Raises:
            KdumpyError: something could not.
        """
        if self._ends and not self._lost and len(self._ends) == 1:
            raise self._ends[0]
        if not self._ends and not self._lost:
            return
        reasons = list(dict.fromkeys(str(explain(error)) for error in self._ends))[:2]      # of several heads
        if self._lost:
            which, error = self._lost[0]
            more = f", and {len(self._lost) - 1} more" if len(self._lost) > 1 else ""
            reasons.append(f"{which}: {explain(error)}{more}")
        raise DamagedDump(f"not all {self.what} can be read", why="; ".join(reasons))
