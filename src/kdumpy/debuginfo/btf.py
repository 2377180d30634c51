"""BTF, the type information that a kernel carries in its own memory: parsed, without drgn.

Source: Documentation/bpf/btf.rst and include/uapi/linux/btf.h. A kernel's own BTF lies between
`__start_BTF` and `__stop_BTF`; a module's ("split BTF") continues the type ids and the string
table of the kernel's. The bytes come out of a dump and are not trusted: every offset is checked
against the blob before it is used, and a type that breaks the rules raises `DamagedDump`.
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from kdumpy.errors import DamagedDump

MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
"""magic, version, flags, hdr_len, type_off, type_len, str_off, str_len; offsets from the header's end."""
_TYPE = struct.Struct("<III")
"""struct btf_type: name_off, info, size or type."""
_MEMBER = struct.Struct("<III")
_ARRAY = struct.Struct("<III")
_PARAM = struct.Struct("<II")
_ENUM_UNSIGNED = struct.Struct("<II")
_ENUM_SIGNED = struct.Struct("<Ii")
_ENUM64 = struct.Struct("<III")


class Kind(enum.IntEnum):
    """BTF_KIND_*: what a type record describes."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes that follow struct btf_type: a constant, and so many for each of the record's vlen items.
_TAIL = {
    Kind.INT: (4, 0), Kind.PTR: (0, 0), Kind.ARRAY: (12, 0), Kind.STRUCT: (0, 12), Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8), Kind.FWD: (0, 0), Kind.TYPEDEF: (0, 0), Kind.VOLATILE: (0, 0), Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0), Kind.FUNC: (0, 0), Kind.FUNC_PROTO: (0, 8), Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12), Kind.FLOAT: (0, 0), Kind.DECL_TAG: (4, 0), Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 12),
}  # fmt: skip
_KINDS = len(Kind)


class BtfType(NamedTuple):
    """One type record, without its tail."""

    id: int
    name: str
    kind: Kind
    vlen: int
    """Number of members, enumerators, parameters or variables."""
    flag: bool
    """kind_flag: bit-fields encoded in member offsets; a union for FWD; signed for enums."""
    size_or_type: int
    """Size in bytes (INT, STRUCT, UNION, ENUM, ENUM64, FLOAT, DATASEC) or a type id."""
    tail: int
    """Offset in the blob of what follows the record."""


class BtfMember(NamedTuple):
    """A member of a struct or union."""

    name: str
    type_id: int
    bit_offset: int
    bit_size: int
    """Width of a bit-field in bits, 0 for a plain member."""


class BtfIndex(NamedTuple):
    """What one pass over the records finds; plain values, so that a cache can hold it."""

    offsets: array[int]
    """Offset in the blob of each record, by type id minus the first id."""
    names: dict[int, dict[str, int]]
    """For each kind that types are looked up by, the id of the first type of each name."""
    functions: bytes
    """Type ids of the FUNCs as 32-bit words: 40,000 names that few look up are made when one is."""
    nameless: bytes
    """Type ids of the STRUCTs without a name as 32-bit words: some variables are of such a type."""
    enumerators: dict[str, int]
    """The id of the enum that has the enumerator of each name."""
    percpu: dict[str, int]
    """Type id of each per-CPU variable (the VARs of BTF)."""
    signs: bool
    """kind_flag of an enum says that it is signed: 6089fb325cf7 "bpf: Add btf enum64 support" (6.0)."""


class Btf:
    """A BTF blob. Type ids below `first_id` belong to `base`.

    Raises:
        DamagedDump: the header or a record does not fit the blob.
    """

    def __init__(self, data: bytes, *, base: Btf | None = None, index: BtfIndex | None = None) -> None:
        self.data = data
        self.base = base
        self.first_id = base.end_id if base else 1
        if len(data) < _HEADER.size:
            raise DamagedDump("BTF is cut short", why=f"{len(data)} bytes")
        magic, version, _, hdr_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic != MAGIC or version != 1:
            raise DamagedDump("no BTF here", why=f"magic {magic:#x}, version {version}")
        self._types = hdr_len + type_off
        self._types_end = self._types + type_len
        self._strings = hdr_len + str_off
        self._strings_end = self._strings + str_len
        if max(self._types_end, self._strings_end) > len(data):
            raise DamagedDump("BTF is cut short", why=f"its header claims more than its {len(data)} bytes")
        self.strings_base: int = base.strings_size if base else 0
        self.strings_size: int = self.strings_base + str_len
        self.index = index if index is not None else self._scan()

    @cached_property
    def functions(self) -> dict[str, int]:
        """The type id of the FUNC of each name, the first of equal names."""
        table: dict[str, int] = {}
        for type_id in reversed(array("I", self.index.functions)):
            (name_off,) = struct.unpack_from("<I", self.data, self.index.offsets[type_id - self.first_id])
            table[self.name(name_off)] = type_id
        return table

    @property
    def end_id(self) -> int:
        """The first type id after the last of this blob."""
        return self.first_id + len(self.index.offsets)

    def name(self, offset: int) -> str:
        """Return the string at `offset` of the string table (which the base's precedes)."""
        if offset < self.strings_base and self.base:
            return self.base.name(offset)
        start = self._strings + offset - self.strings_base
        if not self._strings <= start < self._strings_end:
            raise DamagedDump("BTF names a string outside of its table", where=f"string offset {offset:#x}")
        end = self.data.find(b"\0", start, self._strings_end)
        return self.data[start : end if end >= 0 else self._strings_end].decode("utf-8", "replace")

    def type(self, type_id: int) -> BtfType:
        """Return the record of a type id other than 0 (void)."""
        if type_id < self.first_id and self.base:
            return self.base.type(type_id)
        if not self.first_id <= type_id < self.end_id:
            raise DamagedDump("BTF refers to a type that it does not have", where=f"type id {type_id}")
        offset = self.index.offsets[type_id - self.first_id]
        name_off, info, size_or_type = _TYPE.unpack_from(self.data, offset)
        return BtfType(type_id, self.name(name_off), Kind(info >> 24 & 0x1F), info & 0xFFFF, bool(info >> 31),
                       size_or_type, offset + _TYPE.size)

    def _owner(self, record: BtfType) -> Btf:
        return self.base._owner(record) if self.base and record.id < self.first_id else self

    def members(self, record: BtfType) -> Iterator[BtfMember]:
        """Yield the members of a struct or union."""
        owner = self._owner(record)
        for name_off, type_id, offset in self._items(owner, record, _MEMBER):
            if record.flag:
                yield BtfMember(owner.name(name_off), type_id, offset & 0xFFFFFF, offset >> 24)
            else:
                yield BtfMember(owner.name(name_off), type_id, offset, 0)

    def enumerator_values(self, record: BtfType) -> Iterator[tuple[str, int]]:
        """Yield the (name, value) pairs of an enum."""
        owner = self._owner(record)
        if record.kind == Kind.ENUM64:
            for name_off, low, high in self._items(owner, record, _ENUM64):
                value = high << 32 | low
                yield owner.name(name_off), value - (1 << 64) if record.flag and high >> 31 else value
            return
        # An older blob does not say whether its enums are signed; negative values are the common case.
        plain = _ENUM_SIGNED if record.flag or not self.index.signs else _ENUM_UNSIGNED
        for name_off, value in self._items(owner, record, plain):
            yield owner.name(name_off), value

    def parameters(self, record: BtfType) -> Iterator[tuple[str, int]]:
        """Yield the (name, type id) pairs of a FUNC_PROTO; the last is ("", 0) when variadic."""
        owner = self._owner(record)
        for name_off, type_id in self._items(owner, record, _PARAM):
            yield owner.name(name_off), type_id

    def array_of(self, record: BtfType) -> tuple[int, int]:
        """Return (element type id, number of elements) of an ARRAY."""
        element, _, count = _ARRAY.unpack_from(self._owner(record).data, record.tail)
        return element, count

    def integer(self, record: BtfType) -> tuple[int, int, int]:
        """Return (encoding, bit offset, bits) of an INT; encoding 1 signed, 2 char, 4 bool."""
        (word,) = struct.unpack_from("<I", self._owner(record).data, record.tail)
        return word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF

    @staticmethod
    def _items(owner: Btf, record: BtfType, item: struct.Struct) -> Iterator[tuple[int, ...]]:
        return item.iter_unpack(owner.data[record.tail : record.tail + record.vlen * item.size])

    def _scan(self) -> BtfIndex:
        """One pass over all records: where each is, and which names there are."""
        data, position, end = self.data, self._types, self._types_end
        unpack, header = _TYPE.unpack_from, _TYPE.size
        fixed = [_TAIL.get(Kind(k), (0, 0))[0] + header for k in range(_KINDS)]
        each = [_TAIL.get(Kind(k), (0, 0))[1] for k in range(_KINDS)]
        named: list[list[tuple[int, int]]] = [[] for _ in range(_KINDS)]
        offsets = array("I")
        append = offsets.append
        type_id, structs, nameless = self.first_id, int(Kind.STRUCT), array("I")
        while position + header <= end:
            name_off, info, _ = unpack(data, position)
            kind = info >> 24 & 0x1F
            if not 0 < kind < _KINDS:
                raise DamagedDump("BTF holds a record of an unknown kind", where=f"type id {type_id}",
                                  why=f"kind {kind}")
            if name_off:
                named[kind].append((name_off, type_id))
            elif kind == structs:
                nameless.append(type_id)
            append(position)
            position += fixed[kind] + each[kind] * (info & 0xFFFF)
            type_id += 1
        if position != end:
            raise DamagedDump("BTF's last record does not end where its types end",
                              where=f"type id {type_id - 1}")
        return self._names(offsets, named, nameless)

    def _names(self, offsets: array[int], named: list[list[tuple[int, int]]], nameless: array[int]) -> BtfIndex:
        names: dict[int, dict[str, int]] = {}
        for kind in (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.TYPEDEF, Kind.FLOAT, Kind.ENUM64, Kind.VAR):
            table = names[int(kind)] = {}
            for name_off, type_id in reversed(named[kind]):     # the first of equal names stays
                table[self.name(name_off)] = type_id
        enums = [self.data[offset + 7] for offset in offsets]
        enums = [bits for bits in enums if bits & 0x1F in (Kind.ENUM, Kind.ENUM64)]
        signs = any(bits >> 7 for bits in enums)
        functions = array("I", [type_id for _, type_id in named[Kind.FUNC]])
        index = BtfIndex(offsets, names, functions.tobytes(), nameless.tobytes(), {}, names.pop(int(Kind.VAR)), signs)
        self.index = index
        for position, offset in enumerate(offsets):
            kind_bits = self.data[offset + 7] & 0x1F            # the top byte of info holds the kind
            if kind_bits in (Kind.ENUM, Kind.ENUM64):
                record = self.type(self.first_id + position)
                item = _ENUM_UNSIGNED if kind_bits == Kind.ENUM else _ENUM64
                for values in self._items(self, record, item):
                    index.enumerators.setdefault(self.name(values[0]), record.id)
        return index
