"""Rebuild a kdump-compressed dump of what is left of one: cut short, never finished, or damaged.

Each page is asked for by its descriptor, and unpacked to see whether it is whole. Those that cannot be had are
left out of the bitmap, so that every reader knows that they are not there; the others are copied as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.bulk import DESCRIPTOR
from kdumpy.dumpfile.elf import ElfDump
from kdumpy.dumpfile.flattened import FlattenedSource
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.sink import Sink
from kdumpy.dumpfile.storedcopy import Copied, Progress, blocks_of, copy_stored, parts_of
from kdumpy.errors import DamagedDump, KdumpyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BEYOND, UNWRITTEN, WRONG, BROKEN, UNKNOWN = (
    "their data lies beyond the end of the file", "they were never written", "their descriptors are wrong",
    "their data cannot be unpacked", "the bitmap ends before them, so that it is not known which they were")
"""Why pages are lost."""

_MOST_RANGES = 4096
"""Ranges of lost pages that are kept one by one; beyond, neighbours are told as one range."""
_NOT_COUNTED = 256
"""Pages: what lies between the descriptors and the first page's data may be a stored page of zeros."""
_BATCH = 1024
"""Pages unpacked at a time."""


@dataclass
class Losses:
    """The pages that a dump says it holds and that cannot be had."""

    page_size: int
    pages: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Pages, by why they are lost."""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """Page frame numbers [first, last), rising; pages that the dump never held may lie within."""

    def add(self, pfns: NDArray[np.int64], why: str) -> None:
        """Count some pages, rising."""
        if not len(pfns):
            return
        self.pages += len(pfns)
        self.reasons[why] = self.reasons.get(why, 0) + len(pfns)
        breaks = np.flatnonzero(np.diff(pfns) != 1) + 1
        for at, to in zip((0, *breaks.tolist()), (*breaks.tolist(), len(pfns)), strict=True):
            self.ranges.append((int(pfns[at]), int(pfns[to - 1]) + 1))

    def settle(self) -> None:
        """Sort and join the ranges."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(self.ranges):
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        while len(joined) > _MOST_RANGES:
            joined = [(one[0], joined[at + 1][1] if at + 1 < len(joined) else one[1])
                      for at, one in enumerate(joined) if at % 2 == 0]
        self.ranges = joined

    def extents(self) -> list[tuple[int, int]]:
        """Return the ranges as (physical address, bytes)."""
        return [(first * self.page_size, (last - first) * self.page_size) for first, last in self.ranges]


class PageJudge:
    """Which pages of a damaged dump can be had; each is judged once, the answer takes a bit."""

    def __init__(self, dump: KdumpDump, losses: Losses, *, thorough: bool) -> None:
        self._losses = losses
        self._thorough = thorough
        self._known: dict[int, bytes] = {}
        self._written = _written(dump)
        self._lowest = dump.source.size

    def promised(self, dump: KdumpDump) -> int:
        """Return about how many pages the dump was to hold: the first page's data follows the last descriptor."""
        return (self._lowest - dump.descriptors_offset) // DESCRIPTOR.itemsize

    def __call__(self, dump: KdumpDump, pfns: NDArray[np.int64],
                 descriptors: NDArray[np.void]) -> NDArray[np.bool_]:
        """Return which of these pages can be had; shape (n,)."""
        key = int(pfns[0])
        if key in self._known:
            packed = np.frombuffer(self._known[key], np.uint8)
            return np.unpackbits(packed, count=len(pfns), bitorder="little").view(np.bool_)
        held = self._judge(dump, pfns, descriptors)
        self._known[key] = np.packbits(held, bitorder="little").tobytes()
        return held

    def _judge(self, dump: KdumpDump, pfns: NDArray[np.int64],
               descriptors: NDArray[np.void]) -> NDArray[np.bool_]:
        offset, size, flags = (descriptors[name] for name in ("offset", "size", "flags"))
        compressed = (flags & compression.ANY) != 0
        unwritten = (offset == 0) & (size == 0)
        wrong = ~unwritten & ((size == 0) | (size > dump.block_size) | (~compressed & (size != dump.block_size))
                              | (offset < dump.descriptors_offset))
        beyond = ~unwritten & ~wrong & ((offset > dump.source.size) | (size > dump.source.size - offset))
        held: NDArray[np.bool_] = ~(unwritten | wrong | beyond)
        if self._written is not None:       # a stream that ends early has holes
            starts, stops = self._written
            which = np.searchsorted(starts, offset.astype(np.int64), side="right") - 1
            hole = held & ((which < 0) | (offset.astype(np.int64) + size > stops[which]))
            beyond |= hole
            held &= ~hole
        if held.any():
            self._lowest = min(self._lowest, int(offset[held].min()))
        broken = np.zeros(len(pfns), np.bool_)
        if self._thorough:
            rows = np.flatnonzero(held)
            for at in range(0, len(rows), _BATCH):
                some = rows[at:at + _BATCH]
                broken[some] = _broken(dump, pfns[some])
            held &= ~broken
        for lost, why in ((unwritten, UNWRITTEN), (wrong, WRONG), (beyond, BEYOND), (broken, BROKEN)):
            self._losses.add(pfns[lost], why)
        return held


