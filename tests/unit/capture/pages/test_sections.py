"""Sections of memory: with one level and two, with struct pages side by side and apart."""

from __future__ import annotations

from typing import cast

import pytest

from kdumpy.capture.pages.sections import FlatMap, SparseMap, memory_map, section_size
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import MissingPage, NotInDump

PRESENT, ONLINE, PREINIT = 1, 4, 32
"""Bits of section_mem_map; the last since 6.15, which makedumpfile 1.7.9 takes for a part of the address."""
PAGE = 64
EACH = 32768
"""Pages of a section of 128 MiB."""
TABLE, ROOTS = 0xffff888000100000, 0xffff888000200000


class FakeMemory:
    """Words of kernel memory by address; the rest is not there."""

    page_size = 4096

    def __init__(self, lines: str, words: dict[int, int]) -> None:
        self.vmcoreinfo = VmcoreInfo(lines.encode())
        self.dump = self
        self._words = words

    def word(self, address: int) -> int:
        """Return a word, 0 where the page it lies on has others."""
        if not any(other >> 12 == address >> 12 for other in self._words):
            raise MissingPage("not there", where=f"{address:#x}")
        return self._words.get(address, 0)

    def read(self, address: int, size: int) -> bytes:
        """Return words' bytes."""
        return b"".join(self.word(at).to_bytes(8, "little") for at in range(address, address + size, 8))


def lines(roots: int, symbol: int) -> str:
    return (f"SYMBOL(mem_section)={symbol:x}\nLENGTH(mem_section)={roots}\nSIZE(mem_section)=16\n"
            "OFFSET(mem_section.section_mem_map)=0\nNUMBER(MAX_PHYSMEM_BITS)=46\nNUMBER(SECTION_SIZE_BITS)=27\n")


def coded(section: int, array: int, flags: int = PRESENT | ONLINE) -> int:
    return (array - section * EACH * PAGE) % (1 << 64) | flags


def arrays(map_: SparseMap | FlatMap, start: int, stop: int) -> list[tuple[int, int, int]]:
    return list(map_.arrays(start, stop))


def test_two_levels_with_arrays_apart() -> None:
    """SPARSEMEM_EXTREME without a virtual memory map: each section's struct pages lie where they were allocated."""
    one, two = 0xffff888001000000, 0xffff888009000000
    words = {ROOTS: TABLE, ROOTS + 3 * 8: TABLE + 4096,
             TABLE: coded(0, one), TABLE + 16: 0, TABLE + 32: coded(2, two, PRESENT | ONLINE | PREINIT),
             TABLE + 4096 + 16: coded(769, one)}
    found = memory_map(cast("KernelMemory", FakeMemory(lines(2048, ROOTS), words)), PAGE)
    assert isinstance(found, SparseMap)
    assert arrays(found, 0, 4 * EACH) == [(0, EACH, one), (2 * EACH, 3 * EACH, two)]
    assert arrays(found, 100, 200) == [(100, 200, one + 100 * PAGE)]
    assert arrays(found, 3 * EACH - 1, 900 * EACH) == [(3 * EACH - 1, 3 * EACH, two + (EACH - 1) * PAGE),
                                                       (769 * EACH, 770 * EACH, one)]
    assert arrays(found, 1 << 40, (1 << 40) + 5) == []


def test_one_level() -> None:
    array = 0xffff888001000000
    words = {ROOTS + 5 * 16: coded(5, array)}
    found = memory_map(cast("KernelMemory", FakeMemory(lines(1 << 19, ROOTS), words)), PAGE)
    assert arrays(cast("SparseMap", found), 0, 10 * EACH) == [(5 * EACH, 6 * EACH, array)]


def test_a_table_that_is_lost_is_no_memory_map() -> None:
    found = memory_map(cast("KernelMemory", FakeMemory(lines(2048, ROOTS), {ROOTS: TABLE})), PAGE)
    assert list(found.arrays(0, 1 << 20)) == []


def test_flat_memory_begins_where_memory_begins() -> None:
    """arm64 with CONFIG_FLATMEM, possible before 5.13: mem_map begins with the first page of memory."""
    text = "SYMBOL(mem_map)=ffff800011000000\nNUMBER(PHYS_OFFSET)=0x40000000\n"
    words = {0xffff800011000000: 0xffff000001000000}
    found = memory_map(cast("KernelMemory", FakeMemory(text, words)), PAGE)
    assert isinstance(found, FlatMap)
    assert arrays(found, 0, 0x40010) == [(0x40000, 0x40010, 0xffff000001000000)]
    assert arrays(found, 0, 0x30000) == []


@pytest.mark.parametrize(("physical", "section", "roots", "per_root", "expected"), [
    (46, 27, 2048, 256, (27, 256)),         # x86-64, four levels
    (52, 27, 131072, 256, (27, 256)),       # x86-64, five levels
    (48, 27, 8192, 256, (27, 256)),         # arm64, 4 KiB pages
    (52, 29, 2048, 4096, (29, 4096)),       # arm64, 64 KiB pages
    (52, 27, 32768, 1024, (27, 1024)),      # arm64, 16 KiB pages
    (46, 27, 1 << 19, 256, (27, 1)),        # without SPARSEMEM_EXTREME
    (0, 0, 2048, 256, (27, 256)),           # 5.4, x86-64, four levels
    (0, 0, 131072, 256, (27, 256)),         # 5.4, x86-64, five levels
    (0, 0, 1024, 256, (30, 256)),           # 5.4, arm64, 4 KiB pages
    (0, 0, 1024, 4096, (30, 4096)),         # 5.4, arm64, 64 KiB pages, 52 bits
    (48, 0, 64, 4096, (30, 4096)),          # 5.10, arm64, 64 KiB pages
])
def test_sizes_of_sections(physical: int, section: int, roots: int, per_root: int, expected: tuple[int, int]) -> None:
    assert section_size(physical, section, roots, per_root) == expected


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NotInDump):
        section_size(46, 27, 2047, 256)
