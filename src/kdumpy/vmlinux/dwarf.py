"""DWARF 4, written with numpy: shapes of entries, and a section in which thousands are put down at once.

An entry (DIE) is an abbreviation's number and its attributes' values. Every form that is used here has a
fixed size, so that all entries of one shape are the rows of one array.

Source: the DWARF Debugging Information Format, version 4, sections 7.5 (entries) and 7.6 (LEB128).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNIT_HEADER = struct.Struct("<IHIB")
"""Unit length (bytes behind this word), version, offset in .debug_abbrev, bytes of an address."""
VERSION = 4
ADDRESS_BYTES = 8
C99 = 0x0C
"""DW_LANG_C99: C11 is a code of DWARF 5, which older debuggers do not know."""

Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int64]
"""Places in .debug_info, bytes; or a type's place, with 0 for void."""


class Tag(enum.IntEnum):
    """DW_TAG_*: what an entry is."""

    ARRAY = 0x01
    ENUMERATION = 0x04
    FORMAL_PARAMETER = 0x05
    MEMBER = 0x0D
    POINTER = 0x0F
    COMPILE_UNIT = 0x11
    STRUCTURE = 0x13
    SUBROUTINE_TYPE = 0x15
    TYPEDEF = 0x16
    UNION = 0x17
    UNSPECIFIED_PARAMETERS = 0x18
    SUBRANGE = 0x21
    BASE = 0x24
    CONST = 0x26
    ENUMERATOR = 0x28
    SUBPROGRAM = 0x2E
    VARIABLE = 0x34
    VOLATILE = 0x35
    RESTRICT = 0x37


class At(enum.IntEnum):
    """DW_AT_*: an attribute."""

    LOCATION = 0x02
    NAME = 0x03
    BYTE_SIZE = 0x0B
    BIT_SIZE = 0x0D
    LOW_PC = 0x11
    HIGH_PC = 0x12
    LANGUAGE = 0x13
    CONST_VALUE = 0x1C
    PRODUCER = 0x25
    PROTOTYPED = 0x27
    COUNT = 0x37
    MEMBER_LOCATION = 0x38
    DECLARATION = 0x3C
    ENCODING = 0x3E
    EXTERNAL = 0x3F
    TYPE = 0x49
    BIT_OFFSET = 0x6B
    """DW_AT_data_bit_offset."""


class Form(enum.IntEnum):
    """DW_FORM_*: how a value is written."""

    ADDRESS = 0x01
    DATA4 = 0x06
    DATA1 = 0x0B
    SDATA = 0x0D
    """A signed number in LEB128, here always in ten bytes."""
    UDATA = 0x0F
    """An unsigned one."""
    STRING = 0x0E
    """DW_FORM_strp: a place in .debug_str."""
    REFERENCE = 0x10
    """DW_FORM_ref_addr: a place in .debug_info, in whichever unit."""
    EXPRESSION = 0x18
    """DW_FORM_exprloc: here always the nine bytes of DW_OP_addr."""
    PRESENT = 0x19
    """DW_FORM_flag_present: true, in no bytes."""


class Encoding(enum.IntEnum):
    """DW_ATE_*: how a base type is to be read."""

    BOOLEAN = 0x02
    FLOAT = 0x04
    SIGNED = 0x05
    SIGNED_CHAR = 0x06
    UNSIGNED = 0x07
    UNSIGNED_CHAR = 0x08


LEB_BYTES = 10
"""Bytes of a 64-bit number in LEB128, at most; a shorter number is padded to them, which the format allows."""
_LOCATION = np.dtype([("length", "u1"), ("operation", "u1"), ("address", "<u8")])
_OP_ADDR = 0x03
_LEB = np.dtype(("u1", LEB_BYTES))
_TYPES: dict[Form, np.dtype[np.generic] | str | None] = {
    Form.ADDRESS: "<u8", Form.DATA4: "<u4", Form.DATA1: "u1", Form.STRING: "<u4", Form.REFERENCE: "<u4",
    Form.SDATA: _LEB, Form.UDATA: _LEB, Form.EXPRESSION: _LOCATION, Form.PRESENT: None,
}


