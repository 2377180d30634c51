"""Symbols and types found by their shape, in memory made for it."""

from __future__ import annotations

import struct

import drgn
import pytest

from kdumpy.debuginfo import unlisted

START = 0xFFFF800008BE0000
FALSE_HEADER = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 100, 7, 9)     # the names do not follow the types
TYPES = struct.pack("<IIII", 1, 1 << 24, 4, 32)                             # one int of 32 bits
BTF = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(TYPES), len(TYPES), 5) + TYPES + b"\0int\0"
NAMES = [f"function_{number:03}" for number in range(60)] + ["init_task", "loops_per_jiffy"]


@pytest.fixture(autouse=True)
def _a_small_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlisted, "_LONGEST_IMAGE", 4 << 20)     # a page that is not there costs an exception


def program(memory: bytes, start: int = START) -> drgn.Program:
    memory += bytes(-len(memory) % 0x1000)      # a dump has whole pages
    prog = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64))
    prog.add_memory_segment(start, len(memory), lambda address, count, offset, physical: memory[offset:offset + count])
    return prog


def test_the_types_are_found_behind_what_only_looks_like_them() -> None:
    memory = bytes(0x2000) + FALSE_HEADER + bytes(0x1000) + BTF + bytes(0x1000)
    found = unlisted.find_btf(program(memory), START)
    assert found is not None
    begin = START + memory.index(BTF)
    assert found == (begin, begin + len(BTF))


def test_the_types_are_found_where_two_reads_meet() -> None:
    memory = bytes((1 << 20) - 7) + BTF + bytes(0x1000)
    found = unlisted.find_btf(program(memory), START)
    assert found is not None
    assert found[0] == START + (1 << 20) - 7


@pytest.mark.parametrize("memory", [bytes(0x4000), FALSE_HEADER])
def test_no_types_are_no_types(memory: bytes) -> None:
    assert unlisted.find_btf(program(memory), START) is None


def exports(names: list[str], checksums: bytes | None = None) -> tuple[bytes, dict[str, int]]:
    """Lay out tables as the linker does: entries, checksums, names; the last name is a tail of another one."""
    names = sorted(names)
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names) + b"other_jiffies\0"
    checksums = checksums if checksums is not None else b"\x9c\x83\xf1\xee" * (len(names) + 1)
    tables, addresses = b"", {}
    first = 12 * (len(names) + 1) + len(checksums)
    for number, name in enumerate([*names, "jiffies"]):
        at = 12 * number
        place = strings.index(b"\0" + name.encode() + b"\0") + 1 if name != "jiffies" else strings.index(b"jiffies\0")
        if name == "jiffies":
            place = strings.index(b"other_jiffies\0") + len(b"other_")
        value = 0x100000 + 64 * number
        addresses[name] = START + 0x1000 + value
        tables += struct.pack("<iii", value - at, first + place - (at + 4), 0)
    return bytes(0x1000) + tables + checksums + strings + b"\x80" + bytes(0x100), addresses


def test_every_exported_symbol_is_found_and_one_whose_name_is_the_tail_of_another() -> None:
    memory, addresses = exports(NAMES)
    found = unlisted.exported(program(memory), START)
    assert found == addresses
    assert "jiffies" in found


def test_checksums_that_look_like_an_entry_make_no_symbol() -> None:
    likely = struct.pack("<iii", 0x1000, 200, 0) * 3
    memory, addresses = exports(NAMES, checksums=likely + b"\x9c\x83\xf1\xee" * 60)
    assert unlisted.exported(program(memory), START) == addresses


@pytest.mark.parametrize("memory", [bytes(0x4000), b"\0init_task\0" * 300, exports(NAMES[:4])[0]])
def test_no_tables_are_no_symbols(memory: bytes) -> None:
    assert unlisted.exported(program(memory), START) == {}


def test_a_name_without_an_end_is_none() -> None:
    names = [f"{number:03}" + "x" * 600 for number in range(20)]
    memory, addresses = exports([*NAMES, *names])
    assert unlisted.exported(program(memory), START) == {
        name: address for name, address in addresses.items() if name not in names}
    end = memory.index(b"other_jiffies")            # the last name, and entries that lead there
    assert "jiffies" not in unlisted.exported(program(memory[:end] + b"other_jiffies" + b"\x80" * 0x100), START)


def test_places_that_are_none_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def none_there(prog: drgn.Program, start: int, place: int) -> dict[str, int]:
        tried.append(place)
        return {}

    monkeypatch.setattr(unlisted, "_exported_near", none_there)
    assert unlisted.exported(program(b"\0init_task\0" * 5000), START) == {}
    assert (len(tried), tried[:2]) == (64, [START, START + 11])


def test_memory_that_is_not_there_is_no_error() -> None:
    assert unlisted.find_btf(program(b"", START - 16), START) is None
    assert unlisted.exported(program(b"", START - 16), START) == {}
