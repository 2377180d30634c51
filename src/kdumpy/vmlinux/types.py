"""The types of one BTF blob as entries of .debug_info, all of a kind at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdumpy.debuginfo.btf import Kind
from kdumpy.vmlinux import shapes
from kdumpy.vmlinux.dwarf import Encoding, Section, Shape, leb
from kdumpy.vmlinux.names import Names
from kdumpy.vmlinux.records import Items, Records, Words

_MEMBER_WORDS, _PARAMETER_WORDS = 3, 2
_ENUMERATOR_WORDS = {Kind.ENUM: 2, Kind.ENUM64: 3}
_INT_SIGNED, _INT_BOOL = 1, 4
_POINTER_BYTES = 8
_END = 1
"""Bytes of the mark behind the last child."""
_OFFSET_BITS, _WIDTH_SHIFT = 0xFFFFFF, 24
"""A member's offset where the struct has bit-fields: 24 bits of offset, 8 of width."""

Mask = NDArray[np.bool_]


class _Children(NamedTuple):
    """The children of some entries."""

    owners: Words
    """Indexes of the types that have them."""
    items: Items
    offsets: Words
    """How far each lies behind the head of its owner's entry."""


class _EmptyArrays(NamedTuple):
    """Arrays `[0]`, which BTF tells not from `[]`, once more as such: a member with others behind it is one."""

    arrays: Words
    """Indexes of arrays without elements."""
    places: Words
    """Where each of them has its second entry."""
    end: int


