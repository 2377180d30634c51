"""Arrays of struct page as kernels from 5.4 to 7.2 lay them out, made from their VMCOREINFO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdumpy.capture.kinds import Kind
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo

_COMMON = """SIZE(page)=64
OFFSET(page.flags)=0
OFFSET(page._refcount)=52
OFFSET(page.mapping)=24
OFFSET(page.lru)=8
OFFSET(page._mapcount)=48
OFFSET(page.private)=40
LENGTH(zone.free_area)=11
NUMBER(PG_lru)=4
NUMBER(PG_private)=13
NUMBER(PG_swapcache)=10
NUMBER(PG_swapbacked)=19
NUMBER(PG_hwpoison)=22
NUMBER(PG_head_mask)=65536
"""
_ONE_BIT = """OFFSET(page.compound_head)=8
NUMBER(PG_slab)=9
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129
NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-257
"""
_TOP_BYTE = """NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456
NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-201326592
NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-251658240
"""


@dataclass(frozen=True)
class Style:
    """One way in which kernels lay out struct page."""

    name: str
    text: str
    order: int
    """Offset of a compound page's order, from the first struct page on."""
    huge: str
    """How a hugetlb page is told: "destructor", "flag", "type"."""
    types: dict[str, int]
    """The word of _mapcount of each type."""
    huge_at: int = 0
    """Offset of the destructor's number, from the first struct page on."""

    @property
    def info(self) -> VmcoreInfo:
        return VmcoreInfo(self.text.encode())


_OLD = {"buddy": 0xffffff7f, "offline": 0xfffffeff, "table": 0xfffffbff}
_CLEARED = {"buddy": 0xbfffffff, "offline": 0xdfffffff, "table": 0xefffffff, "hugetlb": 0xf7ffffff, "slab": 0xfbffffff}
# What an owner keeps in the low bits must not matter.
_BYTE = {"buddy": 0xf0000000, "offline": 0xf1000000, "table": 0xf2000007, "hugetlb": 0xf4000000, "slab": 0xf5000000,
         "unaccepted": 0xf7000000, "zsmalloc": 0xf6000123}

STYLES = (
    Style("5.4", _COMMON + _ONE_BIT + "OFFSET(page.compound_dtor)=16\nOFFSET(page.compound_order)=17\n"
          "NUMBER(HUGETLB_PAGE_DTOR)=2\n", 64 + 17, "destructor", _OLD, 64 + 16),
    Style("6.3", _COMMON + _ONE_BIT + "OFFSET(folio._folio_dtor)=80\nOFFSET(folio._folio_order)=81\n"
          "NUMBER(HUGETLB_PAGE_DTOR)=2\n", 81, "destructor", _OLD, 80),
    Style("6.6", _COMMON + _ONE_BIT + "NUMBER(PG_hugetlb)=8\n", 64, "flag", _OLD),
    Style("6.10", _COMMON + "OFFSET(page.compound_head)=8\nNUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-67108865\n"
          "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-1073741825\nNUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-134217729\n"
          "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-536870913\n", 64, "type", _CLEARED),
    Style("6.12", _COMMON + _TOP_BYTE + "OFFSET(page.compound_head)=8\n", 64, "type", _BYTE),
    Style("7.2", _COMMON + _TOP_BYTE + "OFFSET(page.compound_info)=8\n"
          "NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)=-150994944\n", 64, "type", _BYTE),
)
LRU, PRIVATE, SWAPCACHE, SWAPBACKED, SLAB, HWPOISON, HEAD = 1 << 4, 1 << 13, 1 << 10, 1 << 19, 1 << 9, 1 << 22, 1 << 16
HEAP = 0xffff888000000000
"""An even address: what `mapping` holds for files."""


class StructPages:
    """An array of struct pages, all of them the kernel's at first, and what each is expected to be called."""

    def __init__(self, style: Style, count: int) -> None:
        self.style = style
        self.raw = np.zeros((count, 64), np.uint8)
        self.words = self.raw.view(np.uint64)
        """Eight a page: 0 flags, 1 compound_head, 3 mapping, 5 private."""
        self.counts = self.raw.view(np.uint32)[:, 12]
        self.counts[:] = 0xffffffff
        self.expected = np.full(count, Kind.KERNEL, np.uint8)

    def page(self, at: int, use: str) -> None:
        """Make one page of some use."""
        flags, mapping, count, kind = {
            "kernel": (0, 0, None, Kind.KERNEL),
            "cache": (LRU, HEAP, None, Kind.CACHE),
            "mapped cache": (LRU, HEAP, 3, Kind.CACHE),
            "private": (LRU | PRIVATE, HEAP, None, Kind.CACHE_PRIVATE),
            "swap cache of a file": (SWAPCACHE | SWAPBACKED, HEAP, None, Kind.CACHE),
            "another use of the swap cache's bit": (SWAPCACHE, HEAP, None, Kind.KERNEL),
            "anonymous": (LRU | SWAPBACKED, HEAP | 1, 0, Kind.USER),
            "anonymous, isolated": (0, HEAP | 1, 0, Kind.USER),
            "merged": (LRU, HEAP | 3, 9, Kind.USER),
            "movable": (0, HEAP | 2, None, Kind.KERNEL),
            "poisoned": (LRU | HWPOISON, HEAP | 1, None, Kind.HWPOISON),
            "poisoned, the kernel's": (HWPOISON, 0, None, Kind.HWPOISON),
        }.get(use, (0, 0, None, Kind.KERNEL))
        if use == "slab":  # a count of objects lies where `mapping` does, and may be odd
            mapping, count = 7, self.style.types.get("slab")
            flags = 0 if count else SLAB
        elif use in ("table", "zsmalloc", "offline"):
            count, mapping = self.style.types.get(use), 0
            kind = Kind.OFFLINE if use == "offline" else Kind.KERNEL
        self.words[at, 0], self.words[at, 3] = flags, mapping
        self.counts[at] = 0xffffffff if count is None else count
        self.expected[at] = kind

    def free(self, at: int, order: int) -> None:
        """Make a free block."""
        self.counts[at] = self.style.types["buddy"]
        self.words[at, 5] = order
        self.expected[at:at + (1 << order)] = Kind.FREE

    def compound(self, at: int, order: int, use: str) -> None:
        """Make a compound page; `use` is that of its head, or "hugetlb"."""
        size = 1 << order
        if use == "hugetlb":
            self.words[at, 3] = HEAP
            self.expected[at] = Kind.USER
            if self.style.huge == "type":
                self.counts[at] = self.style.types["hugetlb"]
        else:
            self.page(at, use)
        self.words[at, 0] |= np.uint64(HEAD)
        # compound_head is the head's address + 1; compound_info a mask + 1.
        self.words[at + 1:at + size, 1] = 0xffffea0000000001 if "compound_head" in self.style.text else 2 ** 64 - 4095
        both = self.raw[at:at + 2].reshape(-1)
        both[self.style.order] = order
        if use == "hugetlb" and self.style.huge == "destructor":
            both[self.style.huge_at] = 2
        elif use == "hugetlb" and self.style.huge == "flag":
            both[65] |= 1    # bit 8 of the second page's flags
        self.expected[at:at + size] = self.expected[at]
