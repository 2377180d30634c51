"""The kernel's functions with their prototypes, as entries of .debug_info: BTF's FUNCs at kallsyms' addresses."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from kdumpy.debuginfo.btf import Kind
from kdumpy.vmlinux import shapes
from kdumpy.vmlinux.dwarf import Section
from kdumpy.vmlinux.records import Items
from kdumpy.vmlinux.symbols import Symbols
from kdumpy.vmlinux.types import TypeEntries, parameter_sizes, write_parameters

_PARAMETER_WORDS = 2
_END = 1


class FunctionEntries:
    """Every function whose prototype is known, and whose name only one function has."""

    def __init__(self, types: TypeEntries, symbols: Symbols, start: int) -> None:
        """`start` is the place of the first entry."""
        self._types = types
        records = types.records
        functions = records.btf.functions
        index = np.array(_unique(symbols, functions.keys()), np.int64)
        ids = np.array([functions[symbols.names[number]] for number in index], np.int64)
        known = np.minimum(records.target[ids], records.end - 1)
        sound = (known == records.target[ids]) & (records.kind[known] == Kind.FUNC_PROTO)
        ids, index = ids[sound], index[sound]
        self._ids = ids
        self.count = len(index)
        """How many functions there are."""
        self._low = symbols.address[index]
        self._high = symbols.size[index]
        self._global = symbols.is_global[index]
        prototypes = records.target[ids]
        self._void = types.places(records.target[prototypes]) == 0
        self._items = Items(records.words, records.tail[prototypes], records.vlen[prototypes], _PARAMETER_WORDS)
        sizes = parameter_sizes(self._items, named=True)
        self._offsets, below = self._items.lay_out(sizes)
        self._head = np.where(self._void, shapes.FUNCTION.size, shapes.typed(shapes.FUNCTION).size)
        ends = start + np.cumsum(self._head + below + _END)
        self._places = ends - (self._head + below + _END)
        self.end = int(ends[-1]) if len(ends) else start
        """The place behind the last entry."""

    def write(self, section: Section) -> None:
        """Put the entries down."""
        types = self._types
        returns = types.places(types.records.target[types.records.target[self._ids]])
        for is_global in (False, True):
            for is_void in (False, True):
                these = np.flatnonzero((self._global == is_global) & (self._void == is_void))
                shape = shapes.FUNCTION if is_void else shapes.typed(shapes.FUNCTION)
                columns = {} if is_void else {"TYPE": returns[these]}
                section.put(shapes.external(shape) if is_global else shape, self._places[these],
                            NAME=types.names.types(self._ids[these]), LOW_PC=self._low[these],
                            HIGH_PC=self._high[these], **columns)
        where = (self._places + self._head)[self._items.owner] + self._offsets
        write_parameters(section, types, self._items, where, named=True)


def _unique(symbols: Symbols, wanted: Set[str]) -> list[int]:
    """Return the indexes of the functions of some names; a name of several functions says nothing."""
    found: dict[str, int] = {}
    for number in np.flatnonzero(symbols.is_code & ~symbols.is_place):
        name = symbols.names[number]
        if name in wanted:
            found[name] = -1 if name in found else int(number)
    return sorted(number for number in found.values() if number >= 0)
