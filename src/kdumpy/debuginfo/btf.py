"""BTF, the type information that a kernel carries in its own memory: parsed, without drgn.

Source: Documentation/bpf/btf.rst and include/uapi/linux/btf.h. A kernel's own BTF lies between
`__start_BTF` and `__stop_BTF`; a module's ("split BTF") continues the type ids and the string
table of the kernel's. The bytes come out of a dump and are not trusted: every offset is checked
against the blob before it is used, and a type that breaks the rules raises `DamagedDump`.

Kinds of types that are newer than this file are passed over where the blob says how long their
records are: 222edc843c15 "btf: Add BTF kind layout encoding to UAPI" (7.1).
"""

from __future__ import annotations

import enum
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from kdumpy.errors import DamagedDump, NotInDump

MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
"""magic, version, flags, hdr_len, type_off, type_len, str_off, str_len; offsets from the header's end."""
_LAYOUT_SECTION = struct.Struct("<II")
"""layout_off, layout_len: in the header after str_len, where hdr_len says that they are there."""
_LAYOUT = struct.Struct("<BBH")
"""struct btf_layout, one for each kind from 0 on: info_sz, elem_sz (bytes after the record), flags."""
_TYPE = struct.Struct("<III")
"""struct btf_type: name_off, info, size or type."""
_MEMBER = struct.Struct("<III")
_ARRAY = struct.Struct("<III")
_PARAM = struct.Struct("<II")
_ENUM = struct.Struct("<II")
_ENUM64 = struct.Struct("<III")


class Kind(enum.IntEnum):
    """BTF_KIND_*: what a type record describes. A newer kernel may have more."""

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
_TAIL: dict[int, tuple[int, int]] = {
    Kind.INT: (4, 0), Kind.PTR: (0, 0), Kind.ARRAY: (12, 0), Kind.STRUCT: (0, 12), Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8), Kind.FWD: (0, 0), Kind.TYPEDEF: (0, 0), Kind.VOLATILE: (0, 0), Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0), Kind.FUNC: (0, 0), Kind.FUNC_PROTO: (0, 8), Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12), Kind.FLOAT: (0, 0), Kind.DECL_TAG: (4, 0), Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 12),
}  # fmt: skip
_MOST_KINDS = 128
_LOOKED_UP = (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.TYPEDEF, Kind.FLOAT, Kind.ENUM64)
_INT_MIN = -1 << 31
_BELOW_NEGATIVE = -65536
"""Negative enumerators lie above; this one (0xffff0000) and lower ones are masks and ends of ranges."""


def _decode(info: int) -> tuple[int, int, bool]:
    """Return (kind, vlen, kind_flag) of a record's `info`.

    Before 7.2 kind had 5 bits and vlen 16, and the bits between were 0: f7a6b9eaff3e "bpf: Extend
    BTF UAPI vlen, kinds to use unused bits".
    """
    return info >> 24 & 0x7F, info & 0xFFFFFF, bool(info >> 31)


def _is_truncated(kind: int, size: int) -> bool:
    """Whether an enum's values are cut to 32 bits: before ENUM64 (6.0) pahole wrote the wide ones as ENUM."""
    return kind == Kind.ENUM and size > 4


def _look_negative(values: Iterable[int]) -> bool:
    """Guess whether 32-bit values with the top bit set, of one enum, are negative numbers.

    Before 6.0 BTF did not say. They are where all are small ones (-22); INT_MIN may stand beside
    those (NF_IP_PRI_FIRST), but alone it is a flag (1U << 31). Of the enums of 6.1 to 7.2, which
    do say, this misses one in eight of those with such a value: an enum with but 0xffffffff
    beside small numbers is taken for one with -1, and `1 << 31` for unsigned.
    """
    numbers = {value - (1 << 32) for value in values if value >> 31} - {_INT_MIN}
    return bool(numbers) and min(numbers) > _BELOW_NEGATIVE


class BtfType(NamedTuple):
    """One type record, without its tail."""

    id: int
    name: str
    kind: int
    """A `Kind`, or the number of a newer one, of which nothing but the record's length is known."""
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

    records: array[int]
    """Where each record begins, in 32-bit words after the first record, by type id minus the first id."""
    names: dict[int, dict[str, int]]
    """For each kind that types are looked up by, the id of the first type of each name."""
    functions: bytes
    """Type ids of the FUNCs as 32-bit words: 40,000 names that few look up are made when one is."""
    nameless: bytes
    """Type ids of the STRUCTs without a name as 32-bit words: some variables are of such a type."""
    enumerators: dict[str, int]
    """The id of the first enum that has the enumerator of each name."""
    percpu: dict[str, int]
    """Type id of each per-CPU variable (the VARs of BTF)."""
    signs: bool
    """kind_flag of an enum says that it is signed: 6089fb325cf7 "bpf: Add btf enum64 support" (6.0)."""