class TypeEntries:
    """Where the types of a blob lie in .debug_info, and how they are written there.

    Raises:
        DamagedDump: a type refers to one that is not there.
    """

    def __init__(self, records: Records, start: int, names: Names, base: TypeEntries | None = None,
                 merged: Mapping[int, int] | None = None) -> None:
        """Lay the entries out.

        Args:
            records: the types.
            start: the place of the first entry.
            names: their names.
            base: the kernel's types, for a module's.
            merged: places of entries that are there already, by the index of the type that they stand for.
        """
        self.records = records
        self.names = names
        self._base = base
        merged = merged or {}
        self._written: Mask = np.ones(len(records.kind), np.bool_)
        self._written[list(merged)] = False
        self._head = np.zeros(len(records.kind), np.int64)
        """Bytes of each entry without its children; 0 for what is not written."""
        self._below = np.zeros(len(records.kind), np.int64)
        """Bytes of its children and of the mark behind them."""
        self._void = records.standing(records.target * ~np.isin(records.kind, _SIZED)) == 0
        self._shapes: list[tuple[Shape, Words]] = []
        self._choose()
        self._fields = self._lay_out_fields()
        self._enumerators = [self._lay_out_enumerators(kind) for kind in _ENUMERATOR_WORDS]
        self._parameters = self._lay_out_parameters()
        size = self._head + self._below
        ends = start + np.cumsum(size)
        self.place: Words = np.where(size > 0, ends - size, 0)
        self.place[list(merged)] = list(merged.values())
        self._empty = self._lay_out_empty_arrays(int(ends[-1]) if len(ends) else start)
        self.end = self._empty.end
        """The place behind the last entry."""
        self.count = int(np.count_nonzero(size))
        """How many types have an entry."""

    def _is(self, *kinds: Kind) -> Mask:
        return np.isin(self.records.kind, [int(kind) for kind in kinds]) & self._written

    def _of(self, *kinds: Kind) -> Words:
        """Return the indexes of the types of some kinds that get an entry."""
        return np.flatnonzero(self._is(*kinds))

    def places(self, ids: Words) -> Words:
        """Return the places of the types of some ids; 0 is void."""
        ids = self.records.standing(ids)
        own = ids >= self.records.first
        found = np.zeros_like(ids)
        found[own] = self.place[ids[own] - self.records.first]
        if self._base and not own.all():
            found[~own] = self._base.places(ids[~own])
        return found

    def _add(self, shape: Shape, chosen: Mask) -> None:
        index = np.flatnonzero(chosen)
        self._head[index] = shape.size
        if shape.children:
            self._below[index] += _END
        self._shapes.append((shape, index))

    def _choose(self) -> None:
        """Give every type its shape."""
        records = self.records
        anonymous = records.name == 0
        for kind in (Kind.INT, Kind.FLOAT):
            self._add(shapes.BASE, self._is(kind))
        pointers = self._is(Kind.PTR)
        self._add(shapes.POINTER, pointers & self._void)
        self._add(shapes.typed(shapes.POINTER), pointers & ~self._void)
        for kind, shape in shapes.STRUCTURES.items():
            chosen = self._is(kind)
            self._add(shape, chosen & anonymous)
            self._add(shapes.named(shape), chosen & ~anonymous)
        forward = self._is(Kind.FWD)
        newer = (records.kind > max(Kind)) & self._written      # kinds of which the name is all that is known
        self._add(shapes.named(shapes.FORWARDS[Kind.STRUCT]), forward & ~records.flag | newer)
        self._add(shapes.named(shapes.FORWARDS[Kind.UNION]), forward & records.flag)
        for kind, shape in shapes.QUALIFIERS.items():
            shape = shapes.named(shape) if kind == Kind.TYPEDEF else shape
            chosen = self._is(kind)
            self._add(shape, chosen & self._void)
            self._add(shapes.typed(shape), chosen & ~self._void)
        enums = self._is(Kind.ENUM, Kind.ENUM64)
        self._add(shapes.ENUMERATION, enums & anonymous)
        self._add(shapes.named(shapes.ENUMERATION), enums & ~anonymous)
        prototypes = self._is(Kind.FUNC_PROTO)
        self._add(shapes.PROTOTYPE, prototypes & self._void)
        self._add(shapes.typed(shapes.PROTOTYPE), prototypes & ~self._void)
        arrays = self._of(Kind.ARRAY)
        self._add(shapes.ARRAY, self._is(Kind.ARRAY))
        bounded = records.words[records.tail[arrays] + 2] > 0
        self._below[arrays] += np.where(bounded, shapes.BOUNDED.size, shapes.UNBOUNDED.size)

    def _lay_out_fields(self) -> _Children:
        records = self.records
        owners = self._of(Kind.STRUCT, Kind.UNION)
        items = records.items(owners, _MEMBER_WORDS)
        sizes = np.where(self._widths(owners, items) > 0, shapes.BIT_FIELD.size, shapes.MEMBER.size)
        sizes += np.where(items.word(0) > 0, shapes.named(shapes.MEMBER).size - shapes.MEMBER.size, 0)
        offsets, totals = items.lay_out(sizes)
        self._below[owners] += totals
        return _Children(owners, items, offsets)

    def _lay_out_empty_arrays(self, start: int) -> _EmptyArrays:
        records, arrays = self.records, self._of(Kind.ARRAY)
        arrays = arrays[records.words[records.tail[arrays] + 2] == 0]
        size = shapes.ARRAY.size + shapes.BOUNDED.size + _END
        return _EmptyArrays(arrays, start + size * np.arange(len(arrays)), start + size * len(arrays))

    def _widths(self, owners: Words, items: Items) -> Words:
        """Return the width of each member that is a bit-field, else 0."""
        flagged = self.records.flag[owners][items.owner]
        return np.where(flagged, items.word(2) >> _WIDTH_SHIFT,
                        self.records.odd_bits(self.records.standing(items.word(1))))

    def _lay_out_enumerators(self, kind: Kind) -> _Children:
        owners = self._of(kind)
        if kind == Kind.ENUM:       # of wider ones, before 6.0, but the lower halves are there
            owners = owners[self.records.target[owners] <= 4]
        items = self.records.items(owners, _ENUMERATOR_WORDS[kind])
        offsets, totals = items.lay_out(np.full(len(items), shapes.ENUMERATOR.size))
        self._below[owners] += totals
        return _Children(owners, items, offsets)

    def _lay_out_parameters(self) -> _Children:
        owners = self._of(Kind.FUNC_PROTO)
        items = self.records.items(owners, _PARAMETER_WORDS)
        offsets, totals = items.lay_out(parameter_sizes(items, named=False))
        self._below[owners] += totals
        return _Children(owners, items, offsets)

    def write(self, section: Section) -> None:
        """Put the entries down."""
        for shape, index in self._shapes:
            self._write_heads(section, shape, index)
        self._write_subranges(section)
        self._write_fields(section)
        for kind, children in zip(_ENUMERATOR_WORDS, self._enumerators, strict=True):
            self._write_enumerators(section, kind, children)
        where = self._behind(self._parameters)
        write_parameters(section, self, self._parameters.items, where, named=False)

    def _behind(self, children: _Children) -> Words:
        """Return the places of children."""
        return (self.place + self._head)[children.owners][children.items.owner] + children.offsets

    def _write_heads(self, section: Section, shape: Shape, index: Words) -> None:
        records = self.records
        columns: dict[str, Words] = {}
        for name in shape.row.names or ():
            if name == "NAME":
                columns[name] = self.names.types(index)
            elif name == "TYPE":
                columns[name] = self._types_of(index)
            elif name == "BYTE_SIZE":
                columns[name] = np.full(len(index), _POINTER_BYTES) if shape.tag == shapes.POINTER.tag \
                    else records.target[index]
            elif name == "ENCODING":
                columns[name] = self._encodings(index)
        section.put(shape, self.place[index], **columns)

    def _types_of(self, index: Words) -> Words:
        """Return the places of what pointers, arrays, typedefs, qualifiers and prototypes are of."""
        records, ids = self.records, self.records.target[index]
        if len(index) and records.kind[index[0]] == Kind.ARRAY:
            ids = records.words[records.tail[index]]
        return self.places(ids)

    def _signed(self, index: Words) -> Mask:
        records, btf = self.records, self.records.btf
        if btf.signs:
            return records.flag[index]
        return np.array([btf.is_signed(btf.type(records.first + int(each))) for each in index], np.bool_)

    def _encodings(self, index: Words) -> Words:
        records = self.records
        if len(index) and records.kind[index[0]] == Kind.FLOAT:
            return np.full(len(index), Encoding.FLOAT, np.int64)
        said = records.words[records.tail[index]] >> 24 & 0xF
        characters = np.isin(records.name[index], self.names.offsets_of("char", "signed char", "unsigned char"))
        made = np.where(said & _INT_SIGNED, Encoding.SIGNED, Encoding.UNSIGNED)
        made += characters * (Encoding.SIGNED_CHAR - Encoding.SIGNED)
        return np.where(said & _INT_BOOL, Encoding.BOOLEAN, made)

    def _write_subranges(self, section: Section) -> None:
        records, arrays = self.records, self._of(Kind.ARRAY)
        tail = records.tail[arrays]
        count, places = records.words[tail + 2], self.place[arrays] + shapes.ARRAY.size
        types = self.places(records.words[tail + 1])
        bounded = count > 0
        section.put(shapes.BOUNDED, places[bounded], TYPE=types[bounded], COUNT=count[bounded])
        section.put(shapes.UNBOUNDED, places[~bounded], TYPE=types[~bounded])     # [] or [0]: BTF says the same

        arrays, places, _ = self._empty
        section.put(shapes.ARRAY, places, TYPE=self._types_of(arrays))
        section.put(shapes.BOUNDED, places + shapes.ARRAY.size, COUNT=np.zeros_like(places),
                    TYPE=self.places(records.words[records.tail[arrays] + 1]))

    def _field_types(self, owners: Words, items: Items) -> Words:
        ids = self.records.standing(items.word(1))
        types = self.places(ids)
        last = np.append(items.owner[1:] != items.owner[:-1], [True] * (len(items) > 0)).astype(np.bool_)
        may_be_flexible = last & (self.records.kind[owners][items.owner] == Kind.STRUCT)
        for index, place in zip(self._empty.arrays + self.records.first, self._empty.places, strict=True):
            types[(ids == index) & ~may_be_flexible] = place
        return types

    def _write_fields(self, section: Section) -> None:
        owners, items, _ = children = self._fields
        where, widths, names = self._behind(children), self._widths(owners, items), items.word(0)
        types = self._field_types(owners, items)
        bits = np.where(self.records.flag[owners][items.owner], items.word(2) & _OFFSET_BITS, items.word(2))
        for is_named in (False, True):
            chosen = (names > 0) == is_named
            for is_field, shape in ((False, shapes.MEMBER), (True, shapes.BIT_FIELD)):
                these = np.flatnonzero(chosen & ((widths > 0) == is_field))
                columns = {"TYPE": types[these]}
                if is_named:
                    shape, columns["NAME"] = shapes.named(shape), self.names.strings(names[these])
                if is_field:
                    columns |= {"BIT_SIZE": widths[these], "BIT_OFFSET": bits[these]}
                else:
                    columns["MEMBER_LOCATION"] = bits[these] >> 3
                section.put(shape, where[these], **columns)

    def _write_enumerators(self, section: Section, kind: Kind, children: _Children) -> None:
        owners, items, _ = children
        values, signed = items.word(1), self._signed(owners)[items.owner]
        if kind == Kind.ENUM64:
            values = values | items.word(2) << 32               # the upper half brings the sign
        else:
            values = np.where(signed & (values >> 31 != 0), values - (1 << 32), values)
        where, names = self._behind(children), self.names.enumerators(items.word(0))
        large = (values < 0) & ~signed
        for shape, these in ((shapes.ENUMERATOR, ~large), (shapes.LARGE_ENUMERATOR, large)):
            section.put(shape, where[these], NAME=names[these],
                        CONST_VALUE=leb(values[these], signed=shape is shapes.ENUMERATOR))


