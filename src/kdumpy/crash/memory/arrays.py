"""Kernel memory read many pieces at a time: one decompression a page, no Python loop over pages or objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import drgn
import numpy as np
from drgn.helpers.linux.mm import phys_to_virt
from numpy.typing import NDArray

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import DamagedDump, KdumpyError

BATCH = 2048
"""Pages read together: 8 MiB of 4 KiB pages."""
_WORD = 1 << 64


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

    def pages(self, pfns: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return whole pages, shape (n, page_size), and which of them the dump holds; zeros for the others.

        A page whose data is damaged counts as not held, and stands in `damaged`.
        """
        held = self.dump.held(pfns)
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
        distinct, starts = np.unique(pfns, return_index=True)
        edges = np.append(starts, len(pfns))
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
        """Return virtual memory, and the stretches (begin, end) of it that are not in the dump, which hold zeros."""
        out = np.zeros(size, np.uint8)
        done, lost = 0, list[tuple[int, int]]()
        for virtual, physical, length in self.memory.extents(address, address + size):
            start = virtual - address
            if start > done:
                lost.append((done, start))
            done = start + length
            for piece in self._pieces(physical, physical + length):
                at = piece.address - physical + start
                out[at:at + len(piece.data)] = piece.data
                if lost and lost[-1][1] > at:
                    lost[-1] = lost[-1][0], at
            lost += self._gaps(physical, length, start)
        if done < size:
            lost.append((done, size))
        return out, lost

    def _gaps(self, physical: int, length: int, start: int) -> list[tuple[int, int]]:
        unit = self.dump.page_size
        first, last = physical // unit, -(-(physical + length) // unit)
        held = np.concatenate(([True], self.dump.held(np.arange(first, last)), [True]))
        edges = np.flatnonzero(np.diff(held.astype(np.int8)))
        return [(max(start, start + (first + low) * unit - physical), min(start + length, start + (first + high) * unit
                                                                         - physical))
                for low, high in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]

    def walk_physical(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what the dump holds of physical memory in [start, stop), rising, at most BATCH pages at a time."""
        unit = self.dump.page_size
        for run in self.dump.present():
            low, high = max(run.start * unit, start), min(run.stop * unit, stop)
            if low < high:
                for piece in self._pieces(low, high):
                    self.alive()
                    yield piece

    def _pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what is held of physical memory in [start, stop)."""
        unit = self.dump.page_size
        for low in range(start // unit, -(-stop // unit), BATCH):
            pfns = np.arange(low, min(low + BATCH, -(-stop // unit)))
            pfns = pfns[self.dump.held(pfns)]
            if not len(pfns):
                continue
            data, held = self.pages(pfns)
            breaks = np.flatnonzero((np.diff(pfns) != 1) | (held[1:] != held[:-1])) + 1
            for first, last in zip((0, *breaks.tolist()), (*breaks.tolist(), len(pfns)), strict=True):
                if not held[first]:
                    continue
                begin = int(pfns[first]) * unit
                flat = data[first:last].reshape(-1)
                head, tail = max(start - begin, 0), min(stop - begin, len(flat))
                yield Piece(begin + head, flat[head:tail])

    def walk_virtual(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield what the kernel maps in [start, stop) and the dump holds, rising."""
        for virtual, physical, length in self.memory.extents(start, min(stop, _WORD)):
            for piece in self._pieces(physical, min(physical + length, self.dump.max_pfn * self.dump.page_size)):
                self.alive()
                yield Piece(virtual + piece.address - physical, piece.data)


def checked_size(size: int, largest: int, where: str) -> int:
    """Return a size out of the dump.

    Raises:
        DamagedDump: it cannot be right.
    """
    if not 0 < size <= largest:
        raise DamagedDump(f"a size of {size} is not believed", where=where)
    return size
