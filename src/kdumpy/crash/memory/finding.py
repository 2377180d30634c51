"""Values and texts found in memory, whole arrays compared at a time."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import drgn
import numpy as np
from numpy.typing import NDArray

from kdumpy.crash.memory.arrays import Arrays, Piece
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError

_SHOWN = 56
"""Characters shown of a found text."""
_LOT = 4096
"""Pages that a process goes through at a time."""
_MOST_SEEN = 1 << 20
"""Pages with hits that are kept in mind: 8 MiB."""


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A place where a value stands."""

    address: int
    value: int
    text: str
    """What stands there as text, with -c."""
    wanted: str
    """What was searched for, as typed, where that was a symbol or an expression."""
    before: tuple[int, ...]
    """Values in front of it, with -x."""
    after: tuple[int, ...]
    pid: int | None
    """The task whose stack it lies on, with -t and -T."""
    task: int | None


@dataclass(frozen=True)
class Range:
    """Memory to go through."""

    start: int
    stop: int
    parts: tuple[tuple[int, int], ...] = ()
    """What of it is meant, (begin, end) of each part, where that is mapped by page tables."""
    user: drgn.Object | None = None
    physical: bool = False
    task: drgn.Object | None = None


@dataclass(frozen=True)
class Value:
    """A number that is searched for."""

    number: int
    name: str


def pieces(session: Session, area: Range, only: NDArray[np.int64] | None = None) -> Iterator[Piece]:
    """Yield what the dump holds of a range; of mapped memory but the pages `only` (page frame numbers, rising)."""
    arrays = session.arrays
    if area.physical:
        return arrays.walk_physical(area.start, area.stop)
    if area.user is not None:
        return _user_pieces(session, arrays, area)
    if arrays.direct is not None and arrays.is_direct(area.start, area.stop):
        direct = arrays.direct
        return (Piece(piece.address + direct, piece.data)
                for piece in arrays.walk_physical(area.start - direct, area.stop - direct))
    return arrays.walk_virtual(area.parts or ((area.start, area.stop),), only)


def _user_pieces(session: Session, arrays: Arrays, area: Range) -> Iterator[Piece]:
    from drgn.helpers.linux.mm import follow_phys

    step = arrays.page_size
    for address in range(area.start & -step, area.stop, step):
        try:
            physical = int(follow_phys(area.user, address))
        except READ_ERRORS:
            continue
        for piece in arrays.walk_physical(physical, physical + step):
            low = max(area.start - address, 0)
            yield Piece(address + low, piece.data[low:area.stop - address])


class Seen:
    """The pages in which the direct map, gone through as a whole, has hits.

    What else maps memory maps the same pages: those without a hit need not be read again.
    """

    def __init__(self) -> None:
        self.pages: NDArray[np.int64] | None = None
        """Page frame numbers, rising; None where all may have one."""
        self._found = array("q")
        self._last = -1

    def note(self, pfn: int) -> None:
        """Take the page of a hit; they rise."""
        if pfn != self._last and len(self._found) <= _MOST_SEEN:
            self._last = pfn
            self._found.append(pfn)

    def finish(self) -> None:
        """The whole direct map was gone through."""
        if len(self._found) <= _MOST_SEEN:
            self.pages = np.array(self._found, np.int64)


def values_in(session: Session, area: Range, values: list[Value], mask: int, unit: int, context: int, seen: Seen
              ) -> Iterator[FoundRow]:
    """Yield where one of some values stands in a range, rising.

    Args:
        session: the dump's.
        area: the range.
        values: what is searched for.
        mask: bits that do not matter.
        unit: bytes of a value.
        context: values before and behind that are given too.
        seen: what the ranges in front of this one have told.
    """
    hits = _Hits(session, values, mask, unit, context)
    arrays = session.arrays
    whole = arrays.is_direct(area.start, area.stop, whole=True)
    if not whole or context:        # a page's neighbours are wanted for what stands around a hit
        yield from hits.of(area, seen.pages if not context else None)
        return
    for part in session.share(list(_parts(session, area)), hits.and_damage):
        if isinstance(part, FoundRow):
            seen.note((part.address - area.start) // arrays.dump.page_size)
            yield part
        elif not any(part is one for one in arrays.damaged):        # found by another process
            arrays.damaged.append(part)
    seen.finish()


def _parts(session: Session, area: Range) -> Iterator[Range]:
    """Yield parts of the direct map with some thousand pages that the dump holds."""
    unit = session.arrays.dump.page_size
    borders = [area.start, *(area.start + pfn * unit for pfn in session.arrays.lots(_LOT)), area.stop]
    return (Range(low, high) for low, high in pairwise(borders))


class _Hits:
    """Finds values in memory."""

    def __init__(self, session: Session, values: list[Value], mask: int, unit: int, context: int) -> None:
        self._session = session
        self._mask, self._unit, self._context = mask, unit, context
        self._kind = np.dtype(f"<u{unit}")
        self._keep = np.array((1 << 8 * unit) - 1 & ~mask, self._kind)
        self._names = {value.number & ~mask: value.name for value in values}
        self._wanted = [np.array(number & (1 << 8 * unit) - 1, self._kind) for number in self._names]

    def of(self, area: Range, only: NDArray[np.int64] | None = None) -> Iterator[FoundRow]:
        """Yield the places in a range; of mapped memory, in the pages `only` (page frame numbers, rising)."""
        pid, task = (None, None) if area.task is None else (area.task.pid.value_(), area.task.value_())
        unit, context, mask = self._unit, self._context, self._mask
        for piece in pieces(self._session, area, only):
            words = piece.data[:len(piece.data) // unit * unit].view(self._kind)
            masked = words & self._keep if mask else words
            hits = masked == self._wanted[0]
            for other in self._wanted[1:]:
                hits |= masked == other
            for place in hits.nonzero()[0].tolist():
                number = int(words[place])
                yield FoundRow(piece.address + place * unit, number, "", self._names.get(number & ~mask, ""),
                               tuple(words[max(place - context, 0):place].tolist()) if context else (),
                               tuple(words[place + 1:place + 1 + context].tolist()) if context else (), pid, task)

    def and_damage(self, area: Range) -> Iterator[FoundRow | KdumpyError]:
        """Yield the places in a range, and the pages that could not be read there."""
        before = len(self._session.arrays.damaged)
        yield from self.of(area)
        yield from self._session.arrays.damaged[before:]


def texts_in(session: Session, area: Range, texts: list[bytes]) -> Iterator[FoundRow]:
    """Find texts; one that goes over the end of a piece is found where the next one follows on it."""
    longest = max(len(text) for text in texts)
    pid, task = (None, None) if area.task is None else (area.task.pid.value_(), area.task.value_())
    rest, end = b"", -1
    for piece in pieces(session, area):
        before = rest if piece.address == end else b""
        data = before + piece.data.tobytes()
        start = piece.address - len(before)
        found = sorted({place for text in texts for place in _places(data, text)
                        # What lies wholly in the part that was seen before was found before.
                        if place + len(text) > len(before)})
        for place in found:
            shown = data[place:place + _SHOWN]
            yield FoundRow(start + place, 0, "".join(chr(byte) if 32 <= byte < 127 else "." for byte in shown), "",
                           (), (), pid, task)
        rest, end = data[max(len(data) - longest + 1, 0):] if longest > 1 else b"", piece.address + len(piece.data)


def _places(data: bytes, text: bytes) -> Iterator[int]:
    place = data.find(text)
    while place >= 0:
        yield place
        place = data.find(text, place + 1)
