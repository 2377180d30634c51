"""What struct page says of a page's use where its flags do not: free, page table.

Source: include/linux/page-flags.h. `_mapcount` held the kind as a negative number until 6.10;
4ffca5a96678 "mm: support only one page_type per page" (6.12) moved it to the top byte.
"""

from __future__ import annotations

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS

_BUDDY, _TABLE = 0x80, 0x200
_TABLE_BEFORE_MEMCG_DATA = 0x400
"""5.10 and older, where PG_kmemcg had 0x200: struct page had `mem_cgroup` then, and has `memcg_data` since."""


def is_free(prog: drgn.Program, page: drgn.Object) -> bool:
    """Whether a page is the head of a free block; pages inside of a block bear no mark."""
    return _is(prog, page, "buddy", _BUDDY)


def is_table(prog: drgn.Program, page: drgn.Object) -> bool:
    """Whether a page is a page table."""
    old = _TABLE_BEFORE_MEMCG_DATA if page.type_.type.has_member("mem_cgroup") else _TABLE
    return _is(prog, page, "table", old)


def _is(prog: drgn.Program, page: drgn.Object, name: str, old: int) -> bool:
    made = page.type_.type
    if made.has_member("page_type"):
        word = int(page.page_type.value_()) & 0xFFFFFFFF
        constant = _constant(prog, f"PGTY_{name}")
        if constant is not None:                    # since 6.12: the kind is the top byte
            return word >> 24 == constant
        bit = _constant(prog, f"PG_{name}")
        bits = bit if bit is not None else old
        return word & (0xF0000000 | bits) == 0xF0000000
    return False


def _constant(prog: drgn.Program, name: str) -> int | None:
    try:
        return int(prog.constant(name).value_())
    except READ_ERRORS:
        return None
