"""What a dump holds and lacks of the crashed machine's memory, by what the pages were used for.

Pages that were left out are sorted too: their struct pages are the kernel's and so are in the dump.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdumpy.capture.kinds import Kind
from kdumpy.capture.memory import memory_of
from kdumpy.capture.sorter import BATCH, PageSorter
from kdumpy.dumpfile.erased import ErasedDump
from kdumpy.dumpfile.storedcopy import blocks_of, parts_of, zero_offset
from kdumpy.errors import KdumpyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdumpy.dumpfile import Dump

UNSORTED = "memory"
"""Name of the only kind where the kernel's page layout is not known."""


@dataclass(frozen=True, slots=True)
class KindCount:
    """Pages of one kind."""

    kind: str
    """A name of `Kind`, in small letters; `zero` for pages of zeros, whatever their use; or UNSORTED."""
    held: int
    """Pages in the dump."""
    left_out: int
    """Pages that were memory of the machine and are not in the dump."""


@dataclass(frozen=True, slots=True)
class Census:
    """All memory of the machine, by kind."""

    page_size: int
    kinds: tuple[KindCount, ...]
    """Kinds of which there are pages, the kernel's first."""
    not_judged: str
    """Why the pages could not be sorted; empty when they were."""
    zero_known: bool
    """Pages of zeros are told apart: the dump stores them all as one."""
    unreadable: int
    """Pages whose struct page is not in the dump, or that have none; they count as the kernel's."""

    @property
    def held(self) -> int:
        """Pages in the dump."""
        return sum(each.held for each in self.kinds)

    @property
    def memory(self) -> int:
        """Pages of the machine's memory."""
        return sum(each.held + each.left_out for each in self.kinds)

    def as_json(self) -> dict[str, object]:
        """Return plain values: pages, and bytes beside them."""
        size = self.page_size
        return {"memory_pages": self.memory, "memory_bytes": self.memory * size, "held_pages": self.held,
                "held_bytes": self.held * size, "zero_known": self.zero_known, "unreadable": self.unreadable,
                "not_judged": self.not_judged or None,
                "kinds": {each.kind: {"held": each.held, "left_out": each.left_out,
                                      "held_bytes": each.held * size, "left_out_bytes": each.left_out * size}
                          for each in self.kinds}}


class _WholeMemory(ErasedDump):
    """The dump as if it held all memory of the machine; only good to be asked where there is memory."""

    def present(self) -> Iterator[range]:
        """Yield the page frame numbers of the machine's memory, as rising ranges."""
        return memory_of(self.dump)


def census(dump: Dump) -> Census:
    """Count the pages of a dump by kind (20 ms a GiB of memory at most)."""
    counts = np.zeros((len(Kind) + 1, 2), np.int64)
    zero_row = len(Kind)
    zero_pages = _ZeroPages(dump)
    not_judged, unreadable = "", 0
    try:
        sorter = PageSorter(_WholeMemory(dump, ()))
        for first, kinds in sorter.batches():
            held = dump.held(np.arange(first, first + len(kinds)))
            rows = np.where(held & zero_pages.among(first, len(kinds)), np.uint8(zero_row), kinds)
            counts[:, 0] += np.bincount(rows[held], minlength=len(counts))
            counts[:, 1] += np.bincount(kinds[~held], minlength=len(counts))
        unreadable = sorter.unreadable + sorter.without_map
    except KdumpyError as error:
        not_judged = str(error)
    if not_judged:
        pages = dump.pages_present
        found = [KindCount(UNSORTED, pages, max(sum(map(len, memory_of(dump))) - pages, 0))]
    else:
        counts[Kind.NOT_MEMORY] = 0
        names = [kind.name.lower() for kind in Kind] + ["zero"]
        order = [Kind.KERNEL, zero_row, Kind.CACHE, Kind.CACHE_PRIVATE, Kind.USER, Kind.FREE,
                 Kind.UNACCEPTED, Kind.OFFLINE, Kind.HWPOISON]
        found = [KindCount(names[row], int(counts[row, 0]), int(counts[row, 1]))
                 for row in order if counts[row].any()]
    return Census(dump.page_size, tuple(found), not_judged, zero_pages.known and not not_judged, unreadable)


class _ZeroPages:
    """Which pages share the one stored page of zeros. Asked for in rising order."""

    def __init__(self, dump: Dump) -> None:
        self._parts = parts_of(dump) or []
        self._zero = {id(part): offset for part in self._parts if (offset := zero_offset(part)) is not None}
        self.known = bool(self._zero)
        self._blocks = blocks_of(self._parts) if self.known else iter(())
        self._current = next(self._blocks, None)

    def among(self, first: int, count: int) -> NDArray[np.bool_]:
        """Tell which of `count` pages from `first` (a multiple of BATCH) on are stored as the page of zeros."""
        found = np.zeros(count, np.bool_)
        while self._current is not None and self._current[0] < first:
            self._current = next(self._blocks, None)
        if self._current is None or self._current[0] >= first + BATCH:
            return found
        for piece in self._current[3]:
            zero = self._zero.get(id(piece.part), -1)
            inside = piece.pfns[piece.descriptors["offset"] == zero] - first
            found[inside[inside < count]] = True
        return found
