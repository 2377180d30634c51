"""Many pages of an ELF dump at once, with numpy: neighbours straight into their rows, scattered ones piece by piece."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kdumpy.dumpfile.bulk import copy_pages, pieces

if TYPE_CHECKING:
    from kdumpy.dumpfile.elf import ElfDump

_BACK = 4
"""Segments before an address that are looked at, as in `ElfDump.segment_at`."""
_LONG = 8
"""Pages of a run, on average, from which on each run is read by itself."""


class Extents:
    """The segments as arrays, by rising address; shapes (segments,)."""

    def __init__(self, dump: ElfDump) -> None:
        segments = dump.segments
        self.starts = np.array([segment.address for segment in segments], np.int64)
        self.stops = np.array([segment.address + segment.file_size for segment in segments], np.int64)
        self.offsets = np.array([segment.offset for segment in segments], np.int64)

    def offsets_of(self, addresses: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Return where `size` bytes at each address lie in the file, -1 where no segment has them whole; (n,)."""
        last = np.searchsorted(self.starts, addresses, "right") - 1
        found = np.full(len(addresses), -1, np.int64)
        looking = last >= 0
        for back in range(_BACK):
            place = np.maximum(last - back, 0)
            inside = looking & (last >= back) & (addresses < self.stops[place])
            whole = inside & (addresses + size <= self.stops[place])
            found[whole] = (self.offsets[place] + addresses - self.starts[place])[whole]
            looking &= ~inside
            if not looking.any():
                break
        return found


def read_elf_pages(dump: ElfDump, extents: Extents, pfns: Sequence[int] | NDArray[np.integer],
                   missing: Literal["raise", "zero"]) -> NDArray[np.uint8]:
    """Return whole pages, shape (n, page_size); see `PagedDump.read_pages`."""
    wanted = np.asarray(pfns, np.int64)
    size = dump.page_size
    pages = np.empty((len(wanted), size), np.uint8)
    possible = (wanted >= 0) & (wanted < dump.max_pfn)
    offsets = np.where(possible, extents.offsets_of(np.where(possible, wanted, 0) * size, size), -1)
    for row in np.flatnonzero(offsets < 0).tolist():
        pages[row] = 0
        if missing == "raise":  # whole, but cut in two by program headers; or not there at all, and this raises
            pages[row] = np.frombuffer(dump._page(int(wanted[row])), np.uint8)
    rows = np.flatnonzero(offsets >= 0)
    if not len(rows):
        return pages
    offsets = offsets[rows]
    flat, read_into = pages.reshape(-1).data, dump.source.read_into
    breaks = np.flatnonzero((np.diff(offsets) != size) | (np.diff(rows) != 1)) + 1
    if len(breaks) * _LONG <= len(rows):
        for first, last in itertools.pairwise((0, *breaks.tolist(), len(rows))):
            start = int(rows[first]) * size
            read_into(int(offsets[first]), flat[start:start + (last - first) * size])
        return pages
    # Scattered: in the file's order, neighbours together. What lies between is not read along: a call costs less.
    order = np.argsort(offsets, kind="stable")
    offsets, rows = offsets[order], rows[order]
    places, starts = offsets.tolist(), (rows * size).tolist()
    for first, last in pieces(offsets, offsets + size, gap=0):
        if last - first == 1:
            read_into(places[first], flat[starts[first]:starts[first] + size])
        else:
            data = dump.source.read(places[first], places[last - 1] + size - places[first])
            copy_pages(data, offsets[first:last] - places[first], pages, rows[first:last])
    return pages
