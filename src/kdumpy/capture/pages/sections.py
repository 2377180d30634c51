"""Where the struct page of a page frame lies in the kernel's virtual memory.

Sparse memory (x86-64, and every arm64 kernel since 5.13) is divided into sections, each with its own array of struct
page; with CONFIG_SPARSEMEM_VMEMMAP these arrays are neighbours. mem_section tells of both alike.
Source: include/linux/mmzone.h, mm/sparse.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import KdumpyError, NotInDump

_PRESENT = 1
"""SECTION_MARKED_PRESENT."""
_FLAGS = 0xfff
"""The low bits of section_mem_map are flags, four of them in 5.4 and six in 6.15; the array itself starts a page."""
_WORD = 1 << 64


class MemoryMap(Protocol):
    """Finds arrays of struct page."""

    def arrays(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first pfn, last pfn + 1, virtual address of the first's struct page) for pfns of [start, stop)."""


class FlatMap:
    """One array for all memory (CONFIG_FLATMEM)."""

    def __init__(self, memory: KernelMemory, page_bytes: int) -> None:
        info = memory.dump.vmcoreinfo
        self._base = memory.word(info.symbol("mem_map"))
        self._first = info.number("PHYS_OFFSET", 0) // memory.page_size  # ARCH_PFN_OFFSET
        self._page_bytes = page_bytes

    def arrays(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the one array's part."""
        start = max(start, self._first)
        if start < stop:
            yield start, stop, self._base + (start - self._first) * self._page_bytes


class SparseMap:
    """An array for each section of memory (CONFIG_SPARSEMEM)."""

    def __init__(self, memory: KernelMemory, page_bytes: int) -> None:
        info = memory.dump.vmcoreinfo
        self._memory = memory
        self._page_bytes = page_bytes
        self._each = info.size_of("mem_section")
        self._map_at = info.offset("mem_section.section_mem_map")
        self._roots = info.symbol("mem_section")
        self._root_count = info.length("mem_section")
        section_bits, per_root = section_size(info.number("MAX_PHYSMEM_BITS", 0), info.number("SECTION_SIZE_BITS", 0),
                                              self._root_count, memory.page_size // max(self._each, 1))
        self.pages = (1 << section_bits) // memory.page_size
        """Pages of a section."""
        self._per_root = per_root
        if not 8 <= self._each <= 64 or not 0 <= self._map_at <= self._each - 8 or not self.pages:
            raise NotInDump("VMCOREINFO's mem_section does not fit together", where=info.where)
        self._root: tuple[int, bytes] = (-1, b"")

    def arrays(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield each section's part; sections that the kernel does not have are passed over."""
        for number in range(start // self.pages, -(-stop // self.pages)):
            coded = self._coded(number)
            if coded & _PRESENT:
                # Coded as the address that the struct page of pfn 0 would have.
                first = max(start, number * self.pages)
                yield first, min(stop, (number + 1) * self.pages), \
                    ((coded & ~_FLAGS) + first * self._page_bytes) % _WORD

    def _coded(self, number: int) -> int:
        """Return a section's section_mem_map, 0 where there is none or it cannot be read."""
        root, index = divmod(number, self._per_root)
        if root >= self._root_count:
            return 0
        if self._root[0] != root:
            self._root = root, self._read_root(root)
        at = index * self._each + self._map_at
        return int.from_bytes(self._root[1][at:at + 8], "little")

    def _read_root(self, root: int) -> bytes:
        """Return the sections below a root; nothing where it is empty or cannot be read."""
        try:
            if self._per_root == 1:  # without SPARSEMEM_EXTREME the sections themselves are the array
                return self._memory.read(self._roots + root * self._each, self._each)
            address = self._memory.word(self._roots + root * 8)
            return self._memory.read(address, self._per_root * self._each) if address else b""
        except KdumpyError:
            return b""


def section_size(physical_bits: int, section_bits: int, roots: int, per_root: int) -> tuple[int, int]:
    """Return (bits of a section's bytes, sections below a root) from what VMCOREINFO has of them.

    LENGTH(mem_section) is the number of roots, and so tells whether there is one level (the sections are the roots)
    or two (SPARSEMEM_EXTREME: a root is a page of sections), and what is missing where a kernel before 5.12 exports
    MAX_PHYSMEM_BITS ("crash_core, vmcoreinfo: append 'MAX_PHYSMEM_BITS' to vmcoreinfo", 1d50e5d0c505, 5.9) without
    SECTION_SIZE_BITS ("crash_core, vmcoreinfo: append 'SECTION_SIZE_BITS' to vmcoreinfo", 4f5aecdff25f, 5.13).
    """
    candidates = [section_bits] if section_bits else [27, 30, 29]
    for bits in candidates:
        for physical in [physical_bits] if physical_bits else [46, 48, 52]:
            sections = 1 << max(physical - bits, 0)
            if roots == -(-sections // per_root):
                return bits, per_root
            if roots == sections:
                return bits, 1
    raise NotInDump("the sections of memory are not understood",
                    why=f"{roots} roots of {per_root}, sections of {section_bits or '?'} bits, "
                        f"memory of {physical_bits or '?'} bits")


def memory_map(memory: KernelMemory, page_bytes: int) -> MemoryMap:
    """Return how this kernel lays out its struct pages; NotInDump where that cannot be known.

    Args:
        memory: the kernel's virtual memory.
        page_bytes: bytes of a struct page.
    """
    if "SYMBOL(mem_section)" in memory.dump.vmcoreinfo:
        return SparseMap(memory, page_bytes)
    return FlatMap(memory, page_bytes)
