"""The formats as the pipeline writes them: from batches, in order, to bytes at their places in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from kdumpy.capture.duplicates import PLACES
from kdumpy.dumpfile.compressors import PageCompressor, compressor
from kdumpy.dumpfile.kdumpwriter import KdumpWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kdumpy.capture.batch import Batch
    from kdumpy.capture.plan import Chunk, Plan
    from kdumpy.dumpfile import Dump
    from kdumpy.dumpfile.sink import Sink


class Output(Protocol):
    """A format in the making."""

    compressor: PageCompressor
    end: int
    """Bytes of the file so far: the end of the last page written."""
    zero: int
    """Pages so far that were zero."""
    shared: int
    """Pages so far that were equal to another one, and not stored again."""
    unreadable: int
    """Pages so far that the source holds and that could not be read."""

    def enter(self, chunk: Chunk) -> None:
        """Note the chunk's bitmap; its pages come later."""

    def write(self, rank: int, batch: Batch) -> int:
        """Write a batch whose first page is the rank-th one kept; return how many pages it had."""

    def finish(self) -> None:
        """Write what can be known only now, and take the mark away that says incomplete.

        The mark stays where pages were unreadable: what the dump lacks, its readers are told.
        """


class KdumpOutput:
    """kdump-compressed: pages anywhere, each named by its descriptor; several may name the same bytes."""

    def __init__(self, dump: Dump, sink: Sink, plan: Plan, method: str, method_level: int | None) -> None:
        self.compressor = compressor(method, method_level)
        self.zero = self.shared = self.unreadable = 0
        self._dump = dump
        self._sink = sink
        # What was left out of the source stays left out.
        self._writer = KdumpWriter(sink, dump, level=plan.level | (dump.dump_level or 0), compression=method,
                                   max_pfn=plan.max_pfn)
        self._writer.begin(plan.kept)
        self.end = self._writer.data_offset
        # What each place of the table of seen pages names; 2 MiB.
        self._named_pfn = np.full(PLACES, -1, np.int64)
        self._named_offset = np.zeros(PLACES, np.uint64)
        self._named_size = np.zeros(PLACES, np.uint32)
        self._named_flags = np.zeros(PLACES, np.uint32)

    def enter(self, chunk: Chunk) -> None:
        """Write the chunk's bits. What is cut off later is then simply not in the dump."""
        self._writer.bitmap(chunk.first, chunk.memory, chunk.kept)

    def write(self, rank: int, batch: Batch) -> int:
        """Write the stored pages and the descriptors of all."""
        count = batch.pages
        offsets, sizes, flags = np.zeros(count, np.uint64), np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        if batch.packed is not None:
            stored = batch.stored
            ends = np.cumsum(batch.packed.sizes)
            sizes[stored], flags[stored] = batch.packed.sizes, batch.packed.flags
            offsets[stored] = (self.end + ends - batch.packed.sizes).astype(np.uint64)
            self._sink.write_at(self.end, batch.packed.data)
            self.end += int(ends[-1])
            self._name(batch, offsets, sizes, flags)
        if len(batch.zero):
            offsets[batch.zero], sizes[batch.zero], flags[batch.zero] = self._writer.zero_descriptor
        if len(batch.twins):
            first = batch.stored[batch.twin_of]
            for column in (offsets, sizes, flags):
                column[batch.twins] = column[first]
        if len(batch.shared):
            self._share(batch, offsets, sizes, flags)
        self._writer.descriptors(rank, offsets, sizes, flags)
        self.zero += len(batch.zero)
        self.shared += len(batch.twins) + len(batch.shared)
        self.unreadable += len(batch.unreadable)
        return count

    def _name(self, batch: Batch, offsets: NDArray[np.uint64], sizes: NDArray[np.uint32],
              flags: NDArray[np.uint32]) -> None:
        """Remember where the pages are that the table of seen pages names from now on."""
        has_place = batch.places >= 0
        places, rows = batch.places[has_place], batch.stored[has_place]
        self._named_pfn[places] = batch.pfns[rows]
        self._named_offset[places] = offsets[rows]
        self._named_size[places] = sizes[rows]
        self._named_flags[places] = flags[rows]

    def _share(self, batch: Batch, offsets: NDArray[np.uint64], sizes: NDArray[np.uint32],
               flags: NDArray[np.uint32]) -> None:
        """Give the shared pages the descriptors of those that they are equal to."""
        # Two workers may have taken a place at once, or the page named is in a batch that is still to come:
        # then the page is stored here, once for all that want it.
        for pfn in np.unique(batch.shared_pfns[self._named_pfn[batch.shared_places] != batch.shared_pfns]).tolist():
            place = batch.shared_places[batch.shared_pfns == pfn][0]
            packed = self.compressor.pack(self._dump.read_pages([pfn]))
            self._sink.write_at(self.end, packed.data)
            self._named_pfn[place], self._named_offset[place] = pfn, self.end
            self._named_size[place], self._named_flags[place] = packed.sizes[0], packed.flags[0]
            self.end += int(packed.sizes[0])
            rows = batch.shared[(batch.shared_places == place) & (batch.shared_pfns == pfn)]
            for column, value in ((offsets, self._named_offset), (sizes, self._named_size),
                                  (flags, self._named_flags)):
                column[rows] = value[place]
        known = (self._named_pfn[batch.shared_places] == batch.shared_pfns) & (offsets[batch.shared] == 0)
        rows, places = batch.shared[known], batch.shared_places[known]
        offsets[rows] = self._named_offset[places]
        sizes[rows] = self._named_size[places]
        flags[rows] = self._named_flags[places]

    def finish(self) -> None:
        """Take the mark away, unless pages could not be read."""
        self._writer.finish(incomplete=bool(self.unreadable))


