"""Which pages of a dump are kept: a bitmap, held in compressed chunks so that it does not grow with memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kdumpy.capture.kinds import Kind, left_out
from kdumpy.capture.memory import filtered, memory_of
from kdumpy.capture.sorter import PageSorter
from kdumpy.errors import KdumpyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdumpy.dumpfile import Dump

CHUNK = 32768
"""Pages of a chunk; a bitmap of 4 KiB."""

BUDGET = 16 << 20
"""Bytes of compressed bitmaps that are held. Beyond, the pages are sorted again when they are wanted: slower, and
bounded. 1 TiB of ordinary memory takes less than 3 MiB."""

_FILTER_BITS = 0x1e
"""The bits of a dump level that the sorter decides; bit 0, zero pages, hangs on the contents."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of page frame numbers."""

    first: int
    """The first pfn, a multiple of CHUNK."""
    memory: NDArray[np.bool_]
    """Shape (n,): there is memory behind it."""
    kept: NDArray[np.bool_]
    """Shape (n,): it goes into the dump."""


@dataclass(slots=True)
class Plan:
    """What a dump level keeps of a dump. Made by `make`; `chunks` may be asked for any number of times."""

    dump: Dump
    level: int
    sorter: PageSorter | None
    """None where the kernel's page layout is not known: then nothing is left out."""
    kept: int = 0
    """Pages."""
    memory: int = 0
    """Pages of memory that the source holds."""
    kinds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Kind), np.int64))
    """Pages of each Kind, by its number; all are KERNEL where there is no sorter."""
    why_unfiltered: str = ""
    """Why nothing was left out though the level asks for it; empty when all is well."""
    _held: list[tuple[int, int, bytes, bytes]] = field(default_factory=list)
    _overflown: bool = False

    @classmethod
    def make(cls, dump: Dump, level: int) -> Plan:
        """Sort all pages once. A kernel whose layout is not known keeps everything: see `why_unfiltered`."""
        sorter, why = None, ""
        try:
            sorter = PageSorter(dump)       # also for level 0: no level reads broken or offline memory
        except KdumpyError as error:
            if level & _FILTER_BITS:
                why = str(error)
        plan = cls(dump, level, sorter, why_unfiltered=why)
        size = 0
        for chunk in plan._sort(count=True):
            plan.kept += int(np.count_nonzero(chunk.kept))
            plan.memory += int(np.count_nonzero(chunk.memory))
            if not plan._overflown:
                packed = [zlib.compress(np.packbits(bits, bitorder="little").tobytes(), 1)
                          for bits in (chunk.memory, chunk.kept)]
                plan._held.append((chunk.first, len(chunk.kept), packed[0], packed[1]))
                size += len(packed[0]) + len(packed[1]) + 200
                if size > BUDGET:
                    plan._overflown = True
                    plan._held.clear()
        return plan

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks in which there is memory, in rising order.

        Memory of which an earlier filter left the pages out is memory still.
        """
        if filtered(self.dump):
            yield from _with_all_memory(self._chunks(), memory_of(self.dump), self.dump.max_pfn)
        else:
            yield from self._chunks()

    def _chunks(self) -> Iterator[Chunk]:
        if self._overflown:
            yield from self._sort(count=False)
            return
        for first, count, memory, kept in self._held:
            both = [np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=count, bitorder="little")
                    .view(np.bool_) for bits in (memory, kept)]
            yield Chunk(first, both[0], both[1])

    @property
    def max_pfn(self) -> int:
        """One more than the largest page frame number there can be."""
        return self.dump.max_pfn

    def _sort(self, *, count: bool) -> Iterator[Chunk]:
        if self.sorter is None:
            yield from self._all(count=count)
            return
        table = left_out(self.level)
        for first, kinds in self.sorter.batches():
            if count:
                self.kinds += np.bincount(kinds, minlength=len(Kind))[:len(Kind)]
            memory = kinds != Kind.NOT_MEMORY
            yield Chunk(first, memory, memory & ~table[kinds])

    def _all(self, *, count: bool) -> Iterator[Chunk]:
        """Yield everything that the source holds."""
        chunk = np.zeros(CHUNK, np.bool_)
        first = -1
        for run in self.dump.present():
            start = run.start
            while start < run.stop:
                base = start - start % CHUNK
                if base != first:
                    if first >= 0:
                        yield self._chunk(first, chunk, count=count)
                    first, chunk = base, np.zeros(CHUNK, np.bool_)
                stop = min(run.stop, base + CHUNK)
                chunk[start - base:stop - base] = True
                start = stop
        if first >= 0:
            yield self._chunk(first, chunk, count=count)

    def _chunk(self, first: int, memory: NDArray[np.bool_], *, count: bool) -> Chunk:
        held = memory[:max(min(CHUNK, self.dump.max_pfn - first), 0)]
        if count:
            self.kinds[Kind.KERNEL] += np.count_nonzero(held)
        return Chunk(first, held, held)


def _with_all_memory(chunks: Iterator[Chunk], memory: Iterator[range], max_pfn: int) -> Iterator[Chunk]:
    """Yield the chunks with all of `memory` in them, and those in which nothing is kept."""
    kept = next(chunks, None)
    for first, bits in _in_chunks(memory, max_pfn):
        while kept is not None and kept.first < first:
            yield kept
            kept = next(chunks, None)
        if kept is not None and kept.first == first:
            bits[:len(kept.memory)] |= kept.memory
            held = np.zeros(len(bits), np.bool_)
            held[:len(kept.kept)] = kept.kept
            yield Chunk(first, bits, held)
            kept = next(chunks, None)
        else:
            yield Chunk(first, bits, np.zeros(len(bits), np.bool_))
    while kept is not None:
        yield kept
        kept = next(chunks, None)


def _in_chunks(runs: Iterator[range], max_pfn: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield (first pfn, which pages are in one of the runs) of each chunk in which there are some."""
    first = -1
    bits = np.zeros(0, np.bool_)
    for run in runs:
        start = run.start
        while start < run.stop:
            base = start - start % CHUNK
            if base != first:
                if first >= 0:
                    yield first, bits
                first, bits = base, np.zeros(min(CHUNK, max(max_pfn - base, 0)), np.bool_)
            stop = min(run.stop, base + CHUNK)
            bits[start - base:stop - base] = True
            start = stop
    if first >= 0:
        yield first, bits
