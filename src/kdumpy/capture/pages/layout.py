"""How one kernel's struct page is laid out and marked, from VMCOREINFO alone.

Source: include/linux/mm_types.h and page-flags.h of 5.4 to 7.2; Documentation/admin-guide/kdump/vmcoreinfo.rst.
The structure is tested ("is this line exported"), never the kernel's version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import NotInDump

LARGEST_ORDER = 18
"""The largest block that any kernel makes: 1 GiB of 4 KiB pages, 16 GiB of 64 KiB pages (contiguous hugetlb)."""
_LOW_TYPE_BITS = 0x00ffffff


class TypeMark(NamedTuple):
    """How a kernel says in the word of `_mapcount` that a page is of some type."""

    value: int
    """What the masked word equals."""
    mask: int
    """0xff000000 where the type is the top byte and the other bits are the owner's ("mm: support only one page_type
    per page", 4ffca5a96678, 6.12); 0xffffffff where a type clears one bit of -1 (before)."""

    @classmethod
    def read(cls, info: VmcoreInfo, name: str) -> TypeMark | None:
        """Return the mark of NUMBER(name); None where it is not exported."""
        if f"NUMBER({name})" not in info:
            return None
        value = info.number(name) & 0xffffffff
        return cls(value, 0xffffffff if value & _LOW_TYPE_BITS else 0xff000000)


@dataclass(frozen=True, slots=True)
class PageLayout:
    """Offsets in bytes; masks of the low 32 bits of `flags`, 0 where the kernel has no such flag."""

    size: int
    """Bytes of a struct page."""
    flags: int
    mapping: int
    """Its lowest bit says that the page is anonymous."""
    mapcount: int
    """_mapcount, page_type: the same word."""
    private: int
    """Holds a free block's order."""
    head: int
    """compound_head, compound_info in 7.2: in both the lowest bit says that the page is a tail."""
    lru: int
    """PG_lru."""
    has_private: int
    """PG_private."""
    swap: int
    """PG_swapcache and PG_swapbacked: both are needed, since the first alone has other uses."""
    slab: int
    """PG_slab, a flag before 6.10 ("mm: free up PG_slab", 46df8e73a4a3)."""
    head_flag: int
    """PG_head."""
    hwpoison: int
    """PG_hwpoison; 0 without CONFIG_MEMORY_FAILURE."""
    buddy: TypeMark
    slab_type: TypeMark | None
    """PG_slab as a page type, 6.10 and later."""
    hugetlb_type: TypeMark | None
    """6.9 and later ("mm: turn folio_test_hugetlb into a PageType", d99e3140a4d3)."""
    offline: TypeMark | None
    unaccepted: TypeMark | None
    order: int
    """Where in the second struct page the byte lies that holds a compound page's order."""
    hugetlb_dtor: tuple[int, int] | None
    """(offset in the second struct page, value): the destructor's number, before 6.6."""
    hugetlb_flag: int
    """PG_hugetlb in the second page's flags, 6.6 to 6.8."""
    free_orders: int
    """Orders of free blocks: 0 to this less one."""

    @classmethod
    def of(cls, info: VmcoreInfo) -> PageLayout:
        """Read the layout; NotInDump where VMCOREINFO lacks what is needed, or it does not fit together."""
        flags = info.offset("page.flags")
        order, dtor, flag = _compound(info, flags)
        swap = _bit(info, "PG_swapcache") | _bit(info, "PG_swapbacked")
        buddy = TypeMark.read(info, "PAGE_BUDDY_MAPCOUNT_VALUE")
        if buddy is None:
            raise NotInDump("VMCOREINFO does not say how free pages are marked", where=info.where,
                            why="NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE) is absent, which every kernel since 2.6.39 has")
        try:
            head = info.offset("page.compound_head")
        except NotInDump:
            head = info.offset("page.compound_info")
        found = cls(
            size=info.size_of("page"), flags=flags, mapping=info.offset("page.mapping"),
            mapcount=info.offset("page._mapcount"), private=info.offset("page.private"), head=head,
            lru=_bit(info, "PG_lru"), has_private=_bit(info, "PG_private"), swap=swap,
            slab=_bit(info, "PG_slab", optional=True), head_flag=info.number("PG_head_mask") & 0xffffffff,
            hwpoison=_bit(info, "PG_hwpoison", optional=True), buddy=buddy,
            slab_type=TypeMark.read(info, "PAGE_SLAB_MAPCOUNT_VALUE"),
            hugetlb_type=TypeMark.read(info, "PAGE_HUGETLB_MAPCOUNT_VALUE"),
            offline=TypeMark.read(info, "PAGE_OFFLINE_MAPCOUNT_VALUE"),
            unaccepted=TypeMark.read(info, "PAGE_UNACCEPTED_MAPCOUNT_VALUE"),
            order=order, hugetlb_dtor=dtor, hugetlb_flag=flag,
            free_orders=min(info.length("zone.free_area", LARGEST_ORDER + 1), LARGEST_ORDER + 1))
        found._check(info)
        return found

    def _check(self, info: VmcoreInfo) -> None:
        """Refuse offsets that would read beyond a struct page, or words that are not aligned."""
        words = (self.flags, self.mapping, self.private, self.head)
        # (offset, bytes, alignment) of all that is read.
        fields = [(offset, 8, 8) for offset in words] + [(self.mapcount, 4, 4), (self.order, 1, 1)]
        if self.hugetlb_dtor is not None:
            fields.append((self.hugetlb_dtor[0], 1, 1))
        fits = all(0 <= offset <= self.size - size and offset % alignment == 0 for offset, size, alignment in fields)
        if not fits or self.size % 8 or not 32 <= self.size <= 1024 or self.free_orders < 1 or not self.head_flag:
            raise NotInDump("VMCOREINFO's offsets of struct page do not fit together", where=info.where,
                            why=f"{self}")


def _compound(info: VmcoreInfo, flags: int) -> tuple[int, tuple[int, int] | None, int]:
    """Return where in the second struct page the order lies, and how a hugetlb page is told before 6.9."""
    size = info.size_of("page")
    order, dtor = info.offset("page.compound_order", -1), info.offset("page.compound_dtor", -1)
    if order < 0 and "OFFSET(folio._folio_order)" in info:  # 6.3 to 6.5: offsets from the first struct page on
        order, dtor = info.offset("folio._folio_order") - size, info.offset("folio._folio_dtor") - size
    if order >= 0:
        number = info.number("HUGETLB_PAGE_DTOR", -1)
        return order, (dtor, number) if dtor >= 0 and number >= 0 else None, 0
    # Since 6.6 the lowest byte of the second page's flags ("mm: add large_rmappable page flag", de53c05f2ae3, and
    # "mm: free up a word in the first tail page", ebc1baf5c9b4).
    return flags, None, _bit(info, "PG_hugetlb", optional=True)


def _bit(info: VmcoreInfo, name: str, *, optional: bool = False) -> int:
    """Return the mask of a page flag that VMCOREINFO gives as a bit's number."""
    number = info.number(name, -1) if optional else info.number(name)
    if number == -1 and optional:
        return 0
    if not 0 <= number < 32:
        raise NotInDump(f"page flag {name} in bit {number}", where=info.where, why="flags lie in the low 32 bits")
    return 1 << number