def rebuild_kdump(dump: KdumpDump, sink: Sink, *, thorough: bool = True,
                  progress: Progress | None = None) -> tuple[Copied, Losses]:
    """Write what can be had of a dump as a whole one, marked incomplete when pages are lost.

    Args:
        dump: the damaged dump; for a split set, each part by itself.
        sink: where it goes.
        thorough: unpack every page to see whether it is whole (0.1 to 1 s a GB of the file).
        progress: is told how far the copy is.
    """
    if dump.pages_per_block != 1:
        raise DamagedDump("a dump with blocks of several pages cannot be rebuilt", where=dump.source.name,
                          mend="convert it first: kdumpy convert")
    losses = Losses(dump.page_size)
    judge = PageJudge(dump, losses, thorough=thorough)
    for _block in blocks_of([dump], judge):
        pass        # so that it is known before the first byte is written whether any page is lost
    judged = dump.bitmap.count
    if judged and judge.promised(dump) > judged + _NOT_COUNTED and losses.pages < judged:
        losses.pages += judge.promised(dump) - judged
        losses.reasons[UNKNOWN] = judge.promised(dump) - judged
    copied = copy_stored([dump], sink, pages=dump.split, whole=judge, incomplete=losses.pages > 0, progress=progress)
    losses.settle()
    return copied, losses


def lost_extents(dump: Dump) -> list[tuple[int, int]]:
    """Return (physical address, bytes) of the memory that a dump says it holds and that its tables do not give.

    What the tables tell: no page is unpacked.
    """
    if isinstance(dump, ElfDump):
        size = dump.source.size
        cut = ((segment, max(min(segment.file_size, size - segment.offset), 0)) for segment in dump.segments)
        return [(segment.address + held, segment.file_size - held) for segment, held in cut
                if held < segment.file_size]
    losses = Losses(dump.page_size)
    for part in parts_of(dump) or []:
        for _block in blocks_of([part], PageJudge(part, losses, thorough=False)):
            pass
    losses.settle()
    return losses.extents()


def _written(dump: KdumpDump) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return starts and stops of what a flattened stream wrote, or None for a plain file."""
    if not isinstance(dump.source, FlattenedSource):
        return None
    starts: list[int] = []
    stops: list[int] = []
    for piece in dump.source.pieces:
        if stops and stops[-1] == piece.start:
            stops[-1] = piece.start + piece.size
        else:
            starts.append(piece.start)
            stops.append(piece.start + piece.size)
    return np.array(starts, np.int64), np.array(stops, np.int64)


def _broken(dump: KdumpDump, pfns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pages cannot be unpacked."""
    broken = np.zeros(len(pfns), np.bool_)
    try:
        dump.read_pages(pfns)
    except KdumpyError:
        for row, pfn in enumerate(pfns.tolist()):
            try:
                dump.block(pfn)
            except KdumpyError:
                broken[row] = True
    return broken
