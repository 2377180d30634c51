"""Copy the pages of kdump-compressed dumps as they are stored, without unpacking them.

For splitting, putting together, flattening and repairing: the bytes go over in long pieces, only the headers,
bitmaps and descriptors are written anew. Pages that share their data go on sharing it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.bitmap import BLOCK, Bitmap
from kdumpy.dumpfile.bulk import DESCRIPTOR
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.kdumpwriter import KdumpWriter, erase_information
from kdumpy.dumpfile.sink import Sink
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.splitset import SplitDump
from kdumpy.errors import DamagedDump, KdumpyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int, int], None]
"""Is told pages done, pages in all, bytes written."""

Whole = Callable[[KdumpDump, "NDArray[np.int64]", "NDArray[np.void]"], "NDArray[np.bool_]"]
"""(part, pfns, their descriptors) -> which of these pages can be had; shape (n,)."""

_BLOCK_BITS = BLOCK * 8
_PIECE = 8 << 20
"""Bytes copied at a time."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds."""

    pages: int
    bytes_written: int
    """Bytes of the file: the end of the last page's data."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The pages of one bitmap block that one part of the source holds."""

    part: KdumpDump
    pfns: NDArray[np.int64]
    descriptors: NDArray[np.void]


def copy_stored(parts: Sequence[KdumpDump], sink: Sink, *, pages: tuple[int, int] | None = None,
                whole: Whole | None = None, incomplete: bool = False, progress: Progress | None = None) -> Copied:
    """Write one dump of all `parts` (one dump, or those of a split set) and sync it.

    Args:
        parts: blocks of one page each; see `parts_of`.
        sink: where it goes.
        pages: write a part of a split set that holds the pages [first, last), and not a dump of its own.
        whole: tells which pages can be had: the others are left out of the bitmap. Without it all are taken,
            whatever their descriptors say.
        incomplete: mark it so, because pages are lost.
        progress: is told how far it is.
    """
    first, last = pages or (0, parts[0].blocks)
    origin = parts[0]
    level = max((part.dump_level or 0 for part in parts), default=0)
    info = b"".join(dict.fromkeys(line for part in parts for line in erase_information(part).splitlines(True)))
    writer = KdumpWriter(sink, origin, level=level, compression=origin.compression, part=pages, eraseinfo=info)
    total = _count(parts, first, last, whole)
    writer.begin(total)
    moved = {id(part): _Moved(part.source, sink) for part in parts}
    zeros = {id(part): zero_offset(part) for part in parts}
    # The bitmaps first: wherever a pipe or a disk ends, what is there says what is lost.
    for start, memory, kept, _pieces in blocks_of(parts, whole):
        writer.bitmap(start, memory, kept)
    end, rank = writer.data_offset, 0
    for _start, _memory, _kept, pieces in blocks_of(parts, whole):
        for piece in pieces:
            inside = (piece.pfns >= first) & (piece.pfns < last)
            found = piece.descriptors if inside.all() else piece.descriptors[inside]
            if not len(found):
                continue
            if (found["size"] > piece.part.block_size).any():
                raise DamagedDump("a page's descriptor is wrong", where=piece.part.source.name,
                                  mend="kdumpy repair makes a readable dump of it")
            unwritten = (found["offset"] == 0) & (found["size"] == 0)
            incomplete = incomplete or bool(unwritten.any())
            zero = zeros[id(piece.part)]
            shared = found["offset"] == zero if zero is not None else np.zeros(len(found), np.bool_)
            stored = ~(unwritten | shared)
            table = np.zeros(len(found), DESCRIPTOR)
            table[stored] = found[stored]
            table["offset"][stored], end = moved[id(piece.part)].place(
                found["offset"][stored], found["size"][stored], end)
            table["offset"][shared], table["size"][shared], table["flags"][shared] = writer.zero_descriptor
            writer.descriptors(rank, table["offset"], table["size"], table["flags"])
            rank += len(found)
        if progress is not None and pieces:
            progress(rank, total, end)
    writer.finish(incomplete=incomplete or any(part.incomplete for part in parts))
    sink.sync()
    return Copied(total, end)


def parts_of(dump: Dump) -> list[KdumpDump] | None:
    """Return the files whose stored pages make up a dump, or None where its pages have to be written anew."""
    parts = dump.parts if isinstance(dump, SplitDump) else [dump] if isinstance(dump, KdumpDump) else []
    return parts if parts and all(part.pages_per_block == 1 for part in parts) else None


def _count(parts: Sequence[KdumpDump], first: int, last: int, whole: Whole | None) -> int:
    """Return how many pages will be written."""
    if whole is None and (first, last) == (0, parts[0].blocks):
        return sum(part.bitmap.count for part in parts)
    return sum(int(np.count_nonzero((piece.pfns >= first) & (piece.pfns < last)))
               for _start, _memory, _kept, pieces in blocks_of(parts, whole) for piece in pieces)


