"""What modules' types have in common: a module's BTF repeats types that the kernel or another module has.

A type of the same name and the same shape (size, names and places of members; enumerators) is taken for the same
one and is not written again; one of the same name and another shape is given a name of its own, because a debugger
that is asked for `struct foo` would find a module's private one instead of the kernel's.
"""

from __future__ import annotations

from typing import NamedTuple

from kdumpy.debuginfo.btf import Kind
from kdumpy.vmlinux.records import Records
from kdumpy.vmlinux.types import TypeEntries

_SPACES = {Kind.STRUCT: "tag", Kind.UNION: "tag", Kind.ENUM: "tag", Kind.ENUM64: "tag", Kind.TYPEDEF: "typedef"}
"""C's name spaces: a struct and an enum cannot share a name, a struct and a typedef can."""
_ITEM_WORDS = {Kind.STRUCT: 3, Kind.UNION: 3, Kind.ENUM: 2, Kind.ENUM64: 3}
_DEEPEST = 6
"""Pointers, arrays and qualifiers of a typedef that are followed."""
_THROUGH = (Kind.PTR, Kind.CONST, Kind.VOLATILE, Kind.RESTRICT)

Shape = tuple[object, ...]


class Settled(NamedTuple):
    """What becomes of a module's types."""

    merged: dict[int, int]
    """The place of the type that stands for another, by the other's index."""
    renamed: frozenset[int]
    """Indexes of types that get a new name."""
    enumerators: frozenset[int]
    """Offsets of the names of constants that get a new one."""


class Known:
    """The types and constants that are there already; the first that has a name keeps it."""

    def __init__(self, kernel: TypeEntries) -> None:
        self._kernel = kernel
        self._types: dict[tuple[str, str], tuple[TypeEntries, int]] = {}
        self._enumerators: dict[str, tuple[TypeEntries, int]] = {}

    def add(self, entries: TypeEntries, settled: Settled) -> None:
        """Add a module's types."""
        btf, first = entries.records.btf, entries.records.first
        for kind, space in _SPACES.items():
            for name, type_id in btf.index.names[int(kind)].items():
                if type_id - first not in settled.merged:
                    self._types.setdefault((space, name), (entries, type_id - first))
        for name, type_id in btf.index.enumerators.items():
            self._enumerators.setdefault(name, (entries, type_id - first))

    def settle(self, records: Records) -> Settled:
        """Return which of a module's types are known ones, and which need a name of their own."""
        merged: dict[int, int] = {}
        renamed: set[int] = set()
        for kind, space in _SPACES.items():
            for index in records.of(kind).tolist():
                if not records.name[index]:
                    continue
                name = records.btf.name(int(records.name[index]))
                known = self._find(kind, space, name)
                if known is None:
                    continue
                entries, other = known
                if shape_of(records, index) == shape_of(entries.records, other):
                    merged[index] = int(entries.place[other])
                else:
                    renamed.add(index)
        return Settled(merged, frozenset(renamed), frozenset(self._clashing(records, merged)))

    def _find(self, kind: Kind, space: str, name: str) -> tuple[TypeEntries, int] | None:
        names = self._kernel.records.btf.index.names
        for each in (kind, *(other for other, its in _SPACES.items() if its == space and other != kind)):
            type_id = names[int(each)].get(name)
            if type_id is not None:
                return self._kernel, type_id
        return self._types.get((space, name))

    def _clashing(self, records: Records, merged: dict[int, int]) -> set[int]:
        """Return the name offsets of enumerators that have another value elsewhere."""
        found = set()
        kernel = self._kernel.records.btf.index.enumerators
        for name, type_id in records.btf.index.enumerators.items():
            index = type_id - records.first
            if index in merged:
                continue
            known = (self._kernel, kernel[name]) if name in kernel else self._enumerators.get(name)
            if known is None:
                continue
            offset, value = _enumerator(records, index, name)
            if value != _enumerator(known[0].records, known[1], name)[1]:
                found.add(offset)
        return found


def _enumerator(records: Records, index: int, name: str) -> tuple[int, tuple[int, ...]]:
    """Return the name's offset and the words of the value of an enumerator."""
    width = _ITEM_WORDS[Kind(int(records.kind[index]))]
    start, count = int(records.tail[index]), int(records.vlen[index])
    words = records.words[start : start + width * count].tolist()
    for at in range(0, len(words), width):
        if records.btf.name(words[at]) == name:
            return words[at], tuple(words[at + 1 : at + width])
    return 0, ()


def shape_of(records: Records, index: int, depth: int = 0) -> Shape:
    """Return what two types of one name must have in common to be the same."""
    kind = int(records.kind[index])
    if kind in _ITEM_WORDS:
        width = _ITEM_WORDS[Kind(kind)]
        start = int(records.tail[index])
        words = records.words[start : start + width * int(records.vlen[index])].tolist()
        if kind in (Kind.STRUCT, Kind.UNION):       # the types' ids are another matter
            del words[1::width]
            width -= 1
        words[::width] = map(records.btf.name, words[::width])
        return kind, int(records.target[index]), bool(records.flag[index]), *words
    if kind == Kind.TYPEDEF:
        return kind, _label(records, int(records.target[index]), depth + 1)
    return (kind,)


def _label(records: Records, type_id: int, depth: int) -> object:
    """Return what tells the type of a typedef apart."""
    while records.base is not None and type_id < records.first:
        records = records.base
    index = type_id - records.first
    kind = int(records.kind[index])
    if depth > _DEEPEST or not type_id:
        return kind
    if kind in _THROUGH:
        return kind, _label(records, int(records.target[index]), depth + 1)
    if kind == Kind.ARRAY:
        element, _, count = records.words[records.tail[index] : records.tail[index] + 3].tolist()
        return kind, count, _label(records, element, depth + 1)
    if records.name[index] or kind == Kind.FUNC_PROTO:
        return kind, records.btf.name(int(records.name[index])), int(records.vlen[index])
    return shape_of(records, index, depth)
