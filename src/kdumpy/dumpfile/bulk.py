"""Many pages of a kdump file at once, with numpy: descriptors and data are read in long pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.bitmap import BLOCK

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


def read_kdump_pages(dump: KdumpDump, pfns: Sequence[int] | NDArray[np.integer],
                     missing: Literal["raise", "zero"]) -> NDArray[np.uint8]:
    """Return whole pages, shape (n, page_size); see `PagedDump.read_pages`."""
    wanted = np.asarray(pfns, np.int64)
    pages = np.zeros((len(wanted), dump.page_size), np.uint8)
    held, ranks = ranks_of(dump, wanted)
    if missing == "raise" and not held.all():
        dump._page(int(wanted[int(np.argmin(held))]))  # raises, with the reason
    rows = np.flatnonzero(held)
    descriptors = read_descriptors(dump, ranks[rows])
    _check(dump, wanted[rows], descriptors)
    # In the file's order: the disk is read forwards, and pages that share their data are neighbours.
    order = np.argsort(descriptors["offset"], kind="stable")
    rows, descriptors = rows[order], descriptors[order]
    starts = descriptors["offset"].astype(np.int64)
    stops = starts + descriptors["size"]
    at = 0
    while at < len(rows):
        far = at + int(np.searchsorted(starts[at:], starts[at] + _PIECE))
        gaps = np.flatnonzero(starts[at + 1:far] > np.maximum.accumulate(stops[at:far - 1]) + _GAP)
        last = at + 1 + int(gaps[0]) if len(gaps) else max(far, at + 1)
        base = int(starts[at])
        data = dump.source.read(base, int(stops[at:last].max()) - base)
        _unpack(dump, data, base, descriptors[at:last], rows[at:last], wanted, pages)
        at = last
    return pages


def _unpack(dump: KdumpDump, data: bytes, base: int, descriptors: NDArray[np.void],
            rows: NDArray[np.int64], wanted: NDArray[np.int64], pages: NDArray[np.uint8]) -> None:
    """Decompress the pages whose data lies in `data`, which starts at `base` in the file."""
    before, row_before = -1, -1
    offsets, sizes, flags = (descriptors[name].tolist() for name in ("offset", "size", "flags"))
    for row, offset, size, flag in zip(rows.tolist(), offsets, sizes, flags, strict=True):
        if offset == before:
            pages[row] = pages[row_before]
            continue
        piece = data[offset - base:offset - base + size]
        if flag & compression.ANY:
            where = f"{dump.source.name}, physical {int(wanted[row]) * dump.page_size:#x}"
            piece = compression.decompress(flag, piece, dump.page_size, where)
        pages[row] = np.frombuffer(piece, np.uint8)
        before, row_before = offset, row


def ranks_of(dump: KdumpDump, pfns: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which pages are held, and each one's place among the descriptors; shapes (n,), (n,)."""
    bitmap = dump.bitmap
    held = np.zeros(len(pfns), np.bool_)
    ranks = np.zeros(len(pfns), np.int64)
    inside = (pfns >= bitmap.first) & (pfns < bitmap.last)
    blocks = np.where(inside, pfns // _BLOCK_BITS, -1)
    for number in np.unique(blocks[inside]).tolist():
        rows = np.flatnonzero(blocks == number)
        bits = np.unpackbits(np.frombuffer(bitmap.block(number), np.uint8), bitorder="little")
        places = pfns[rows] - number * _BLOCK_BITS
        held[rows] = bits[places].astype(np.bool_)
        ranks[rows] = bitmap.before[number] + np.cumsum(bits, dtype=np.int64)[places] - 1
    return held, ranks


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
    bad = (size > dump.page_size) | (size == 0) | (~compressed & (size != dump.page_size))
    bad |= descriptors["offset"] > dump.source.size
    if bad.any():
        dump._page(int(pfns[int(np.argmax(bad))]))  # raises, with the reason
