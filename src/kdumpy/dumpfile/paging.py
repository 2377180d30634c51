"""Kernel virtual addresses to physical ones, from VMCOREINFO and the dump's own page tables.

x86-64: Intel SDM volume 3, "4-level paging and 5-level paging"; arm64: ARM ARM "The AArch64 Virtual Memory
System Architecture"; which line of VMCOREINFO means what: Documentation/admin-guide/kdump/vmcoreinfo.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import PAGE_SIZES, VmcoreInfo
from kdumpy.errors import DamagedDump, KdumpyError, MissingPage, NotInDump
from kdumpy.units import address as hexadecimal

_WORD = 1 << 64
_UTSNAME_SIZE = 390


class PhysicalMemory(Protocol):
    """What a page-table walk needs of a dump."""

    @property
    def machine(self) -> Machine:
        """The architecture."""

    @property
    def page_size(self) -> int:
        """Bytes."""

    @property
    def vmcoreinfo(self) -> VmcoreInfo:
        """The kernel's VMCOREINFO."""

    def read_physical(self, address: int, size: int) -> bytes:
        """Return bytes of physical memory."""


@dataclass(frozen=True, slots=True)
class PageTables:
    """How one machine's kernel page tables are laid out."""

    root: int
    """Physical address of the top table."""
    shifts: tuple[int, ...]
    """For each level from the top: the lowest bit of the address that indexes it."""
    top_entries: int
    """Entries of the top table; each other table has page_size / 8."""
    lowest: int
    """The lowest virtual address that these tables can map."""
    step: Callable[[int, int], tuple[int, bool]]
    """(entry, shift) -> (physical address in it, whether it is a leaf); raises LookupError if not present."""
    linear: Callable[[int], int | None]
    """virtual address -> physical address by arithmetic alone, where that can be known."""


