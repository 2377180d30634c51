"""A vmcore of a machine with a terabyte of memory, as a sparse file: for what must not grow with memory.

Its struct pages (16 GiB of them) are a few templates of 2 MiB, which the page tables map over and over again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

MEMORY = 1 << 40
PAGE, PMD = 4096, 2 << 20
TEMPLATES = 16
KEPT_IN_EACH = 64
"""Pages that level 31 keeps of every 32,768."""

_IMAGE = 0xffffffff80000000
_VMEMMAP = 0xffffea0000000000
_PGD, _IMAGE_PUD, _IMAGE_PMD, _MAP_PUD, _MAP_PMDS = 0x1000, 0x2000, 0x3000, 0x4000, 0x10000
_ROOTS, _SECTIONS = 0x40000, 0x50000
_TEMPLATES_AT = 32 << 20
_PRESENT, _LARGE = 0x63, 0x80
_SECTION = 128 << 20
_INFO = f"""OSRELEASE=6.1.0-terabyte
PAGESIZE=4096
SYMBOL(mem_section)={_IMAGE + _ROOTS:x}
LENGTH(mem_section)=2048
SIZE(mem_section)=16
OFFSET(mem_section.section_mem_map)=0
NUMBER(SECTION_SIZE_BITS)=27
NUMBER(MAX_PHYSMEM_BITS)=46
SIZE(page)=64
OFFSET(page.flags)=0
OFFSET(page._refcount)=52
OFFSET(page.mapping)=24
OFFSET(page.lru)=8
OFFSET(page._mapcount)=48
OFFSET(page.private)=40
OFFSET(page.compound_dtor)=16
OFFSET(page.compound_order)=17
OFFSET(page.compound_head)=8
LENGTH(zone.free_area)=11
NUMBER(PG_lru)=4
NUMBER(PG_private)=13
NUMBER(PG_swapcache)=10
NUMBER(PG_swapbacked)=19
NUMBER(PG_slab)=9
NUMBER(PG_head_mask)=65536
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129
NUMBER(HUGETLB_PAGE_DTOR)=2
NUMBER(phys_base)=0
SYMBOL(init_top_pgt)={_IMAGE + _PGD:x}
CRASHTIME=1795458291
"""


def write(path: Path) -> None:
    """Write the vmcore."""
    info = _INFO.encode()
    note = struct.pack("<III", 11, len(info), 0) + b"VMCOREINFO\0\0" + info.ljust(-len(info) % 4 + len(info), b"\0")
    data_at = 1 << 16
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    programs = struct.pack("<IIQQQQQQ", 4, 0, 4096, 0, 0, len(note), len(note), 4)
    programs += struct.pack("<IIQQQQQQ", 1, 7, data_at, 0, 0, MEMORY, MEMORY, 4096)
    with path.open("wb") as file:
        def put(address: int, data: bytes) -> None:
            file.seek(data_at + address)
            file.write(data)

        file.write(header + programs)
        file.seek(4096)
        file.write(note)
        _write_tables(put)
        random = np.random.default_rng(1)
        for number in range(TEMPLATES):
            put(_TEMPLATES_AT + number * PMD, _template(random))
        put(64 << 20, random.bytes(64 << 20))       # some memory that does not compress
        file.truncate(data_at + MEMORY)


def _write_tables(put: Callable[[int, bytes], None]) -> None:
    def words(values: list[int]) -> bytes:
        return np.array(values, "<u8").tobytes()

    pgd = [0] * 512
    pgd[_VMEMMAP >> 39 & 511], pgd[_IMAGE >> 39 & 511] = _MAP_PUD | _PRESENT, _IMAGE_PUD | _PRESENT
    put(_PGD, words(pgd))
    pud = [0] * 512
    pud[_IMAGE >> 30 & 511] = _IMAGE_PMD | _PRESENT
    put(_IMAGE_PUD, words(pud))
    put(_IMAGE_PMD, words([index * PMD | _PRESENT | _LARGE for index in range(16)]))
    pieces = MEMORY // PAGE * 64 // PMD             # of 2 MiB, of struct page
    put(_MAP_PUD, words([_MAP_PMDS + index * PAGE | _PRESENT for index in range(pieces // 512)]))
    put(_MAP_PMDS, words([_TEMPLATES_AT + index % TEMPLATES * PMD | _PRESENT | _LARGE for index in range(pieces)]))
    sections = MEMORY // _SECTION
    put(_ROOTS, words([_IMAGE + _SECTIONS + index * PAGE for index in range(sections // 256)]))
    put(_SECTIONS, words([_VMEMMAP | 3, 0] * sections))


def _template(random: np.random.Generator) -> bytes:
    """Return the struct pages of 128 MiB: free blocks, and pages of the kernel here and there."""
    count = PMD // 64
    pages = np.zeros((count, 8), np.uint64)
    counts, refs = pages.view(np.uint32)[:, 12], pages.view(np.uint32)[:, 13]
    counts[:] = 0xffffffff
    heads = np.arange(0, count, 1024)
    broken = 1024 * random.integers(0, count // 1024)
    heads = heads[heads != broken]
    counts[heads], pages[heads, 5] = -129 & 0xffffffff, 10
    free = np.zeros(count, np.bool_)
    free[broken:broken + 1024] = True
    kernel = broken + random.choice(1024, KEPT_IN_EACH, replace=False)
    free[kernel] = False
    refs[kernel] = 1
    counts[free], pages[free, 5] = -129 & 0xffffffff, 0
    return pages.tobytes()
