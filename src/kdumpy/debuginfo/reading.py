"""What reading a dump can raise, when the dump is damaged or does not hold what is asked for."""

from __future__ import annotations

from itertools import pairwise

import drgn

from kdumpy.errors import KdumpyError

READ_ERRORS = (drgn.FaultError, drgn.BadDataError, drgn.MissingDebugInfoError, drgn.ObjectAbsentError,
               drgn.OutOfBoundsError, KdumpyError, LookupError, AttributeError, TypeError, ValueError, OverflowError,
               RecursionError)
"""A page that is missing, a name or member that this kernel lacks, a value that makes no sense."""

_PAGE = 4096
_DAMAGE = ("ecompress", "Wrong page size", "Wrong compressed size", "Wrong uncompressed size", "Cannot read page d",
           "damaged")
"""How a page is told that the file holds, wrongly; one that was left out is "Excluded page". libkdumpfile (diskdump.c,
util.c), and the words of our own reader and of `Losses`."""


def says_damage(text: str) -> bool:
    """Tell whether the reason why something is missing is that the file is damaged there."""
    return any(words in text for words in _DAMAGE)


def is_damage(error: BaseException) -> bool:
    """Tell whether what was read lies in a page that the file holds, and holds wrongly."""
    return isinstance(error, drgn.FaultError) and says_damage(str(error))


class Losses:
    """Counts what could not be read of many things of a kind, and says why."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        """One of them, as `task`."""
        self._damaged = self._absent = self._wrong = 0

    def add(self, error: BaseException) -> None:
        """Count one, by what reading it raised."""
        if is_damage(error):
            self._damaged += 1
        elif isinstance(error, drgn.FaultError):
            self._absent += 1
        else:
            self._wrong += 1

    def __bool__(self) -> bool:
        return bool(self._damaged or self._absent or self._wrong)

    def __str__(self) -> str:
        told = ((self._damaged, "cannot be read: the file is damaged there"),
                (self._absent, f"{'is' if self._absent == 1 else 'are'} not in the dump"),
                (self._wrong, f"make{'s' if self._wrong == 1 else ''} no sense"))
        return "; ".join(f"{number} {self.kind}{'' if number == 1 else 's'} {words}"
                         for number, words in told if number)


def read_patchy(prog: drgn.Program, address: int, size: int) -> bytes:
    """Read memory, with zeros for the pages that are not in the dump."""
    try:
        return bytes(prog.read(address, size))
    except drgn.FaultError:
        if size <= _PAGE - address % _PAGE:
            return bytes(size)
    end = address + size
    borders = [address, *range((address // _PAGE + 1) * _PAGE, end, _PAGE), end]
    return b"".join(read_patchy(prog, start, stop - start) for start, stop in pairwise(borders))
