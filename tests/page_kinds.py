"""What each page is by the kernel's own definitions: page by page, from types and enumerators that drgn reads.

Shares nothing with kdumpy.capture: no VMCOREINFO, no arrays, and free pages are told by the free lists.
"""

from __future__ import annotations

import struct

import numpy as np
from drgn import FaultError, Program, Type, offsetof, sizeof
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import page_to_pfn, pfn_to_page
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from numpy.typing import NDArray

from kdumpy.capture.kinds import Kind
from kdumpy.dumpfile import Dump

WINDOW = 64
"""Struct pages read at a time: a page of them."""


def free_pages(prog: Program, pages: int) -> NDArray[np.bool_]:
    """Return which pages lie in blocks of the zones' free lists: shape (pages,)."""
    free = np.zeros(pages, np.bool_)
    link = "buddy_list" if _has(prog.type("struct page"), "buddy_list") else "lru"
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            if not zone.present_pages.value_():
                continue  # its lists were never set up
            for order in range(len(zone.free_area)):
                for head in zone.free_area[order].free_list:
                    for page in list_for_each_entry("struct page", head.address_of_(), link):
                        pfn = page_to_pfn(page).value_()
                        free[pfn:pfn + (1 << order)] = True
    return free


def kinds_by_types(prog: Program, dump: Dump) -> NDArray[np.uint8]:
    """Return each page's kind, free ones as KERNEL (see `free_pages`): shape (max_pfn,)."""
    page = prog.type("struct page")
    size = sizeof(page)
    flag = dict(prog.type("enum pageflags").enumerators)
    types = dict(prog.type("enum pagetype").enumerators) if _knows(prog, "enum pagetype") else {}
    at = {name: offsetof(page, name) for name in ("flags", "mapping", "_mapcount")}
    head_at = offsetof(page, "compound_head" if _has(page, "compound_head") else "compound_info")
    order_at, destructor_at = _second_page(prog, page, size)
    found = np.full(dump.max_pfn, 255, np.uint8)

    def judge(raw: bytes, second: bytes) -> tuple[Kind, int, bool]:
        """Return (kind, pages, is a hugetlb page) of a page that is not a tail."""
        flags, mapping = (struct.unpack_from("<Q", raw, at[name])[0] for name in ("flags", "mapping"))
        count, = struct.unpack_from("<I", raw, at["_mapcount"])

        def is_set(name: str) -> bool:
            return name in flag and bool(flags >> flag[name] & 1)

        slab = count >> 24 == types["PGTY_slab"] if types else is_set("PG_slab")
        pages, hugetlb = 1, False
        if is_set("PG_head") and second[head_at] & 1:
            pages = 1 << second[order_at - size]
            hugetlb = (count >> 24 == types["PGTY_hugetlb"] if types
                       else second[destructor_at - size] == prog.constant("HUGETLB_PAGE_DTOR").value_())
        anonymous = mapping & 1 and not slab and (not types or hugetlb or count >> 31 == 0 or count >> 24 == 0xff)
        kind = Kind.KERNEL
        if anonymous or hugetlb:
            kind = Kind.USER
        elif not slab and (is_set("PG_lru") or (is_set("PG_swapcache") and is_set("PG_swapbacked"))):
            kind = Kind.CACHE_PRIVATE if is_set("PG_private") else Kind.CACHE
        elif count == 0xfffffeff or (types and count >> 24 == types["PGTY_offline"]):
            kind = Kind.OFFLINE
        return (Kind.HWPOISON if is_set("PG_hwpoison") else kind), pages, hugetlb

    for run in dump.present():
        for first in range(run.start, run.stop, WINDOW):
            stop = min(first + WINDOW, run.stop)
            try:
                raw = prog.read(pfn_to_page(prog, first).value_(), (stop - first) * size)
            except FaultError:
                continue  # memory that the kernel has no struct pages for
            for index in range(stop - first):
                pfn, one = first + index, raw[index * size:(index + 1) * size]
                if one[head_at] & 1 or found[pfn] != 255:
                    continue
                kind, pages, hugetlb = judge(one, raw[(index + 1) * size:(index + 2) * size])
                found[pfn:pfn + pages] = kind if kind != Kind.HWPOISON or hugetlb else Kind.KERNEL
                found[pfn] = kind
    found[found == 255] = Kind.KERNEL
    return found


def _second_page(prog: Program, page: Type, size: int) -> tuple[int, int]:
    """Return where a compound page's order and destructor lie, counted from its first struct page on."""
    if _has(page, "compound_order"):
        return size + offsetof(page, "compound_order"), size + offsetof(page, "compound_dtor")
    folio = prog.type("struct folio")
    if _has(folio, "_folio_order"):
        return offsetof(folio, "_folio_order"), offsetof(folio, "_folio_dtor")
    return offsetof(folio, "_flags_1"), 0


def _has(kind: Type, member: str) -> bool:
    try:
        offsetof(kind, member)
    except LookupError:
        return False
    return True


def _knows(prog: Program, name: str) -> bool:
    try:
        prog.type(name)
    except LookupError:
        return False
    return True
