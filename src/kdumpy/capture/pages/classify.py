"""What an array of struct pages says of its pages: whole arrays at a time, no loop over pages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdumpy.capture.kinds import Kind
from kdumpy.capture.pages.layout import LARGEST_ORDER, PageLayout, TypeMark

_NO_TYPE = -128
"""Below this the word of _mapcount is a page's type and not a count (PAGE_MAPCOUNT_RESERVE, before 6.10; later types
lie lower still)."""
_UNMAPPED = 0xffffffff
"""_mapcount of a page that nothing maps and that has no type."""
_NOTHING = 255
_IMPOSSIBLE_ORDER = 63


class Block(NamedTuple):
    """A free block, or a compound page, that may go on beyond the array that it was found in."""

    stop: int
    """One past its last pfn."""
    kind: int


NO_BLOCK = Block(0, Kind.KERNEL)


class Classified(NamedTuple):
    """The answer for one array."""

    kinds: NDArray[np.uint8]
    """Shape (n,); of memory and of holes alike."""
    block: Block
    """The one that goes on beyond the array, if it reaches so far."""
    impossible: int
    """Pages whose struct page claims what cannot be; they count as the kernel's."""


def classify(raw: NDArray[np.uint8], layout: PageLayout, first: int, before: Block) -> Classified:
    """Sort pages by their struct pages.

    Args:
        raw: struct pages, shape (n, layout.size), C-contiguous; zeros where one could not be read.
        layout: the kernel's.
        first: the first one's page frame number, even.
        before: the block that reached into this array from the one before.
    """
    words = raw.view(np.uint32)
    flags = words[:, layout.flags // 4].copy()
    mapcount = words[:, layout.mapcount // 4].copy()
    tail = (words[:, layout.head // 4] & 1) != 0
    typed = mapcount.view(np.int32) < _NO_TYPE
    plain = ~(tail | typed)
    if layout.slab:
        plain &= (flags & layout.slab) == 0
    kinds = _plain_kinds(layout, flags, (words[:, layout.mapping // 4] & 1) != 0, plain)
    heads = np.flatnonzero(((flags & layout.head_flag) != 0) & ~tail)
    rows = np.flatnonzero(typed & ~tail)
    if layout.slab:
        rows = rows[(flags[rows] & layout.slab) == 0]
    types = mapcount[rows]
    if layout.offline is not None:
        kinds[rows[_of_type(types, layout.offline)]] = Kind.OFFLINE
    free_starts, free_orders = _free_blocks(raw, layout, rows, types, kinds)
    heads = heads[(kinds[heads] != Kind.FREE) & (kinds[heads] != Kind.UNACCEPTED)]
    compound_orders = _compound_pages(raw, layout, heads, flags, mapcount, kinds)
    starts, orders = np.concatenate((free_starts, heads)), np.concatenate((free_orders, compound_orders))
    wrong = (orders > LARGEST_ORDER) | ((starts + first & (1 << np.minimum(orders, 62)) - 1) != 0)
    kinds[starts[wrong]] = Kind.KERNEL
    covered, block = _cover(starts[~wrong], orders[~wrong], kinds, first, before)
    # What lies within a block is not believed when it does not look it: a tail of a compound page (or the copy of
    # its head: "mm/hugetlb: hugetlb_free_vmemmap", all tails' struct pages share one page of memory), and in a free
    # block a page that nothing maps.
    free = (covered == Kind.FREE) | (covered == Kind.UNACCEPTED)
    believed = np.where(free, mapcount == _UNMAPPED, tail) | (kinds == covered)
    believed |= ~free & ((flags & layout.head_flag) != 0)
    inside = covered != _NOTHING
    impossible = int(np.count_nonzero(inside > believed)) + int(np.count_nonzero(~inside[starts[wrong]]))
    np.copyto(kinds, covered, where=inside & believed)
    if layout.hwpoison:
        poisoned = np.flatnonzero(flags & layout.hwpoison)
        # All ones: a struct page that was never set up (page_init_poison()).
        kinds[poisoned[flags[poisoned] != 0xffffffff]] = Kind.HWPOISON
    return Classified(kinds, block, impossible)


def _plain_kinds(layout: PageLayout, flags: NDArray[np.uint32], anonymous: NDArray[np.bool_],
                 plain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return each page's kind by flags and mapping; `plain` pages are no tails and have no type of their own.

    The lowest bit of `mapping` means nothing on pages with a type: struct slab keeps a count there.
    """
    user = anonymous & plain
    cache = (flags & layout.lru) != 0
    if layout.swap:
        cache |= (flags & layout.swap) == layout.swap
    cache &= plain > user
    private = cache & ((flags & layout.has_private) != 0)
    kinds = user.view(np.uint8) * np.uint8(Kind.USER - Kind.KERNEL)
    kinds += cache.view(np.uint8) * np.uint8(Kind.CACHE - Kind.KERNEL)
    kinds += private.view(np.uint8)  # CACHE_PRIVATE comes next after CACHE
    kinds += np.uint8(Kind.KERNEL)
    return kinds


def _of_type(words: NDArray[np.uint32], mark: TypeMark) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (words & np.uint32(mark.mask)) == mark.value
    return found


def _free_blocks(raw: NDArray[np.uint8], layout: PageLayout, rows: NDArray[np.int64], types: NDArray[np.uint32],
                 kinds: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the heads of free blocks among the pages with a type, and mark them; return (rows, orders)."""
    starts = rows[_of_type(types, layout.buddy)]
    kinds[starts] = Kind.FREE
    orders = raw.view(np.uint64)[starts, layout.private // 8]
    orders = np.where(orders < layout.free_orders, orders, _IMPOSSIBLE_ORDER).astype(np.int64)
    if layout.unaccepted is not None:
        # Pages are accepted in blocks of the largest order (mm/page_alloc.c, __free_unaccepted()).
        more = rows[_of_type(types, layout.unaccepted)]
        kinds[more] = Kind.UNACCEPTED
        starts = np.concatenate((starts, more))
        orders = np.concatenate((orders, np.full(len(more), layout.free_orders - 1)))
    return starts, orders


def _compound_pages(raw: NDArray[np.uint8], layout: PageLayout, heads: NDArray[np.int64], flags: NDArray[np.uint32],
                    mapcount: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Mark hugetlb pages among the heads of compound pages; return each one's order, _IMPOSSIBLE_ORDER if unknown."""
    # A compound page is aligned to its size, so that the second struct page is in the same even array.
    second = raw[np.minimum(heads + 1, len(raw) - 1)]
    orders = second[:, layout.order].astype(np.int64)
    orders[(second[:, layout.head] & 1) == 0] = _IMPOSSIBLE_ORDER
    if layout.hugetlb_type is not None:
        huge = _of_type(mapcount[heads], layout.hugetlb_type)
    elif layout.hugetlb_dtor is not None:
        offset, number = layout.hugetlb_dtor
        huge = second[:, offset] == number
    else:
        huge = (second.view(np.uint32)[:, layout.flags // 4] & layout.hugetlb_flag) != 0
    huge &= kinds[heads] == Kind.KERNEL
    kinds[heads[huge]] = Kind.USER
    if layout.hwpoison:
        # Which part of a hugetlb page is broken is not told by flags; of other compound pages it is.
        kinds[heads[huge & ((flags[heads] & layout.hwpoison) != 0)]] = Kind.HWPOISON
    return orders


def _cover(starts: NDArray[np.int64], orders: NDArray[np.int64], kinds: NDArray[np.uint8], first: int,
           before: Block) -> tuple[NDArray[np.uint8], Block]:
    """Return for each page the kind of the block that it lies in, or _NOTHING; and the block that goes on.

    Blocks are powers of two, aligned to their size: of two, one holds the other or they are apart. So one that
    starts before the end of any earlier one lies in it, and is not believed.
    """
    count = len(kinds)
    # Stable: two rising runs are merged in one pass; and numpy's other way, by AVX2, comes out wrong under QEMU 7.2.
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    stops = starts + (1 << orders[order])
    reach = max(before.stop - first, 0)
    if len(starts):
        earlier = np.maximum(np.maximum.accumulate(np.concatenate(([reach], stops[:-1]))), reach)
        outermost = starts >= earlier
        starts, stops = starts[outermost], stops[outermost]
    values = kinds[starts]
    if reach:
        starts, stops = np.concatenate(([0], starts)), np.concatenate(([reach], stops))
        values = np.concatenate((np.array([before.kind], np.uint8), values))
    if not len(starts):
        return np.full(count, _NOTHING, np.uint8), NO_BLOCK
    block = Block(first + int(stops[-1]), int(values[-1])) if stops[-1] > count else NO_BLOCK
    stops = np.minimum(stops, count)
    # Gap, block, gap, block … gap.
    edges = np.zeros(2 * len(starts) + 2, np.int64)
    edges[1:-1:2], edges[2:-1:2], edges[-1] = starts, stops, count
    painted = np.full(2 * len(starts) + 1, _NOTHING, np.uint8)
    painted[1::2] = values
    return np.repeat(painted, np.diff(edges)), block
