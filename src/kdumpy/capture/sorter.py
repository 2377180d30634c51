"""What each page of the crashed machine was used for: a walk over all its struct pages, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kdumpy.capture.kinds import Kind
from kdumpy.capture.pages.classify import NO_BLOCK, Block, Classified, classify
from kdumpy.capture.pages.layout import LARGEST_ORDER, PageLayout
from kdumpy.capture.pages.reading import read_array
from kdumpy.capture.pages.sections import memory_map
from kdumpy.capture.pages.witnesses import kernel_pages
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import NotInDump

BATCH = 32768
"""Pages: 128 MiB of 4 KiB pages, whose struct pages are 2 MiB."""


class PageSorter:
    """Tells pages that a dump level leaves out from those that it keeps, from VMCOREINFO and struct pages alone.

    A page whose struct page cannot be read, or claims what cannot be, counts as the kernel's: it is kept.
    """

    def __init__(self, dump: Dump) -> None:
        """Learn the kernel's layout; NotInDump (or another KdumpyError) when it cannot be known, or is not right."""
        self._dump = dump
        self.layout = PageLayout.of(dump.vmcoreinfo)
        self._memory = KernelMemory(dump)
        self._map = memory_map(self._memory, self.layout.size)
        self.unreadable = 0
        """Pages of memory whose struct page could not be read, in the walk so far."""
        self.impossible = 0
        """Pages whose struct page (or that of the block they lie in) claims what cannot be, in the walk so far."""
        self.without_map = 0
        """Pages of memory that the kernel has no struct page for, such as a device's, in the walk so far."""
        self._check_witnesses()

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (first pfn, kinds (n,)) in rising order, for the memory in pfns [start, stop).

        The first pfn is a multiple of BATCH and n at most BATCH; what lies before `start` is NOT_MEMORY, and
        stretches of BATCH without memory are passed over. May be called again; memory use does not grow with RAM.
        """
        self.unreadable = self.impossible = self.without_map = 0
        stop = self._dump.max_pfn if stop is None else min(stop, self._dump.max_pfn)
        raw = np.zeros((BATCH, self.layout.size), np.uint8)
        block, expected = NO_BLOCK, -1
        for first, runs in self._memory_by_batch(start // BATCH * BATCH, stop):
            if first != expected:
                block = self._block_into(first)
            expected = first + BATCH
            rows = raw[:min(BATCH, stop - first)]
            self._read(first, runs, rows)
            kinds, block, impossible = classify(rows, self.layout, first, block)
            self.impossible += impossible
            _only_memory(kinds, first, runs)
            kinds[:max(start - first, 0)] = Kind.NOT_MEMORY
            if kinds.any():
                yield first, kinds

    def _memory_by_batch(self, start: int, stop: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield (first pfn of a batch, runs of memory in it as (pfn, one past the last))."""
        batch, runs = -1, list[tuple[int, int]]()
        for run in self._dump.present():
            low, high = max(run.start, start), min(run.stop, stop)
            while low < high:
                if low // BATCH != batch:
                    if runs:
                        yield batch * BATCH, runs
                    batch, runs = low // BATCH, []
                end = min(high, (batch + 1) * BATCH)
                runs.append((low, end))
                low = end
        if runs:
            yield batch * BATCH, runs

    def _read(self, first: int, runs: list[tuple[int, int]], rows: NDArray[np.uint8]) -> None:
        """Fill `rows` with the struct pages from pfn `first` on; zeros where there are none."""
        size, filled = self.layout.size, 0
        memory = np.zeros(len(rows), np.bool_)
        for low, high in runs:
            memory[low - first:high - first] = True
        flat = rows.reshape(-1)
        # All of the batch and not only its memory: in a dump that was filtered before, the head of a block that
        # memory lies in need not be there itself.
        for start, stop, address in self._map.arrays(first, first + len(rows)):
            flat[filled * size:(start - first) * size] = 0
            self.without_map += int(np.count_nonzero(memory[filled:start - first]))
            filled = stop - first
            for lost_low, lost_high in read_array(self._dump, self._memory, address,
                                                  flat[(start - first) * size:filled * size]):
                # A struct page that is lost in part is lost.
                lost = slice(start - first + lost_low // size, start - first - -lost_high // size)
                rows[lost] = 0
                self.unreadable += int(np.count_nonzero(memory[lost]))
        flat[filled * size:] = 0
        self.without_map += int(np.count_nonzero(memory[filled:]))

    def _block_into(self, first: int) -> Block:
        """Return the block that began before pfn `first` (a multiple of BATCH) and reaches it, or NO_BLOCK.

        Blocks are aligned to their size, so there are few places where it can begin.
        """
        for order in range(LARGEST_ORDER, BATCH.bit_length() - 1, -1):
            head = first >> order << order
            block = self._two(head).block if head != first else NO_BLOCK
            if block.stop > first:
                return block
        return NO_BLOCK

    def _check_witnesses(self) -> None:
        """Refuse a layout by which a page that is surely the kernel's would be left out."""
        for what, physical in kernel_pages(self._memory):
            pfn = physical // self._memory.page_size
            kind = Kind(int(self._two(pfn & ~1).kinds[pfn & 1]))
            if kind not in (Kind.KERNEL, Kind.HWPOISON):
                raise NotInDump("this kernel's struct page is not understood", where=self._dump.vmcoreinfo.where,
                                why=f"by it the page of {what}, physical {physical:#x}, is {kind.name.lower()}")

    def _two(self, pfn: int) -> Classified:
        """Return what the struct pages of an even pfn and the next say."""
        raw = np.zeros((2, self.layout.size), np.uint8)
        for _, _, address in self._map.arrays(pfn, pfn + 2):
            if read_array(self._dump, self._memory, address, raw.reshape(-1)):
                raw[:] = 0
        return classify(raw, self.layout, pfn, NO_BLOCK)


def _only_memory(kinds: NDArray[np.uint8], first: int, runs: list[tuple[int, int]]) -> None:
    """Set what is not memory to NOT_MEMORY."""
    done = 0
    for low, high in runs:
        kinds[done:low - first] = Kind.NOT_MEMORY
        done = high - first
    kinds[done:] = Kind.NOT_MEMORY
