"""Kernel memory read many pieces at a time: one decompression a page, no Python loop over pages or objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import drgn
import numpy as np
from drgn.helpers.linux.mm import phys_to_virt
from numpy.typing import NDArray

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import KdumpyError

BATCH = 2048
"""Pages read together: 8 MiB of 4 KiB pages."""
_NEAR = 1 << 30
"""Bytes between two ranges that are walked over rather than around."""


class Piece(NamedTuple):
    """A stretch of memory that the dump holds."""

    address: int
    """Virtual, or physical where physical memory was asked for."""
    data: NDArray[np.uint8]


class Arrays:
    """Reads the kernel's memory into arrays."""

    def __init__(self, prog: drgn.Program, dump: Dump, alive: Callable[[], None] = lambda: None) -> None:
        self.dump = dump
        self.alive = alive
        """Called while memory is gone through from begin to end: that takes its time, and ends."""
        self.memory = KernelMemory(dump)
        self.page_size = self.memory.page_size
        self.direct = self._direct_map(prog)
        """Virtual address of physical address 0 in the direct map; None where it is not certain."""
        self.damaged: list[KdumpyError] = []
        """Pages that the dump says it holds and that cannot be read."""

    @cached_property
    def _runs(self) -> NDArray[np.int64]:
        """Runs of pages that the dump holds: first page frame number and end, shape (n, 2), rising."""
        return np.array([(run.start, run.stop) for run in self.dump.present()], np.int64).reshape(-1, 2)

    def _direct_map(self, prog: drgn.Program) -> int | None:
        """Return where physical memory is mapped as a whole, when the page tables agree.

        Source: page_offset_base (arch/x86/kernel/head64.c).
        """
        try:
            base = int(phys_to_virt(prog, 0))
            first = next(iter(self.dump.present())).start * self.dump.page_size
            for physical in (first, (self.dump.max_pfn - 1) * self.dump.page_size):
                try:
                    if self.memory.translate(base + physical) != physical:
                        return None
                except KdumpyError:
                    continue
            return base
        except (StopIteration, *READ_ERRORS):
            return None

    def is_direct(self, start: int, stop: int, *, whole: bool = False) -> bool:
        """Whether [start, stop) lies in the direct map of the physical memory, or is it as a whole."""
        if self.direct is None:
            return False
        end = self.direct + self.dump.max_pfn * self.dump.page_size
        return (start, stop) == (self.direct, end) if whole else self.direct <= start and stop <= end

    def pages(self, pfns: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return whole pages, shape (n, page_size), and which of them the dump holds; zeros for the others.

        A page whose data is damaged counts as not held, and stands in `damaged`.
        """
        return self._read(pfns, self.dump.held(pfns))

    def _read(self, pfns: NDArray[np.int64], held: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return what `pages` does, where it is known which of the pages the dump says it holds."""
        try:
            return self.dump.read_pages(pfns, "zero"), held
        except KdumpyError:
            pass
        found = np.zeros((len(pfns), self.dump.page_size), np.uint8)
        for row in np.flatnonzero(held).tolist():
            try:
                found[row] = self.dump.read_pages(pfns[row:row + 1])[0]
            except KdumpyError as error:
                held[row] = False
                if len(self.damaged) < BATCH:
                    self.damaged.append(error)
        return found, held

    def physical(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return physical addresses, shape (n,); -1 where nothing is mapped."""
        found = np.full(len(addresses), -1, np.int64)
        rest = np.ones(len(addresses), np.bool_)
        if self.direct is not None:
            limit = self.dump.max_pfn * self.dump.page_size
            inside = addresses - np.uint64(self.direct)     # wraps for what lies below
            rest = inside >= np.uint64(limit)
            found[~rest] = inside[~rest].astype(np.int64)
        mask = np.uint64(self.page_size - 1)
        wanted = addresses[rest]
        if len(wanted):
            pages, which = np.unique(wanted & ~mask, return_inverse=True)
            physical = np.array([self._one(int(page)) for page in pages], np.int64)[which]
            found[rest] = np.where(physical < 0, -1, physical + (wanted & mask).astype(np.int64))
        return found

    def _one(self, address: int) -> int:
        try:
            return self.memory.translate(address)
        except KdumpyError:
            return -1

    def gather(self, addresses: NDArray[np.uint64], size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return `size` bytes at each virtual address, shape (n, size), and which could be read; zeros for the others.

        Meant for what lies within a page; an object that crosses into the next is put together from both.
        """
        unit = self.page_size
        out = np.zeros((len(addresses), size), np.uint8)
        good = np.ones(len(addresses), np.bool_)
        done = 0
        while done < size:
            at = addresses + np.uint64(done)
            # As much as every one of them has left on its page.
            room = unit - (at & np.uint64(unit - 1)).astype(np.int64)
            step = int(min(room.min(), size - done)) if len(at) else size
            good &= self._gather(at, out[:, done:done + step])
            done += step
        out[~good] = 0
        return out, good

    def _gather(self, addresses: NDArray[np.uint64], out: NDArray[np.uint8]) -> NDArray[np.bool_]:
        physical = self.physical(addresses)
        good = np.zeros(len(addresses), np.bool_)
        order = np.argsort(physical, kind="stable")
        order = order[physical[order] >= 0]
        unit = self.dump.page_size
        pfns = physical[order] // unit
        starts = np.flatnonzero(np.diff(pfns, prepend=-1))
        distinct, edges = pfns[starts], np.append(starts, len(pfns))
        columns = np.arange(out.shape[1])
        for low in range(0, len(distinct), BATCH):
            some = distinct[low:low + BATCH]
            first, last = edges[low], edges[low + len(some)]
            data, held = self.pages(some)
            rows = order[first:last]
            page = np.searchsorted(some, pfns[first:last])
            inside = physical[rows] % unit
            out[rows] = data[page[:, None], inside[:, None] + columns]
            good[rows] = held[page]
        return good

    def words(self, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Return the 64-bit word at each virtual address, and which could be read."""
        data, good = self.gather(addresses, 8)
        return data.view("<u8").reshape(-1), good

    def read(self, address: int, size: int) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
        """Return virtual memory, and the stretches (begin, end) of it that cannot be had, which hold zeros."""
        out = np.zeros(size, np.uint8)
        done, lost = 0, list[tuple[int, int]]()
        for piece in self._walk(self.memory.extents(address, address + size)):
            at = piece.address - address
            if at > done:
                lost.append((done, at))
            done = at + len(piece.data)
            out[at:done] = piece.data
        if done < size:
            lost.append((done, size))
        return out, lost

    def lots(self, pages: int) -> list[int]:
        """Return page frame numbers that part what the dump holds into lots of so many pages."""
        counts = self._runs[:, 1] - self._runs[:, 0]
        ends = np.cumsum(counts)
        marks = np.arange(pages, counts.sum(), pages)
        which = np.searchsorted(ends, marks, "right")
        borders: list[int] = (self._runs[which, 1] - (ends[which] - marks)).tolist()
        return borders

    def walk_physical(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what the dump holds of physical memory in [start, stop), rising, at most BATCH pages at a time."""
        unit = self.dump.page_size
        first = np.searchsorted(self._runs[:, 1], start // unit, "right")
        last = np.searchsorted(self._runs[:, 0], -(-stop // unit))
        bounds = ((max(low * unit, start), min(high * unit, stop)) for low, high in self._runs[first:last].tolist())
        for piece in self._walk((low, low, high - low) for low, high in bounds):
            self.alive()
            yield piece

    def walk_virtual(self, ranges: Sequence[tuple[int, int]], only: NDArray[np.int64] | None = None
                     ) -> Iterator[Piece]:
        """Yield what the kernel maps in some ranges and the dump holds, rising, at most BATCH pages at a time.

        Args:
            ranges: (first address, end) of each, rising, none in another.
            only: page frame numbers, sorted; other pages are passed over.
        """
        for piece in self._walk(_within(self.memory.extents, ranges), only):
            self.alive()
            yield piece

    def _walk(self, extents: Iterable[tuple[int, int, int]], only: NDArray[np.int64] | None = None
              ) -> Iterator[Piece]:
        """Yield what is held of extents (the address that is told, physical address, bytes), in their order.

        The pages of small extents are read together.
        """
        unit = self.dump.page_size
        end = self.dump.max_pfn * unit
        wanted = None if only is None else frozenset(only.tolist())
        waiting: list[tuple[int, int, int]] = []        # the address that is told, physical begin and end
        pages = 0
        for told, physical, length in extents:
            stop = min(physical + length, end)
            last = -(-stop // unit)
            if wanted is not None and wanted.isdisjoint(range(physical // unit, last)):
                continue
            for low in range(physical // unit, last, BATCH):
                begin = max(low * unit, physical)
                high = min(low + BATCH, last)
                waiting.append((told + begin - physical, begin, min(high * unit, stop)))
                pages += high - low
                if pages >= BATCH:
                    yield from self._together(waiting, only)
                    waiting, pages = [], 0
        yield from self._together(waiting, only)

    def _together(self, parts: Sequence[tuple[int, int, int]], only: NDArray[np.int64] | None) -> Iterator[Piece]:
        """Yield what is held of parts of memory (see `_walk`), all read at a time."""
        if not parts:
            return
        unit = self.dump.page_size
        places = np.array(parts, np.uint64)[:, 1:].astype(np.int64)
        first = places[:, 0] // unit
        counts = -(-places[:, 1] // unit) - first
        which = np.repeat(np.arange(len(parts)), counts)
        pfns = np.arange(len(which)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        held = self.dump.held(pfns)
        if only is not None:
            held &= _among(only, pfns)
        pfns, which = pfns[held], which[held]
        if not len(pfns):
            return
        data, good = self._read(pfns, np.ones(len(pfns), np.bool_))
        breaks = np.flatnonzero((np.diff(pfns) != 1) | (np.diff(which) != 0) | (good[1:] != good[:-1])) + 1
        for low, high in zip((0, *breaks.tolist()), (*breaks.tolist(), len(pfns)), strict=True):
            if good[low]:
                told, start, stop = parts[which[low]]
                begin = int(pfns[low]) * unit
                flat = data[low:high].reshape(-1)
                head = max(start - begin, 0)
                yield Piece(told + begin + head - start, flat[head:min(stop - begin, len(flat))])


def _among(sorted_numbers: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of some numbers are among others (np.isin() sorts them again, and loads numpy.ma: 15 ms)."""
    if not len(sorted_numbers):
        return np.zeros(len(wanted), np.bool_)
    place = np.minimum(np.searchsorted(sorted_numbers, wanted), len(sorted_numbers) - 1)
    found: NDArray[np.bool_] = sorted_numbers[place] == wanted
    return found


def _within(extents: Callable[[int, int], Iterator[tuple[int, int, int]]], ranges: Sequence[tuple[int, int]]
            ) -> Iterator[tuple[int, int, int]]:
    """Yield (virtual address, physical address, bytes) of what is mapped in ranges, as `KernelMemory.extents` does.

    Ranges that lie near each other share a walk of the page tables: there are thousands of vmalloc's.
    """
    at = 0
    while at < len(ranges):
        near = at + 1
        while near < len(ranges) and ranges[near][0] - ranges[near - 1][1] < _NEAR:
            near += 1
        some = ranges[at:near]
        number = 0
        for virtual, physical, length in extents(some[0][0], some[-1][1]):
            while number < len(some) and some[number][1] <= virtual:
                number += 1
            inside = number
            while inside < len(some) and some[inside][0] < virtual + length:
                start, stop = max(some[inside][0], virtual), min(some[inside][1], virtual + length)
                yield start, physical + start - virtual, stop - start
                inside += 1
        at = near
