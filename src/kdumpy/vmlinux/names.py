"""Names of one blob in .debug_str: BTF's own string tables, and new names where a module's would hide another's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kdumpy.debuginfo.btf import Kind
from kdumpy.errors import DamagedDump
from kdumpy.vmlinux.dwarf import Strings
from kdumpy.vmlinux.records import Records, Words


class Names:
    """Where the names of a blob lie in .debug_str."""

    def __init__(self, records: Records, strings: Strings, shift: int) -> None:
        """`shift` is what to add to an offset in this blob's own string table."""
        self._records = records
        self._strings = strings
        self._shift = shift
        self._own = records.btf.strings_base
        self._end = records.btf.strings_size
        self._types: dict[int, int] = {}
        self._enumerators: dict[int, int] = {}

    def rename(self, types: Iterable[int], enumerators: Iterable[int], suffix: str) -> None:
        """Add `suffix` to the names of types (by index) and of enumerators (by the names' offsets)."""
        name = self._records.btf.name
        self._types = {index: self._strings.place(name(int(self._records.name[index])) + suffix) for index in types}
        self._enumerators = {offset: self._strings.place(name(offset) + suffix) for offset in enumerators}

    def strings(self, offsets: Words) -> Words:
        """Return the places of names at some offsets of the string table.

        Raises:
            DamagedDump: a name lies outside of it.
        """
        if len(offsets) and offsets.max() >= self._end:
            raise DamagedDump("BTF names a string outside of its table", where=f"string offset {offsets.max():#x}")
        return np.where(offsets < self._own, offsets, offsets + self._shift)

    def types(self, index: Words) -> Words:
        """Return the places of the names of some types."""
        return self._replaced(self.strings(self._records.name[index]), index, self._types)

    def enumerators(self, offsets: Words) -> Words:
        """Return the places of the names of enumerators."""
        return self._replaced(self.strings(offsets), offsets, self._enumerators)

    @staticmethod
    def _replaced(places: Words, keys: Words, new: dict[int, int]) -> Words:
        if not new:
            return places
        known = np.array(sorted(new), np.int64)
        values = np.array([new[int(key)] for key in known], np.int64)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, values[at], places)

    def offsets_of(self, *wanted: str) -> Words:
        """Return the string offsets of some integers' names."""
        btf = self._records.btf
        ids = [type_id for name in wanted
               if (type_id := btf.index.names[int(Kind.INT)].get(name)) is not None]
        return np.array([self._records.name[type_id - self._records.first] for type_id in ids], np.int64)
