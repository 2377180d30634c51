"""ELF vmcores: /proc/vmcore and its copies, makedumpfile -E, QEMU's dump-guest-memory.

Source: the ELF-64 specification; fs/proc/vmcore.c; makedumpfile elf_info.c for the incomplete flag.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from kdumpy.dumpfile.base import MAX_PHYSICAL, PagedDump
from kdumpy.dumpfile.notes import LARGEST, Machine, Note, parse_notes
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.vmcoreinfo import PAGE_SIZES
from kdumpy.errors import DamagedDump, DumpFormatError, KdumpyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kdumpy.dumpfile.elfbulk import Extents

MAGIC = b"\x7fELF"

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
HEADER_SIZE, PROGRAM_SIZE, SECTION_SIZE = _HEADER.size, _PROGRAM.size, _SECTION.size
assert (HEADER_SIZE, PROGRAM_SIZE, SECTION_SIZE) == (64, 56, 64)

_CLASS64, _LITTLE_ENDIAN, _ET_CORE = 2, 1, 4
_PT_LOAD, _PT_NOTE = 1, 4
PN_XNUM = 0xffff
"""e_phnum when there are as many program headers or more: the count is in section 0's sh_info."""
INCOMPLETE = 1
"""Bit of e_flags, DUMP_ELF_INCOMPLETE: makedumpfile ran out of space."""
_MOST_PROGRAMS = 1 << 22

MACHINES = {62: "x86_64", 183: "aarch64", 3: "i386", 40: "arm", 21: "ppc64", 22: "s390x", 243: "riscv64",
            258: "loongarch64", 8: "mips", 20: "ppc", 43: "sparc64", 50: "ia64"}
"""By e_machine. Source: include/uapi/linux/elf-em.h."""


class Header(NamedTuple):
    """Elf64_Ehdr, the file's first 64 bytes; in the order and with the sizes of the ELF-64 specification."""

    ident: bytes
    """e_ident, 16 bytes: magic, class (2: 64 bits), byte order (1: little endian), version, OS; the rest is 0."""
    kind: int
    """e_type: 4, a core."""
    machine: int
    """e_machine: the architecture, `MACHINES`."""
    version: int
    """e_version: 1."""
    entry: int
    """e_entry: not used."""
    program_offset: int
    """e_phoff: the program headers, in the file, bytes."""
    section_offset: int
    """e_shoff: the section headers, in the file, bytes; 0 where there are none."""
    flags: int
    """e_flags: `INCOMPLETE`, else 0."""
    header_size: int
    """e_ehsize: bytes of this header."""
    program_size: int
    """e_phentsize: bytes of a program header, 56."""
    programs: int
    """e_phnum: number of program headers, or `PN_XNUM`."""
    section_size: int
    """e_shentsize: bytes of a section header, 64."""
    sections: int
    """e_shnum: number of section headers."""
    names: int
    """e_shstrndx: not used."""

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        return _HEADER.pack(*self)


class Program(NamedTuple):
    """Elf64_Phdr."""

    kind: int
    """p_type: 1 memory (PT_LOAD), 4 notes (PT_NOTE)."""
    flags: int
    """p_flags: not used; 7 (read, write, execute) for memory."""
    offset: int
    """p_offset: in the file, bytes."""
    virtual: int
    """p_vaddr: where the kernel has it mapped, 0 where the writer did not know."""
    physical: int
    """p_paddr: physical address, bytes."""
    file_size: int
    """p_filesz: bytes in the file."""
    memory_size: int
    """p_memsz: bytes of memory; what is beyond `file_size` was left out."""
    alignment: int
    """p_align: 0, as /proc/vmcore has it."""

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        return _PROGRAM.pack(*self)


class Section(NamedTuple):
    """Elf64_Shdr; a dump has section 0 at most, and that only for `info`."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    """sh_size: in section 0 the number of sections."""
    link: int
    info: int
    """sh_info: in section 0 the number of program headers."""
    alignment: int
    entry_size: int

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        return _SECTION.pack(*self)


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A PT_LOAD program header: a piece of physical memory, and where it is in the file."""

    address: int
    """Physical address, bytes."""
    file_size: int
    """Bytes in the file."""
    memory_size: int
    """Bytes of memory; what is beyond `file_size` was left out."""
    offset: int
    """Offset in the file, bytes."""
    virtual: int
    """Virtual address, 0 where the writer did not know it."""


