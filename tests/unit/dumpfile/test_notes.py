"""Notes that are whole, and notes that lie about their lengths."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.dumpfile.notes import Machine, Note, machine_of, parse_notes, parse_prstatus
from kdumpy.errors import DumpFormatError


def note(name: bytes, kind: int, data: bytes) -> bytes:
    name += b"\0"
    return (struct.pack("<III", len(name), len(data), kind) + name.ljust(len(name) + 3 & ~3, b"\0")
            + data.ljust(len(data) + 3 & ~3, b"\0"))


def test_one_that_says_too_much_ends_them() -> None:
    good = note(b"CORE", 1, b"12345")
    assert list(parse_notes(good + struct.pack("<III", 5, 1 << 31, 1) + b"CORE\0")) == [Note("CORE", 1, b"12345")]
    assert list(parse_notes(good + struct.pack("<III", 1 << 31, 0, 1))) == [Note("CORE", 1, b"12345")]


@given(st.binary(max_size=400))
def test_any_bytes(raw: bytes) -> None:
    notes = tuple(parse_notes(raw))
    assert sum(len(each.data) for each in notes) <= len(raw)
    for machine in Machine:
        parse_prstatus(notes, machine)
    machine_of(notes)


def test_registers_by_name() -> None:
    data = struct.pack("<3iHxxQQiiii64x27Q8x", 0, 0, 0, 11, 0, 0, 77, 1, 1, 1, *range(27))
    notes = tuple(parse_notes(note(b"CORE", 1, data)))
    assert machine_of(notes) is Machine.X86_64
    (cpu,) = parse_prstatus(notes, Machine.X86_64)
    assert (cpu.pid, cpu.signal, cpu.registers["rip"], cpu.registers["rsp"]) == (77, 11, 16, 19)


def test_machines() -> None:
    assert Machine.named("amd64", where="x") is Machine.X86_64
    with pytest.raises(DumpFormatError, match="s390x"):
        Machine.named("s390x", where="x")