class Btf:
    """A BTF blob. Type ids below `first_id` belong to `base`.

    Raises:
        DamagedDump: the header or a record does not fit the blob.
        NotInDump: a record is of a newer kind, of which the blob does not say how long it is.
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
        if type_len % 4:
            raise DamagedDump("BTF's types do not end at a word", why=f"they have {type_len} bytes")
        self._types: int = hdr_len + type_off
        self._types_end = self._types + type_len
        self._strings = hdr_len + str_off
        self._strings_end = self._strings + str_len
        if max(self._types_end, self._strings_end) > len(data):
            raise DamagedDump("BTF is cut short", why=f"its header claims more than its {len(data)} bytes")
        self.strings_base: int = base.strings_size if base else 0
        self.strings_size: int = self.strings_base + str_len
        self._tails: dict[int, tuple[int, int]] = {**(base._tails if base else {}), **self._layout(hdr_len), **_TAIL}
        """Bytes after a record of each kind; split BTF has no layout section where its base has one."""
        self.index = index if index is not None else self._scan()
        self.signs: bool = self.index.signs or (base is not None and base.signs)
        """Whether enums say if they are signed; a module's few enums may all be unsigned."""

    def _layout(self, hdr_len: int) -> dict[int, tuple[int, int]]:
        """Read the layout section: the bytes after a record of each kind, as in _TAIL."""
        if hdr_len < _HEADER.size + _LAYOUT_SECTION.size or len(self.data) < hdr_len:
            return {}
        offset, length = _LAYOUT_SECTION.unpack_from(self.data, _HEADER.size)
        start = hdr_len + offset
        if start + length > len(self.data):
            raise DamagedDump("BTF is cut short", where="its layout section",
                              why=f"its header claims more than its {len(self.data)} bytes")
        records = _LAYOUT.iter_unpack(self.data[start : start + length // _LAYOUT.size * _LAYOUT.size])
        return {kind: (fixed, each) for kind, (fixed, each, _) in enumerate(records) if not (fixed | each) % 4}

    @cached_property
    def functions(self) -> dict[str, int]:
        """The type id of the FUNC of each name, the first of equal names."""
        table: dict[str, int] = {}
        for type_id in reversed(array("I", self.index.functions)):
            (name_off,) = struct.unpack_from("<I", self.data, self._record(type_id))
            table[self.name(name_off)] = type_id
        return table

    def function(self, name: str) -> int | None:
        """Return the type id of the first FUNC of a name, or None.

        The kernel's are found by the name's places in the string table: to make 40,000 names for one takes 80 ms.
        """
        if self.base:       # a module has few functions, and two string tables
            return self.functions.get(name)
        places = set(self._places(name.encode()))
        if places:
            for type_id, name_off in zip(array("I", self.index.functions), self._function_names, strict=True):
                if name_off in places:
                    return type_id
        return None

    def _places(self, name: bytes) -> Iterator[int]:
        """Yield every offset of the string table at which a name can be read: it may be the tail of others."""
        ended = name + b"\0"
        at = self.data.find(ended, self._strings, self._strings_end)
        while at >= 0:
            yield at - self._strings
            at = self.data.find(ended, at + 1, self._strings_end)

    @cached_property
    def _function_names(self) -> array[int]:
        """The string offset of the name of each FUNC, in the order of the index."""
        words, records, first = self._words(), self.index.records, self.first_id
        return array("I", [words[records[type_id - first]] for type_id in array("I", self.index.functions)])

    def _words(self) -> array[int]:
        """Return all type records in words of 32 bits."""
        words = array("I", self.data[self._types : self._types_end])
        if sys.byteorder == "big":
            words.byteswap()
        return words

    @property
    def type_section(self) -> memoryview:
        """All type records, one behind the other, in words of 32 bits."""
        return memoryview(self.data)[self._types : self._types_end]

    @property
    def string_section(self) -> memoryview:
        """The string table, without the base's."""
        return memoryview(self.data)[self._strings : self._strings_end]

    @property
    def end_id(self) -> int:
        """The first type id after the last of this blob."""
        return self.first_id + len(self.index.records)

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
        offset = self._record(type_id)
        name_off, info, size_or_type = _TYPE.unpack_from(self.data, offset)
        return BtfType(type_id, self.name(name_off), *_decode(info), size_or_type, offset + _TYPE.size)

    def _record(self, type_id: int) -> int:
        return self._types + 4 * self.index.records[type_id - self.first_id]

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
        """Yield the (name, value) pairs of an enum; none where BTF holds but the lower half of each value."""
        owner = self._owner(record)
        if _is_truncated(record.kind, record.size_or_type):
            return
        if record.kind == Kind.ENUM64:
            for name_off, low, high in self._items(owner, record, _ENUM64):
                value = high << 32 | low
                yield owner.name(name_off), value - (1 << 64) if record.flag and high >> 31 else value
            return
        signed = self.is_signed(record)
        for name_off, value in self._items(owner, record, _ENUM):
            yield owner.name(name_off), value - (1 << 32) if signed and value >> 31 else value

    def is_signed(self, record: BtfType) -> bool:
        """Return whether the values of an ENUM or ENUM64 are signed."""
        owner = self._owner(record)
        if owner.signs or record.kind == Kind.ENUM64:
            return record.flag
        return _look_negative(value for _, value in self._items(owner, record, _ENUM))

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
        """One pass over all records: where each is, and which ids each kind has."""
        words = self._words()
        ids: list[list[int]] = [[] for _ in range(_MOST_KINDS)]
        # 100,000 records have 2,000 different `info`s: what one means is worked out once.
        shapes: dict[int, tuple[Callable[[int], None], int]] = {}
        records: list[int] = []
        append = records.append
        position, type_id, last = 0, self.first_id, len(words) - _TYPE.size // 4
        while position <= last:
            info = words[position + 1]
            shape = shapes.get(info)
            if shape is None:
                shape = shapes[info] = self._shape(info, ids, type_id)
            collect, length = shape
            collect(type_id)
            append(position)
            position += length
            type_id += 1
        if position != len(words):
            raise DamagedDump("BTF's last record does not end where its types end",
                              where=f"type id {type_id - 1}")
        signs = any(kind == Kind.ENUM64 or (kind == Kind.ENUM and flag) for kind, _, flag in map(_decode, shapes))
        return self._names(words, array("I", records), ids, signs)

    def _shape(self, info: int, ids: list[list[int]], type_id: int) -> tuple[Callable[[int], None], int]:
        """Return what takes the ids of records with this `info`, and how many words such a record has."""
        kind, vlen, _ = _decode(info)
        if kind == Kind.VOID:
            raise DamagedDump("BTF holds a record of no kind", where=f"type id {type_id}")
        if kind not in self._tails:
            raise NotInDump("the BTF holds a kind of type that is newer than this kdumpy knows",
                            where=f"type id {type_id}", why=f"kind {kind}", mend="a newer kdumpy may know it")
        fixed, each = self._tails[kind]
        return ids[kind].append, (_TYPE.size + fixed + each * vlen) // 4

    def _names(self, words: array[int], records: array[int], ids: list[list[int]], signs: bool) -> BtfIndex:
        first = self.first_id
        names: dict[int, dict[str, int]] = {}
        for kind in (*_LOOKED_UP, Kind.VAR):
            table = names[int(kind)] = {}
            for type_id in reversed(ids[kind]):                 # the first of equal names stays
                table[self.name(words[records[type_id - first]])] = type_id
            table.pop("", None)
        enumerators: dict[str, int] = {}
        for type_id in sorted(ids[Kind.ENUM] + ids[Kind.ENUM64], reverse=True):
            start = records[type_id - first]
            kind_number, vlen, _ = _decode(words[start + 1])
            if _is_truncated(kind_number, words[start + 2]):
                continue
            step = _TAIL[kind_number][1] // 4
            for name_off in words[start + 3 : start + 3 + step * vlen : step]:
                enumerators[self.name(name_off)] = type_id
        functions = array("I", [type_id for type_id in ids[Kind.FUNC] if words[records[type_id - first]]])
        nameless = array("I", [type_id for type_id in ids[Kind.STRUCT] if not words[records[type_id - first]]])
        return BtfIndex(records, names, functions.tobytes(), nameless.tobytes(), enumerators,
                        names.pop(int(Kind.VAR)), signs)