class KernelMemory:
    """The crashed kernel's virtual memory."""

    def __init__(self, dump: PhysicalMemory) -> None:
        self.dump = dump
        layout = {Machine.X86_64: _x86_64, Machine.AARCH64: _aarch64}[dump.machine]
        self.tables = layout(dump)
        self.page_size = kernel_page_size(dump)
        """Bytes of the kernel's own page."""
        self._known: dict[int, int] = {}

    def translate(self, address: int) -> int:
        """Return the physical address; MissingPage where the kernel maps nothing or its tables are not held."""
        page, offset = address & -self.page_size, address & self.page_size - 1
        physical = self._known.get(page)
        if physical is None:
            physical = self._walk(page)
            if len(self._known) < 65536:
                self._known[page] = physical
        return physical + offset

    def _walk(self, address: int) -> int:
        tables = self.tables
        if not tables.lowest <= address < _WORD:
            raise MissingPage("not an address of the kernel", where=hexadecimal(address % _WORD))
        table, entries = tables.root, tables.top_entries
        try:
            for shift in tables.shifts:
                index = address >> shift & entries - 1
                entry = int.from_bytes(self.dump.read_physical(table + index * 8, 8), "little")
                table, leaf = tables.step(entry, shift)
                if leaf:
                    inside = (1 << shift) - 1
                    return table & ~inside | address & inside
                entries = self.page_size // 8
        except LookupError:
            raise MissingPage("the kernel maps nothing there", where=hexadecimal(address),
                              why=f"its page-table entry for bits from {shift} up is empty") from None
        except (MissingPage, DamagedDump):
            # A page table is lost: the kernel's image and the direct map can do without.
            physical = tables.linear(address)
            if physical is None:
                raise
            return physical
        raise DamagedDump("the kernel's page tables do not end", where=hexadecimal(address))

    def mapped(self, start: int, stop: int, *, most_tables: int) -> Iterator[int]:
        """Yield the physical addresses of the single pages mapped in [start, stop); tables not held are passed over.

        Reads at most `most_tables` page tables.
        """
        budget = [most_tables]
        yield from self._mapped(self.tables.root, self.tables.top_entries, 0, start, stop, budget)

    def _mapped(self, table: int, entries: int, level: int, start: int, stop: int,
                budget: list[int]) -> Iterator[int]:
        shift = self.tables.shifts[level]
        first, last = start >> shift & entries - 1, stop - 1 >> shift & entries - 1
        budget[0] -= 1
        try:
            raw = self.dump.read_physical(table + first * 8, (last - first + 1) * 8)
        except KdumpyError:
            return
        for index, entry in enumerate(memoryview(raw).cast("Q"), first):
            if not entry or budget[0] <= 0:
                continue
            try:
                physical, leaf = self.tables.step(entry, shift)
            except LookupError:
                continue
            if leaf:
                if level == len(self.tables.shifts) - 1:
                    yield physical
                continue
            # The part of [start, stop) that this entry covers.
            covered = (start >> shift << shift) + (index - first << shift)
            yield from self._mapped(physical, self.page_size // 8, level + 1, max(start, covered),
                                    min(stop, covered + (1 << shift)), budget)

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (virtual address, physical address, bytes) of what is mapped in [start, stop), rising.

        Neighbours that are neighbours in physical memory too come as one, whatever leaves map them. What is not
        mapped, or whose page table is not held, is passed over.
        """
        virtual = physical = size = 0
        for at, target, length in self._leaves(max(start, self.tables.lowest), min(stop, _WORD)):
            if size and at == virtual + size and target == physical + size:
                size += length
                continue
            if size:
                yield virtual, physical, size
            virtual, physical, size = at, target, length
        if size:
            yield virtual, physical, size

    def _leaves(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the same for each entry that maps something.

        Without recursion: a generator for each level would hand every page through all of them.
        """
        levels = [self._entries(self.tables.root, 0, start, stop)] if start < stop else []
        last = len(self.tables.shifts) - 1
        while levels:
            for physical, leaf, low, high in levels[-1]:
                if leaf:
                    yield low, physical, high - low
                elif len(levels) <= last:
                    levels.append(self._entries(physical, len(levels), low, high))
                    break
            else:
                levels.pop()

    def _entries(self, table: int, level: int, start: int, stop: int) -> Iterator[tuple[int, bool, int, int]]:
        """Yield (physical address, whether it is a page and no table, first virtual address, end) of a table's."""
        shift, step = self.tables.shifts[level], self.tables.step
        entries = self.page_size // 8 if level else self.tables.top_entries
        first, last = start >> shift & entries - 1, stop - 1 >> shift & entries - 1
        try:
            raw = self.dump.read_physical(table + first * 8, (last - first + 1) * 8)
        except KdumpyError:
            return
        covered, inside = start >> shift << shift, (1 << shift) - 1
        for index, entry in enumerate(memoryview(raw).cast("Q")):
            if not entry:           # most of them: an exception each takes longer than all the rest
                continue
            low = max(start, covered + (index << shift))
            try:
                physical, leaf = step(entry, shift)
            except LookupError:
                continue
            yield ((physical & ~inside) + (low & inside) if leaf else physical, leaf, low,
                   min(stop, covered + (index + 1 << shift)))

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes of virtual memory; MissingPage or DamagedDump when one page cannot be had."""
        start = address & self.page_size - 1
        if size >= 0 and start + size <= self.page_size:
            return self.dump.read_physical(self.translate(address), size)
        if not 0 <= size <= 1 << 30:
            raise MissingPage(f"{size} bytes of kernel memory are not believed", where=hexadecimal(address % _WORD))
        parts = []
        while size:
            length = min(size, self.page_size - (address & self.page_size - 1))
            parts.append(self.dump.read_physical(self.translate(address), length))
            address += length
            size -= length
        return b"".join(parts)

    def word(self, address: int) -> int:
        """Return the 64-bit word at a virtual address."""
        return int.from_bytes(self.read(address, 8), "little")


def kernel_page_size(dump: PhysicalMemory) -> int:
    """Return bytes of the kernel's own page, which the dump's unit need not be (QEMU's 64K blocks of arm64)."""
    size = dump.vmcoreinfo.page_size if dump.vmcoreinfo else dump.page_size
    if size not in PAGE_SIZES:
        raise DamagedDump(f"page size {size} in VMCOREINFO", where=dump.vmcoreinfo.where,
                          why="4096, 16384 and 65536 exist")
    return size


def read_virtual(dump: PhysicalMemory, address: int, size: int) -> bytes:
    """Return `size` bytes of the kernel's virtual memory (for many reads keep one KernelMemory)."""
    return KernelMemory(dump).read(address, size)


def read_utsname(dump: PhysicalMemory) -> Utsname | None:
    """Return what the kernel's init_uts_ns says, or None when it cannot be read."""
    info = dump.vmcoreinfo
    try:
        # struct uts_namespace began with a kref before 5.11; the offset is exported only since it moved.
        start = info.symbol("init_uts_ns") + info.offset("uts_namespace.name", 4)
        found = Utsname.parse(KernelMemory(dump).read(start, _UTSNAME_SIZE))
    except KdumpyError:
        return None
    return found if found.sysname == "Linux" else None


_X86_MAP = 0xffffffff80000000
"""__START_KERNEL_map, arch/x86/include/asm/page_64_types.h."""
_X86_ADDRESS = 0x000ffffffffff000
_X86_PRESENT, _X86_LARGE = 0x1, 0x80


def _x86_64(dump: PhysicalMemory) -> PageTables:
    info = dump.vmcoreinfo
    try:
        top = info.symbol("init_top_pgt")
    except NotInDump:
        top = info.symbol("swapper_pg_dir")  # before 4.13, and the alias ever since
    base = info.number("phys_base")
    five = info.number("pgtable_l5_enabled", 0)
    mask = _X86_ADDRESS & ~info.number("sme_mask", 0)
    image = info.number("KERNEL_IMAGE_SIZE", 512 << 20)

    def step(entry: int, shift: int) -> tuple[int, bool]:
        # _PAGE_PROTNONE keeps the contents without the present bit; the kernel's own map never uses it.
        if not entry & _X86_PRESENT:
            raise LookupError
        return entry & mask, shift == 12 or bool(entry & _X86_LARGE and shift in (21, 30))

    def linear(address: int) -> int | None:
        inside = address - _X86_MAP
        # Above the image lie the modules, which are mapped page by page.
        return inside + base if 0 <= inside < image else None

    shifts = (48, 39, 30, 21, 12) if five else (39, 30, 21, 12)
    return PageTables(root=top - _X86_MAP + base & mask, shifts=shifts, top_entries=512,
                      lowest=_WORD - (1 << shifts[0] + 8), step=step, linear=linear)


_ARM_VALID, _ARM_TABLE = 0x1, 0x2


def _aarch64(dump: PhysicalMemory) -> PageTables:
    info, page_size = dump.vmcoreinfo, kernel_page_size(dump)
    page_shift = page_size.bit_length() - 1
    image = info.number("kimage_voffset")
    built_for = info.number("VA_BITS")
    # A kernel built for 52 bits runs with 48 on a processor that lacks them; TCR_EL1.T1SZ tells (5.5 and later).
    actual = 64 - info.number("TCR_EL1_T1SZ", 64 - built_for)
    if not 36 <= built_for <= 52 or not 36 <= actual <= 52:
        raise DamagedDump(f"virtual addresses of {actual} bits in VMCOREINFO", where=info.where)
    per_level = page_shift - 3
    levels = -(-(actual - page_shift) // per_level)
    shifts = tuple(page_shift + per_level * level for level in reversed(range(levels)))
    # With 64K and 16K pages the top table is the one built for 52 bits, whatever the processor does:
    # its last entries are used (TTBR1 points into it). With 4K pages a level is left away instead.
    widest = built_for if -(-(built_for - page_shift) // per_level) == levels else actual
    wide_output = page_size == 65536 or actual == 52
    low_bits = (1 << 48) - page_size
    linear_start = _WORD - (1 << actual)
    physical_start = info.number("PHYS_OFFSET", 0)

    def step(entry: int, shift: int) -> tuple[int, bool]:
        if not entry & _ARM_VALID:
            raise LookupError
        physical = entry & low_bits
        if wide_output and page_size == 65536:
            physical |= (entry & 0xf000) << 36  # bits 15:12 are address bits 51:48
        elif wide_output:
            # FEAT_LPA2: bits 49:48 in place, bits 9:8 are address bits 51:50.
            physical |= entry & 3 << 48 | (entry & 0x300) << 42
        return physical, shift == page_shift or not entry & _ARM_TABLE

    def linear(address: int) -> int | None:
        # Since 5.4 the direct map is the lower half of the kernel's addresses; before, the upper: then the walk
        # must do. Its start is PAGE_OFFSET and holds PHYS_OFFSET.
        if physical_start and address < linear_start + (1 << actual - 1) and "TCR_EL1_T1SZ" in _numbers(info):
            return address - linear_start + physical_start
        physical = address - image
        return physical if physical_start <= physical < physical_start + (1 << 40) else None

    root = info.symbol("swapper_pg_dir") - image
    return PageTables(root=root % _WORD, shifts=shifts, top_entries=1 << widest - shifts[0],
                      lowest=linear_start, step=step, linear=linear)


def _numbers(info: VmcoreInfo) -> set[str]:
    return {key[7:-1] for key in info if key.startswith("NUMBER(")}