class Shape(NamedTuple):
    """What entries of one abbreviation have."""

    tag: Tag
    attributes: tuple[tuple[At, Form], ...] = ()
    children: bool = False

    @property
    def row(self) -> np.dtype[np.void]:
        """The bytes of an entry; fields are named as the attributes are."""
        fields: list[tuple[str, object]] = [("abbreviation", "u1")]
        fields += [(at.name, _TYPES[form]) for at, form in self.attributes if _TYPES[form] is not None]
        return np.dtype(fields)

    @property
    def size(self) -> int:
        """Bytes of an entry, without its children."""
        return int(self.row.itemsize)


class Abbreviations:
    """The shapes that are in use, numbered as they come: .debug_abbrev."""

    def __init__(self) -> None:
        self._numbers: dict[Shape, int] = {}

    def number(self, shape: Shape) -> int:
        """Return a shape's number: below 128, so that it has one byte."""
        number = self._numbers.setdefault(shape, len(self._numbers) + 1)
        assert number < 128
        return number

    def section(self) -> bytes:
        """Return .debug_abbrev."""
        made = bytearray()
        for shape, number in self._numbers.items():
            made += bytes([number, shape.tag, shape.children])
            for at, form in shape.attributes:
                made += bytes([at, form])
            made += b"\0\0"
        return bytes(made) + b"\0"


class Section:
    """.debug_info while it is made: zeros (an entry without children, or their end) until rows are put down."""

    def __init__(self, size: int) -> None:
        self.data: Bytes = np.zeros(size, np.uint8)
        self.abbreviations = Abbreviations()

    def put(self, shape: Shape, places: Offsets, **columns: ArrayLike) -> None:
        """Write an entry of this shape at each place; a column a field, addresses for a location."""
        if not len(places):
            return
        rows = np.zeros(len(places), shape.row)
        rows["abbreviation"] = self.abbreviations.number(shape)
        for name, values in columns.items():
            if rows.dtype[name] == _LOCATION:
                rows[name]["length"] = _LOCATION.itemsize - 1
                rows[name]["operation"] = _OP_ADDR
                rows[name]["address"] = values
            else:
                rows[name] = values
        whole = rows.view(np.uint8).reshape(len(places), -1)
        self.data[places[:, np.newaxis] + np.arange(shape.size)] = whole

    def unit(self, start: int, end: int) -> None:
        """Write the header of the unit that lies between two places."""
        header = UNIT_HEADER.pack(end - start - 4, VERSION, 0, ADDRESS_BYTES)
        self.data[start : start + len(header)] = np.frombuffer(header, np.uint8)


def leb(values: NDArray[np.int64], *, signed: bool = True) -> Bytes:
    """Return numbers in LEB128, each padded to ten bytes: shape (n, 10). Unsigned, the values' bits are meant."""
    bits = values if signed else values.astype(np.uint64)
    shifts = (7 * np.arange(LEB_BYTES)).astype(bits.dtype)
    made = (bits[:, np.newaxis] >> shifts & bits.dtype.type(0x7F)).astype(np.uint8)
    made[:, :-1] |= 0x80
    return made


class Strings:
    """.debug_str: whole tables that are there already, then names of our own."""

    def __init__(self, tables: Sequence[bytes | memoryview]) -> None:
        self._parts = [bytes(table) for table in tables]
        self._end = sum(map(len, self._parts))
        self._places: dict[str, int] = {}

    def place(self, name: str) -> int:
        """Return where a name of ours lies, after adding it."""
        if name not in self._places:
            self._places[name] = self._end
            self._parts.append(name.encode() + b"\0")
            self._end += len(self._parts[-1])
        return self._places[name]

    def section(self) -> bytes:
        """Return .debug_str."""
        return b"".join(self._parts)
