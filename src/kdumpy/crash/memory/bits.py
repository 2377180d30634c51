"""Where a member lies in a structure, bit fields and members of unnamed parts too."""

from __future__ import annotations

import drgn

from kdumpy.errors import NotInDump


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
