"""Where a member lies in a structure, bit fields and members of unnamed parts too; the size of a struct page."""

from __future__ import annotations

import drgn

from kdumpy.errors import DamagedDump, NotInDump

_LARGEST_PAGE_STRUCT = 256
"""Bytes; it has 64, and 80 with every option of the kernel."""


def has_bits(made: drgn.Type, name: str) -> bool:
    """Whether a structure has a member, in an unnamed part of it too."""
    try:
        bit_place(made, name)
    except NotInDump:
        return False
    return True


def bit_place(made: drgn.Type, name: str = "") -> tuple[int, int]:
    """Return (first bit, bits) of a member; of an unnamed part's member too.

    Raises:
        NotInDump: there is none.
    """
    for member in made.members or ():
        if member.name == name:
            size = member.bit_field_size
            return member.bit_offset, size if size is not None else 8 * drgn.sizeof(member.type)
        if member.name is None:
            try:
                start, bits = bit_place(member.type, name)
            except NotInDump:
                continue
            return member.bit_offset + start, bits
    raise NotInDump(f"{made.type_name()} has no member {name!r}")


def page_struct_size(prog: drgn.Program) -> int:
    """Return the bytes of a struct page.

    Raises:
        DamagedDump: it cannot be right.
        LookupError: the type is not known.
    """
    size = int(drgn.sizeof(prog.type("struct page")))
    if not 0 < size <= _LARGEST_PAGE_STRUCT:
        raise DamagedDump(f"a size of {size} is not believed", where="struct page")
    return size