def blocks_of(parts: Sequence[KdumpDump], whole: Whole | None = None) \
        -> Iterator[tuple[int, NDArray[np.bool_], NDArray[np.bool_], list[Piece]]]:
    """Yield (first pfn, which pages are memory, which are kept, the pages) of each stretch of 32,768 pages."""
    origin = parts[0]
    memories = [memory_bitmap(part) for part in parts]
    ranks = [0] * len(parts)
    for number in range(-(-origin.bitmap.size // BLOCK)):
        start = number * _BLOCK_BITS
        memory = np.zeros(min(origin.bitmap.size - number * BLOCK, BLOCK) * 8, np.bool_)
        kept = np.zeros(len(memory), np.bool_)
        pieces: list[Piece] = []
        for index, part in enumerate(parts):
            bits = _bits(part.bitmap, number)
            memory |= _bits(memories[index], number) if memories[index] else bits
            pfns = start + np.flatnonzero(bits)
            if not len(pfns):
                continue
            descriptors = _descriptors(part, ranks[index], len(pfns))
            ranks[index] += len(pfns)
            if whole is not None:
                held = whole(part, pfns, descriptors)
                pfns, descriptors = pfns[held], descriptors[held]
            kept[pfns - start] = True
            pieces.append(Piece(part, pfns, descriptors))
        room = max(origin.blocks - start, 0)
        if memory.any() or kept.any():
            yield start, memory[:room], kept[:room], pieces


def zero_offset(part: KdumpDump) -> int | None:
    """Return where the page of zeros is stored that all zero pages share, or None where there is none.

    Every writer (makedumpfile, QEMU, kdumpy) puts it in front of all other data.
    """
    at = part.descriptors_offset + part.bitmap.count * DESCRIPTOR.itemsize
    for _start, _memory, _kept, pieces in blocks_of([part]):
        for piece in pieces:
            rows = np.flatnonzero(piece.descriptors["offset"] == at)
            if len(rows):
                try:
                    return None if any(part.block(int(piece.pfns[rows[0]]))) else at
                except KdumpyError:
                    return None
    return None


def memory_bitmap(part: KdumpDump) -> Bitmap | None:
    """Return the bitmap of what is memory, or None where the dump has one bitmap only."""
    start = (1 + part.header.sub_header_blocks) * part.block_size
    if start == part.bitmap.offset:
        return None
    return Bitmap(part.source, start, part.bitmap.size, 0, part.blocks)


def _bits(bitmap: Bitmap | None, number: int) -> NDArray[np.bool_]:
    assert bitmap is not None
    return np.unpackbits(np.frombuffer(bitmap.block(number), np.uint8), bitorder="little").view(np.bool_)


def _descriptors(part: KdumpDump, rank: int, count: int) -> NDArray[np.void]:
    """Return descriptors, those that the file does not reach to as zeros."""
    at = part.descriptors_offset + rank * DESCRIPTOR.itemsize
    held = max(min((part.source.size - at) // DESCRIPTOR.itemsize, count), 0)
    found = np.zeros(count, DESCRIPTOR)
    if held:
        try:
            found[:held] = np.frombuffer(part.source.read(at, held * DESCRIPTOR.itemsize), DESCRIPTOR)
        except KdumpyError:     # a bad sector: as if they had not been written
            found[:held] = 0
    return found


class _Moved:
    """Which bytes of a source were copied to where: rising extents, neighbours joined."""

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._targets: list[int] = []

    def place(self, offsets: NDArray[np.uint64], sizes: NDArray[np.uint32], end: int) \
            -> tuple[NDArray[np.uint64], int]:
        """Copy what of these was not copied before to `end` and behind; return where each is, and the new end."""
        starts = offsets.astype(np.int64)
        if not len(starts):
            return offsets, end
        order = np.argsort(starts, kind="stable")
        low, high = starts[order], (starts + sizes)[order]
        fresh = ~self._covered(low, high)
        low, high = low[fresh], high[fresh]
        if len(low):
            reach = np.maximum.accumulate(high)
            breaks = np.flatnonzero(low[1:] > reach[:-1]) + 1
            for at, to in zip((0, *breaks.tolist()), (*breaks.tolist(), len(low)), strict=True):
                end = self._copy(int(low[at]), int(reach[to - 1]), end)
        which = np.searchsorted(np.array(self._starts, np.int64), starts, side="right") - 1
        shift = np.array(self._targets, np.int64) - np.array(self._starts, np.int64)
        placed = starts + shift[which]
        # Descriptors that overlap (a damaged table) can hide behind each other: such a page is copied by itself.
        for row in np.flatnonzero(starts + sizes > np.array(self._stops, np.int64)[which]).tolist():
            placed[row] = end
            self._sink.write_at(end, self._source.read(int(starts[row]), int(sizes[row])))
            end += int(sizes[row])
        return placed.astype(np.uint64), end

    def _covered(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not self._starts:
            return np.zeros(len(low), np.bool_)
        which = np.searchsorted(np.array(self._starts, np.int64), low, side="right") - 1
        inside: NDArray[np.bool_] = (which >= 0) & (high <= np.array(self._stops, np.int64)[which])
        return inside

    def _copy(self, start: int, stop: int, end: int) -> int:
        for at in range(start, stop, _PIECE):
            size = min(_PIECE, stop - at)
            self._sink.write_at(end + at - start, self._source.read(at, size))
        index = bisect_left(self._starts, start)
        if index and self._stops[index - 1] == start and \
                self._targets[index - 1] + start - self._starts[index - 1] == end:
            self._stops[index - 1] = stop
        else:
            self._starts.insert(index, start)
            self._stops.insert(index, stop)
            self._targets.insert(index, end)
        return end + stop - start
