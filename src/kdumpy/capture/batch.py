"""One batch of pages on its way into a dump: read it, find what is zero or was seen before, compress the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdumpy.errors import KdumpyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdumpy.capture.duplicates import SeenPages
    from kdumpy.dumpfile import Dump
    from kdumpy.dumpfile.compressors import Packed, PageCompressor

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be written for some pages; rows number the pages of the batch from 0."""

    pfns: NDArray[np.int64]
    """Shape (n,)."""
    packed: Packed | None
    """The stored pages, in the order of `stored`; None when there are none."""
    stored: NDArray[np.int64]
    """Rows whose page is in `packed`."""
    places: NDArray[np.int64]
    """For each stored row: its place in the table of seen pages, -1 for none."""
    zero: NDArray[np.int64]
    """Rows that hold zero bytes only."""
    twins: NDArray[np.int64]
    """Rows that are equal to a stored row."""
    twin_of: NDArray[np.int64]
    """For each twin: the index in `stored` of that row."""
    shared: NDArray[np.int64]
    """Rows that are equal to a page of another batch."""
    shared_places: NDArray[np.int64]
    """For each shared row: the place that names that page."""
    shared_pfns: NDArray[np.int64]
    """For each shared row: that page."""
    unreadable: NDArray[np.int64]
    """Rows that the source holds and that cannot be read."""

    @property
    def pages(self) -> int:
        """How many there are."""
        return len(self.pfns)


class Packer:
    """Makes batches; each worker has one."""

    def __init__(self, dump: Dump, compressor: PageCompressor, seen: SeenPages | None) -> None:
        self._dump = dump
        self._compressor = compressor
        self._seen = seen
        """None where equal pages need not be found."""

    def pack(self, pfns: NDArray[np.int64]) -> Batch:
        """Read pages (one batch of them; no more than that is in memory) and compress them."""
        pages, unreadable = _read(self._dump, pfns)
        words = pages.view(np.uint64)
        wanted = np.ones(len(pfns), np.bool_)
        wanted[unreadable] = False
        if self._seen is None:
            zero = np.flatnonzero(wanted & ~words.any(axis=1))
            wanted[zero] = False
            stored = np.flatnonzero(wanted)
            return Batch(pfns, self._compress(pages, stored), stored, np.full(len(stored), -1, np.int64), zero,
                         _NONE, _NONE, _NONE, _NONE, _NONE, unreadable)
        sums = self._seen.sums(words)
        zero = np.flatnonzero(wanted & (sums == 0))
        # A sum of 0 is a hint only. Most of a batch is looked at in place, some of it is cheaper to copy.
        holds = np.any(words, axis=1)[zero] if len(zero) > len(words) // 4 else np.any(words[zero], axis=1)
        zero = zero[~holds]
        wanted[zero] = False
        found = self._seen.sort_out(self._dump, pfns, words, sums, wanted)
        return Batch(pfns, self._compress(pages, found.stored), found.stored, found.places, zero,
                     found.twins, np.searchsorted(found.stored, found.twin_of),
                     found.shared, found.shared_places, found.shared_pfns, unreadable)

    def _compress(self, pages: NDArray[np.uint8], rows: NDArray[np.int64]) -> Packed | None:
        if not len(rows):
            return None
        return self._compressor.pack(pages if len(rows) == len(pages) else pages[rows])


def _read(dump: Dump, pfns: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the pages and the rows that could not be read: a bad sector must not cost the whole dump."""
    try:
        return dump.read_pages(pfns), _NONE
    except KdumpyError:
        pages = np.zeros((len(pfns), dump.page_size), np.uint8)
        bad = []
        for row, pfn in enumerate(pfns.tolist()):       # one by one only where something is damaged
            try:
                pages[row] = np.frombuffer(dump.read_physical(pfn * dump.page_size, dump.page_size), np.uint8)
            except KdumpyError:
                bad.append(row)
        return pages, np.array(bad, np.int64)
