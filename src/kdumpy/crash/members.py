"""Some members of a structure, read with one call: a value a member through drgn takes 20 times as long."""

from __future__ import annotations

import struct

import drgn

_KINDS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FARTHEST = 64 << 10
"""Bytes from the first member to the last; no structure of the kernel's that is read like this has more."""


class Members:
    """Where some members of a structure lie; integers and pointers, without sign."""

    def __init__(self, prog: drgn.Program, kind: str, *names: str) -> None:
        """Find them.

        Raises:
            LookupError: the type or a member is not known, or is no integer and no pointer.
        """
        self.prog = prog
        made = prog.type(kind)
        value = drgn.Object(prog, made, address=0)
        places = sorted((int(drgn.offsetof(made, name)), drgn.sizeof(value.subobject_(name)), name) for name in names)
        self._start = end = places[0][0]
        layout = "<"
        for offset, size, name in places:
            if not end <= offset < self._start + _FARTHEST or size not in _KINDS:
                raise LookupError(f"the members of {kind} are not as known: {name}")
            layout += f"{offset - end}x{_KINDS[size]}"
            end = offset + size
        self._fields = struct.Struct(layout)
        order = [name for _, _, name in places]
        self._order = [order.index(name) for name in names]

    def read(self, address: int) -> tuple[int, ...]:
        """Return their values in the structure at an address, in the order in which they were named.

        Raises:
            drgn.FaultError: it is not in the dump.
        """
        found = self._fields.unpack(self.prog.read(address + self._start, self._fields.size))
        return tuple(found[place] for place in self._order)
