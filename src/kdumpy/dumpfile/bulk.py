"""Many pages of a kdump file at once, with numpy: descriptors and data are read in long pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.bitmap import BLOCK, Bitmap
from kdumpy.dumpfile.unpacking import unpacker
from kdumpy.errors import HostError

if TYPE_CHECKING:
    from kdumpy.dumpfile.kdump import KdumpDump

DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
"""struct page_desc. Source: makedumpfile diskdump_mod.h."""
assert DESCRIPTOR.itemsize == 24

_PIECE = 8 << 20
"""Bytes read from the file at a time."""
_GAP = 32 << 10
"""Bytes between two pages' data that are read along rather than skipped."""
_BLOCK_BITS = BLOCK * 8
_BLOCKS = 64
"""Blocks of the bitmap looked at together."""
_SET_BITS = np.array([number.bit_count() for number in range(256)], np.uint8)


def read_kdump_pages(dump: KdumpDump, pfns: Sequence[int] | NDArray[np.integer],
                     missing: Literal["raise", "zero"]) -> NDArray[np.uint8]:
    """Return whole pages, shape (n, page_size); see `PagedDump.read_pages`."""
    wanted = np.asarray(pfns, np.int64)
    times = dump.pages_per_block
    if times == 1:
        return _read_blocks(dump, wanted, missing)
    pages = np.empty((len(wanted), dump.page_size), np.uint8)
    numbers, which = np.unique(wanted // times, return_inverse=True)
    order = np.argsort(which, kind="stable")
    for first in range(0, len(numbers), _BLOCKS):
        some = numbers[first:first + _BLOCKS]
        low, high = np.searchsorted(which[order], [first, first + len(some)])
        rows = order[low:high]
        parts = _read_blocks(dump, some, missing).reshape(-1, dump.page_size)
        pages[rows] = parts[(which[rows] - first) * times + wanted[rows] % times]
    return pages


def _read_blocks(dump: KdumpDump, wanted: NDArray[np.int64], missing: Literal["raise", "zero"]) -> NDArray[np.uint8]:
    """Return whole blocks, shape (n, block_size), in the order asked for."""
    found, ranks = ranks_of(dump.bitmap, wanted)
    if missing == "raise" and not found.all():
        dump.block(int(wanted[int(np.argmin(found))]))  # raises, with the reason
    blocks = (np.empty if found.all() else np.zeros)((len(wanted), dump.block_size), np.uint8)
    rows = np.flatnonzero(found)
    descriptors = read_descriptors(dump, ranks[rows])
    _check(dump, wanted[rows], descriptors)
    # In the file's order: the disk is read forwards, and pages that share their data are neighbours.
    order = np.argsort(descriptors["offset"], kind="stable")
    rows, descriptors = rows[order], descriptors[order]
    starts = descriptors["offset"].astype(np.int64)
    stops = starts + descriptors["size"]
    for at, last in pieces(starts, stops):
        base = int(starts[at])
        data = dump.source.read(base, int(stops[at:last].max()) - base)
        _unpack(dump, data, base, descriptors[at:last], rows[at:last], wanted, blocks)
    return blocks


def pieces(starts: NDArray[np.int64], stops: NDArray[np.int64], gap: int = _GAP) -> Iterator[tuple[int, int]]:
    """Yield [first, last) of the extents, sorted by their starts, that are best read together.

    `gap`: bytes between two that are read along rather than skipped.
    """
    if not len(starts):
        return
    reached = np.maximum.accumulate(stops)
    edges = (np.flatnonzero(starts[1:] > reached[:-1] + gap) + 1).tolist()
    for first, last in itertools.pairwise([0, *edges, len(starts)]):
        at = first
        while at < last:
            far = last
            if starts[last - 1] - starts[at] >= _PIECE:
                far = at + int(np.searchsorted(starts[at:last], starts[at] + _PIECE))
            yield at, far
            at = far


def _unpack(dump: KdumpDump, data: bytes, base: int, descriptors: NDArray[np.void],
            rows: NDArray[np.int64], wanted: NDArray[np.int64], blocks: NDArray[np.uint8]) -> None:
    """Decompress the pages whose data lies in `data`, which starts at `base` in the file."""
    fresh = np.ones(len(rows), np.bool_)
    fresh[1:] = descriptors[1:] != descriptors[:-1]
    offsets = descriptors["offset"].astype(np.int64) - base
    flags = descriptors["flags"] & compression.ANY
    for flag in sorted(set(flags[fresh].tolist())):     # np.unique() would load numpy.ma: 15 ms
        some = np.flatnonzero(fresh & (flags == flag))
        if not flag:
            copy_pages(data, offsets[some], blocks, rows[some])
            continue
        jobs = list(zip(offsets[some].tolist(), descriptors["size"][some].tolist(), rows[some].tolist(), strict=True))
        try:
            unpacker(flag)(data, jobs, blocks)
        except (HostError, MemoryError):
            raise
        except Exception:  # each library has errors of its own: find the page, and what is wrong with it
            _one_by_one(dump, flag, data, jobs, wanted, blocks)
    if not fresh.all():  # several pages share their data: zero pages, mostly, in a few groups
        starts = np.flatnonzero(fresh)
        stops = np.append(starts[1:], len(rows))
        for start, stop in np.stack((starts, stops), axis=1)[stops - starts > 1].tolist():
            blocks[rows[start + 1:stop]] = blocks[rows[start]]


def _one_by_one(dump: KdumpDump, flag: int, data: bytes, jobs: list[tuple[int, int, int]],
                wanted: NDArray[np.int64], blocks: NDArray[np.uint8]) -> None:
    for offset, size, row in jobs:
        where = f"{dump.source.name}, physical {int(wanted[row]) * dump.block_size:#x}"
        page = compression.decompress(flag, data[offset:offset + size], dump.block_size, where)
        blocks[row] = np.frombuffer(page, np.uint8)


def copy_pages(data: bytes, offsets: NDArray[np.int64], pages: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
    """Copy pages that lie at any offsets of `data` to rows of `pages`, without a Python loop."""
    size = pages.shape[1]
    whole = np.dtype((np.void, size))
    # One element at each byte: taking some of them is one memcpy each.
    anywhere = np.ndarray((len(data) - size + 1,), whole, data, strides=(1,))
    pages.view(whole).reshape(-1)[rows] = anywhere[offsets]


def held(bitmap: Bitmap, bits: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which bits of a bitmap are set, shape (n,); bits outside of it are not."""
    found = np.zeros(len(bits), np.bool_)
    for rows, _numbers, blocks, which in _bytes_of(bitmap, bits):
        at = bits[rows] % _BLOCK_BITS
        found[rows] = (blocks[which, at >> 3] >> (at & 7) & 1).astype(np.bool_)
    return found


def ranks_of(bitmap: Bitmap, bits: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which bits are set, and how many are set before each; shapes (n,), (n,)."""
    found = np.zeros(len(bits), np.bool_)
    ranks = np.zeros(len(bits), np.int64)
    before = np.array(bitmap.before, np.int64)
    for rows, numbers, blocks, which in _bytes_of(bitmap, bits):
        # Set bits of the block before each of its bytes.
        counts = np.zeros((len(blocks), BLOCK + 1), np.int32)
        np.cumsum(_SET_BITS[blocks], axis=1, dtype=np.int32, out=counts[:, 1:])
        at = bits[rows] % _BLOCK_BITS
        byte = blocks[which, at >> 3]
        below = byte & ((1 << (at & 7)) - 1).astype(np.uint8)
        found[rows] = (byte >> (at & 7) & 1).astype(np.bool_)
        ranks[rows] = before[numbers[which]] + counts[which, at >> 3] + _SET_BITS[below]
    return found, ranks


def _bytes_of(bitmap: Bitmap, bits: NDArray[np.int64]
              ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield (rows of bits, block numbers, those blocks' bytes (k, BLOCK), each row's place among them).

    A bounded number of blocks at a time; bits outside of the bitmap are in no row.
    """
    rows = np.flatnonzero((bits >= bitmap.first) & (bits < bitmap.last))
    numbers = bits[rows] // _BLOCK_BITS
    if (numbers[1:] < numbers[:-1]).any():
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows[order], numbers[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    distinct, edges = numbers[starts], np.append(starts, len(rows))
    for at in range(0, len(distinct), _BLOCKS):
        some = distinct[at:at + _BLOCKS]
        blocks = np.zeros((len(some), BLOCK), np.uint8)
        for place, number in enumerate(some.tolist()):
            data = bitmap.block(number)  # the last may be shorter
            blocks[place, :len(data)] = np.frombuffer(data, np.uint8)
        first, last = edges[at], edges[at + len(some)]
        yield rows[first:last], some, blocks, np.searchsorted(some, numbers[first:last])


def read_descriptors(dump: KdumpDump, ranks: NDArray[np.int64]) -> NDArray[np.void]:
    """Return the descriptors of the given ranks, dtype DESCRIPTOR, shape (n,)."""
    found = np.zeros(len(ranks), DESCRIPTOR)
    order = np.argsort(ranks, kind="stable")
    sorted_ranks = ranks[order]
    at = 0
    while at < len(order):
        first = int(sorted_ranks[at])
        last = at + int(np.searchsorted(sorted_ranks[at:], first + _PIECE // DESCRIPTOR.itemsize))
        count = int(sorted_ranks[last - 1]) - first + 1
        if count > 64 * (last - at):  # far apart: one by one, up to the first
            last, count = at + 1, 1
        raw = dump.source.read(dump.descriptors_offset + first * DESCRIPTOR.itemsize, count * DESCRIPTOR.itemsize)
        found[order[at:last]] = np.frombuffer(raw, DESCRIPTOR)[sorted_ranks[at:last] - first]
        at = last
    return found


def _check(dump: KdumpDump, pfns: NDArray[np.int64], descriptors: NDArray[np.void]) -> None:
    """Refuse descriptors that cannot be right, before anything is read for them."""
    compressed = (descriptors["flags"] & compression.ANY) != 0
    size = descriptors["size"]
    bad = (size > dump.block_size) | (size == 0) | (~compressed & (size != dump.block_size))
    bad |= descriptors["offset"] > dump.source.size
    if bad.any():
        dump.block(int(pfns[int(np.argmax(bad))]))  # raises, with the reason