def recognised(start: bytes) -> bool:
    """Tell whether a file that starts so is an ELF file."""
    return start[:4] == MAGIC


class ElfDump(PagedDump):
    """An ELF core of a kernel."""

    format = "elf"
    compression = "none"
    dump_level = None

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.header = _read_header(source)
        self.machine = Machine.named(MACHINES.get(self.header.machine, f"number {self.header.machine}"),
                                     where=f"{source.name}, e_machine")
        self.incomplete = bool(self.header.flags & INCOMPLETE)
        loads, note_extents, self.implausible = _read_programs(source, self.header)
        self.segments = sorted(loads)
        """The PT_LOADs, by physical address."""
        # `implausible`: offsets of program headers that were passed over, since no memory can lie there.
        if not self.segments and self.implausible:
            raise DamagedDump("no ELF program header is right", where=f"{source.name} at {self.implausible[0]:#x}",
                              why=f"all {len(self.implausible)} lie outside of any memory")
        if not self.segments:
            raise DumpFormatError("the ELF file has no memory in it", where=source.name,
                                  why="there is no PT_LOAD program header",
                                  mend="a vmlinux is not a dump; give the vmcore")
        self.note_extents = note_extents
        """(offset, size) of each PT_NOTE, as the headers claim."""
        self.notes = _read_notes(source, note_extents)
        self._choose_vmcoreinfo(None)
        self._extents: Extents | None = None
        """The same as arrays, made when many pages are read."""
        self._starts = [segment.address for segment in self.segments]
        self._count_pages()

    def _count_pages(self) -> None:
        self.page_size = self._find_page_size()
        self.max_pfn = max(-(-(segment.address + segment.memory_size) // self.page_size)
                           for segment in self.segments)
        self.pages_present = sum(len(pages) for pages in self.present())

    def _find_page_size(self) -> int:
        try:
            size = self.vmcoreinfo.page_size
        except KdumpyError:
            return 4096  # without VMCOREINFO nothing tells; right for x86-64 and most of arm64
        if size not in PAGE_SIZES:
            raise DamagedDump(f"page size {size} in VMCOREINFO", where=self.source.name,
                              why="4096, 16384 and 65536 exist")
        return size

    def segment_at(self, address: int) -> Segment | None:
        """Return the segment whose bytes in the file hold a physical address."""
        # Segments may overlap (QEMU, x86 low memory given twice): look a few back.
        index = bisect_right(self._starts, address) - 1
        for candidate in self.segments[max(index - 3, 0):index + 1][::-1]:
            if candidate.address <= address < candidate.address + candidate.file_size:
                return candidate
        return None

    def has_page(self, pfn: int) -> bool:
        """Tell whether the file has a place for the whole page."""
        address = pfn * self.page_size
        segment = self.segment_at(address)
        return segment is not None and address + self.page_size <= segment.address + segment.file_size

    def present(self) -> Iterator[range]:
        """Yield the page frame numbers held whole, as rising ranges; bytes at a segment's ragged end do not count."""
        run = range(0)
        for segment in self.segments:
            start = max(-(-segment.address // self.page_size), run.stop)
            stop = (segment.address + segment.file_size) // self.page_size
            if stop <= start:
                continue
            if start > run.stop:
                if run:
                    yield run
                run = range(start, stop)
            else:
                run = range(run.start, stop)
        if run:
            yield run

    @property
    def cut(self) -> list[Segment]:
        """Segments whose data lies, in part at least, beyond the end of the file."""
        return [one for one in self.segments if one.file_size and one.offset + one.file_size > self.source.size]

    def check_extent(self, address: int, size: int) -> None:
        """Refuse more than the file holds, too: a damaged program header claims any size."""
        if size > self.source.size:
            raise self._missing(address // self.page_size, f"{size} bytes were wanted, more than the file has")
        super().check_extent(address, size)

    def _page(self, pfn: int) -> bytes:
        return self.read_physical(pfn * self.page_size, self.page_size)

    def read_physical(self, address: int, size: int) -> bytes:
        """Return `size` bytes of physical memory at `address`."""
        segment = self.segment_at(address)
        if segment is not None and size >= 0:
            start = address - segment.address
            if start + size <= segment.file_size:
                return self.source.read(segment.offset + start, size)
        self.check_extent(address, size)
        parts = []
        while size:
            segment = self.segment_at(address)
            if segment is None:
                raise self._missing(address // self.page_size, "it was left out, or is not memory")
            start = address - segment.address
            length = min(size, segment.file_size - start)
            parts.append(self.source.read(segment.offset + start, length))
            address += length
            size -= length
        return b"".join(parts)

    def page(self, pfn: int) -> bytes:
        """Return one whole page; the operating system caches the file."""
        return self._page(pfn)

    def read_pages(self, pfns: Sequence[int] | NDArray[np.integer],
                   missing: Literal["raise", "zero"] = "raise") -> NDArray[np.uint8]:
        """Return whole pages, shape (n, page_size), in the order asked for; see `kdumpy.dumpfile.elfbulk`."""
        from kdumpy.dumpfile.elfbulk import Extents, read_elf_pages
        if self._extents is None:
            self._extents = Extents(self)
        return read_elf_pages(self, self._extents, pfns, missing)


def _read_header(source: Source) -> Header:
    if source.size < _HEADER.size:
        raise DamagedDump("the ELF header is cut short", where=source.name,
                          why=f"the file has {source.size} bytes")
    header = Header._make(_HEADER.unpack(source.read(0, _HEADER.size)))
    machine = MACHINES.get(header.machine, f"number {header.machine}")
    if header.ident[4] != _CLASS64 or header.ident[5] != _LITTLE_ENDIAN:
        bits = {1: "32-bit", 2: "64-bit"}.get(header.ident[4], "unknown-class")
        order = {1: "little-endian", 2: "big-endian"}.get(header.ident[5], "unknown-order")
        raise DumpFormatError(f"{bits} {order} ELF dumps are not supported", where=source.name,
                              why="64-bit little-endian ones (x86_64, aarch64) are", mend="open it with crash")
    if header.kind != _ET_CORE:
        raise DumpFormatError("the ELF file is not a core dump", where=f"{source.name}, e_type {header.kind}",
                              why=f"it is a program or library for {machine}",
                              mend="give the vmcore, not the vmlinux")
    if header.program_size != _PROGRAM.size:
        raise DamagedDump(f"ELF program headers of {header.program_size} bytes", where=f"{source.name}, e_phentsize",
                          why=f"they have {_PROGRAM.size}")
    return header


def _read_programs(source: Source, header: Header) -> tuple[list[Segment], list[tuple[int, int]], list[int]]:
    count = header.programs
    if count == PN_XNUM:
        if header.section_size != _SECTION.size:
            raise DamagedDump(f"ELF section headers of {header.section_size} bytes",
                              where=f"{source.name}, e_shentsize", why=f"they have {_SECTION.size}")
        section = Section._make(_SECTION.unpack(source.read(header.section_offset, _SECTION.size)))
        count = section.info
    if count > _MOST_PROGRAMS:
        raise DamagedDump(f"{count} ELF program headers", where=f"{source.name}, sh_info of section 0",
                          why=f"more than {_MOST_PROGRAMS} are not believed")
    table = source.read(header.program_offset, count * _PROGRAM.size)
    loads, notes, implausible = [], [], []
    for number, values in enumerate(_PROGRAM.iter_unpack(table)):
        kind, _flags, offset, virtual, physical, file_size, memory_size, _align = values
        if kind == _PT_LOAD:
            memory_size = max(memory_size, file_size)
            if physical + memory_size > MAX_PHYSICAL or offset + file_size >= 1 << 63:
                implausible.append(header.program_offset + number * _PROGRAM.size)
                continue
            loads.append(Segment(physical, file_size, memory_size, offset, virtual))
        elif kind == _PT_NOTE:
            notes.append((offset, file_size))
    return loads, notes, implausible


def _read_notes(source: Source, extents: list[tuple[int, int]]) -> tuple[Note, ...]:
    """Return what can be read of the notes; health tells of what cannot."""
    notes: list[Note] = []
    for offset, size in extents:
        size = min(size, max(source.size - offset, 0), LARGEST)
        if size:
            notes += parse_notes(source.read(offset, size))
    return tuple(notes)