class ElfOutput:
    """ELF: pages as they are, one behind the other. Zero pages are left to be holes of the file."""

    def __init__(self, dump: Dump, sink: Sink, plan: Plan) -> None:
        from kdumpy.dumpfile.elfwriter import ElfWriter  # not in the capture kernel

        self.compressor = compressor("none")
        self.zero = self.shared = self.unreadable = 0
        self._sink = sink
        self._page_size = dump.page_size
        self._writer = ElfWriter(sink, dump, list(_runs(plan)))
        self._writer.begin()
        self._start = self._writer.data_offset
        self._pages = plan.kept
        self._tail = False
        self.end = self._start + plan.kept * dump.page_size

    def enter(self, chunk: Chunk) -> None:
        """Nothing: the program headers say it all."""

    def write(self, rank: int, batch: Batch) -> int:
        """Write the pages that are not zero; neighbours in one piece."""
        if batch.packed is not None:
            data, size = memoryview(batch.packed.data), self._page_size
            breaks = np.flatnonzero(np.diff(batch.stored) != 1) + 1
            for first, last in zip((0, *breaks.tolist()), (*breaks.tolist(), len(batch.stored)), strict=True):
                at = self._start + (rank + int(batch.stored[first])) * size
                self._sink.write_at(at, data[first * size:last * size])
            self._tail = rank + int(batch.stored[-1]) + 1 == self._pages
        self.zero += len(batch.zero)
        self.unreadable += len(batch.unreadable)
        return batch.pages

    def finish(self) -> None:
        """Make the file as long as it says, and take the mark away, unless pages could not be read."""
        if not self._tail and self._pages:
            self._sink.write_at(self.end - 1, b"\0")
        self._writer.finish(incomplete=bool(self.unreadable))


def _runs(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """Yield (first pfn, where the kept pages stop, where the memory behind them stops), in rising order."""
    start = kept = stop = -1
    for chunk in plan.chunks():
        # Where what is kept, or what is memory, begins or ends.
        edges = np.flatnonzero(np.diff(chunk.kept) | np.diff(chunk.memory)) + 1
        for low, high in zip((0, *edges.tolist()), (*edges.tolist(), len(chunk.kept)), strict=True):
            if not chunk.memory[low]:
                continue
            first, last, is_kept = chunk.first + low, chunk.first + high, bool(chunk.kept[low])
            if first == stop and is_kept and kept == stop:
                kept = stop = last                  # goes on
            elif first == stop and not is_kept:
                stop = last                         # the part left out, behind it
            else:
                if start >= 0:
                    yield start, kept, stop
                start, kept, stop = first, last if is_kept else first, last
    if start >= 0:
        yield start, kept, stop
