"""The kernel's image out of the linker's symbols: which bytes are which section, and where they were linked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from kdumpy.errors import DamagedDump, NotInDump
from kdumpy.vmlinux.elf import Flag, Kind
from kdumpy.vmlinux.image import PERCPU, Image

BASE = 0xffffffff81000000
SLIDE = 0x3000000
OFFSETS = {
    "_text": 0, "_stext": 0, "_etext": 0x8f00, "__start_rodata": 0xa000, "__start_notes": 0xb000,
    "__stop_notes": 0xb100, "__end_rodata": 0xc000, "_sdata": 0x10000, "__start_orc_unwind": 0x11000,
    "__stop_orc_unwind": 0x12000, "__init_begin": 0x14000, "_sinittext": 0x16000, "_einittext": 0x17000,
    "__init_end": 0x1a000, "__bss_start": 0x1b000, "__bss_stop": 0x1f000, "__brk_base": 0x1f000,
    "__brk_limit": 0x20000,
}


def addresses(**changed: int | None) -> dict[str, int]:
    found: dict[str, int | None] = {name: BASE + SLIDE + offset for name, offset in OFFSETS.items()}
    found |= {"__per_cpu_start": 0, "__per_cpu_end": 0x2000, **changed}
    return {name: address for name, address in found.items() if address is not None}


def test_the_parts_are_those_of_a_vmlinux_without_the_slide() -> None:
    image = Image(addresses(), SLIDE, 0xff00000000000000)
    found = {part.name: (part.address - BASE, part.size) for part in image.parts if part.address}
    assert found == {
        ".text": (0, 0x8f00), ".rodata": (0xa000, 0x1000), ".notes": (0xb000, 0x100), ".rodata.1": (0xb100, 0xf00),
        ".data": (0x10000, 0x1000), ".orc_unwind": (0x11000, 0x1000), ".data.1": (0x12000, 0x2000),
        ".init.data": (0x14000, 0x2000), ".init.text": (0x16000, 0x1000), ".init.data.1": (0x17000, 0x3000),
        ".data_nosave": (0x1a000, 0x1000), ".bss": (0x1b000, 0x4000), ".brk": (0x1f000, 0x1000)}
    assert image.missing == []
    kinds = {part.name: part.kind for part in image.parts}
    assert kinds[".notes"] == Kind.NOTE
    assert kinds[".bss"] == kinds[".init.data"] == Kind.NOBITS
    assert kinds[".init.text"] == Kind.PROGBITS     # drgn knows a vmlinux by it


def test_init_memory_is_never_read_for_others_use_it_now() -> None:
    image = Image(addresses(), SLIDE, 0xff00000000000000)
    assert {part.name for part in image.parts if part.source is None} == {
        ".init.data", ".init.text", ".init.data.1", ".data_nosave", ".bss", ".brk"}


def test_per_cpu_data_at_0_are_the_first_cpu_s_and_neither_the_first_nor_the_last_segment() -> None:
    image = Image(addresses(), SLIDE, 0xff00000000000000)
    (percpu,) = [part for part in image.parts if part.name == PERCPU]
    assert (percpu.address, percpu.size, percpu.source) == (0, 0x2000, 0xff00000000000000)
    assert 0 < image.groups.index([percpu]) < len(image.groups) - 1


def test_per_cpu_data_within_the_image() -> None:
    where = {"__per_cpu_start": BASE + SLIDE + 0x18000, "__per_cpu_end": BASE + SLIDE + 0x19000}
    image = Image(addresses(**where), SLIDE, (1 << 64) - 0x1000)
    (percpu,) = [part for part in image.parts if part.name == PERCPU]
    assert (percpu.address - BASE, percpu.size) == (0x18000, 0x1000)
    assert percpu.source == BASE + SLIDE + 0x17000
    assert [percpu] in image.groups


def test_each_segment_is_all_in_the_file_or_not_at_all_and_without_gaps() -> None:
    image = Image(addresses(), SLIDE, 0)
    for group in image.groups:
        assert len({part.kind == Kind.NOBITS for part in group}) == 1
        for before, after in pairwise(group):
            assert before.address + before.size == after.address


def test_addresses_find_their_part() -> None:
    image = Image(addresses(), SLIDE, 0)
    start = BASE + SLIDE
    wanted = {start: ".text", start + 0x8f00: ".text", start + 0x9000: None, start + 0xb000: ".notes",
              start + 0x16fff: ".init.text", start + 0x20000: ".brk", start + 0x20001: None, 0x1000: PERCPU,
              0x3000: None}
    where = np.array(list(wanted), np.uint64)
    parts, _ = image.locate(where, np.zeros(len(where), np.bool_))
    assert [image.parts[index].name if index >= 0 else None for index in parts] == list(wanted.values())
    parts, ends = image.locate(np.array([start + 0xb000, start + 0x8f00], np.uint64), np.array([True, True]))
    assert [image.parts[index].name for index in parts] == [".rodata", ".text"]
    assert ends.tolist() == [start + 0xb000, start + 0x8f00]
    linked = image.linked(np.array([start + 5, 0x1000, start + 0x9000], np.uint64))
    assert linked.tolist() == [BASE + 5, 0x1000, BASE + 0x9000]
    text = next(part for part in image.parts if part.name == ".text")
    assert text.flags == Flag.ALLOC | Flag.CODE
    assert text.physical == 0x1000000


def test_a_part_whose_bounds_are_not_known_is_told() -> None:
    image = Image(addresses(__start_rodata=None, __bss_stop=0), SLIDE, 0)
    assert image.missing == [".rodata", ".bss"]


@pytest.mark.parametrize("name", ["_etext", "_sdata", "__init_begin"])
def test_without_code_or_data_there_is_no_image(name: str) -> None:
    with pytest.raises(NotInDump, match="lacks the bounds"):
        Image(addresses(**{name: None}), SLIDE, 0)


@pytest.mark.parametrize("slide", [1 << 40, 0x10000000])
def test_an_impossible_slide_is_damage(slide: int) -> None:
    with pytest.raises(DamagedDump, match="moved to where it cannot be"):
        Image(addresses(), slide, 0)


def test_a_part_of_an_impossible_size_is_not_read() -> None:
    assert Image(addresses(__end_rodata=BASE + (1 << 40)), SLIDE, 0).missing == [".rodata"]