_SIZED = (Kind.STRUCT, Kind.UNION, Kind.INT, Kind.FLOAT, Kind.ENUM, Kind.ENUM64, Kind.DATASEC, Kind.ARRAY, Kind.FWD)
"""Kinds whose third word is no type id."""


def parameter_sizes(items: Items, *, named: bool) -> Words:
    """Return the bytes of each parameter's entry; the one of no name and no type stands for `...`."""
    with_name = shapes.named(shapes.PARAMETER).size
    sizes = np.where(items.word(0) > 0, with_name, shapes.PARAMETER.size) if named else \
        np.full(len(items), shapes.PARAMETER.size)
    return np.where(items.word(1) > 0, sizes, shapes.VARIADIC.size)


def write_parameters(section: Section, types: TypeEntries, items: Items, where: Words, *, named: bool) -> None:
    """Put the parameters of prototypes or functions down."""
    names, ids = items.word(0), items.word(1)
    section.put(shapes.VARIADIC, where[ids == 0])
    with_name = (names > 0) & named & (ids > 0)
    plain = ~with_name & (ids > 0)
    section.put(shapes.PARAMETER, where[plain], TYPE=types.places(ids[plain]))
    section.put(shapes.named(shapes.PARAMETER), where[with_name], TYPE=types.places(ids[with_name]),
                NAME=types.names.strings(names[with_name]))
