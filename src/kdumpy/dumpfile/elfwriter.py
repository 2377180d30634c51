"""Write ELF vmcores: the sibling of `elf`, where the header's fields are explained.

The file: ELF header | program headers (PT_NOTE, then one PT_LOAD a run) | section 0, where there are 65,535
program headers or more | notes | padding to a page | the runs' pages, one run behind the other.

Source: the ELF-64 specification; makedumpfile write_elf_header() for the order and for the incomplete flag.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.elf import (
    HEADER_SIZE,
    INCOMPLETE,
    MACHINES,
    PN_XNUM,
    PROGRAM_SIZE,
    SECTION_SIZE,
    ElfDump,
    Header,
    Program,
    Section,
)
from kdumpy.dumpfile.kdumpwriter import erase_information, notes_to_write
from kdumpy.dumpfile.notes import Note, pack_notes
from kdumpy.dumpfile.sink import Sink, clear, is_one_way
from kdumpy.errors import UsageError

Run = tuple[int, int, int]
"""(first pfn, where the kept pages stop, where the memory behind them stops); what is between the last two was
left out."""

_IDENT: Final = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
"""64-bit, little endian, ELF version 1, System V."""
_ET_CORE, _EV_CURRENT = 4, 1
_PT_LOAD, _PT_NOTE = 1, 4
_READ_WRITE_EXECUTE = 7
_NO_ALIGNMENT = 0
"""p_align, as in /proc/vmcore; by any other value crash takes the file for a netdump (netdump.c, is_netdump())."""
_AT_A_TIME = 16384
"""Program headers made at a time."""
_KERNEL_TEXT = 0xffffffff80000000
"""From here on x86-64 has the kernel's image mapped a second time. Source: Documentation/arch/x86/x86_64/mm.rst."""


class ElfWriter:
    """An ELF core with one PT_LOAD a run. Order: `begin`, then the pages at `offset_of`, then `finish`.

    From `begin` to `finish` it is marked incomplete (e_flags, as makedumpfile does), a stream excepted.
    """

    def __init__(self, sink: Sink, origin: Dump, runs: Sequence[Run], *, eraseinfo: bytes = b"") -> None:
        """Prepare a dump of what `origin` is a dump of; `runs` are in rising order and do not overlap."""
        self.sink = sink
        self.page_size = origin.page_size
        self._origin = origin
        self._runs = runs
        erased = erase_information(origin, eraseinfo)
        notes = notes_to_write(origin) + ([Note("ERASEINFO", 0, erased)] if erased else [])
        self._notes = pack_notes(notes)[0]
        self._programs = 1 + len(runs)
        self._many = self._programs >= PN_XNUM
        section_at = HEADER_SIZE + self._programs * PROGRAM_SIZE
        self._section_at = section_at if self._many else 0
        self._notes_at = section_at + (SECTION_SIZE if self._many else 0)
        end = self._notes_at + len(self._notes)
        self.data_offset = -(-end // self.page_size) * self.page_size
        """In the file, bytes: where the first run's pages go; the others follow without gaps."""
        self._offsets = array("Q", [self.data_offset])
        self._lay_out()

    def _lay_out(self) -> None:
        at, before = self.data_offset, 0
        for first, kept_stop, memory_stop in self._runs:
            if not before <= first <= kept_stop <= memory_stop:
                raise UsageError("runs of pages overlap or go backwards",
                                 why=f"pages {first} to {kept_stop} (of {memory_stop}) follow {before}")
            at += (kept_stop - first) * self.page_size
            self._offsets.append(at)
            before = memory_stop

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self._offsets[-1]

    def offset_of(self, run: int) -> int:
        """Return where the pages of the run-th run go in the file, bytes."""
        return self._offsets[run]

    def begin(self) -> None:
        """Write everything that precedes the pages."""
        self._write_header(0 if is_one_way(self.sink) else INCOMPLETE)
        self._write_programs()
        if self._many:
            section = Section(0, 0, 0, 0, 0, size=1, link=0, info=self._programs, alignment=0, entry_size=0)
            self.sink.write_at(self._section_at, section.pack())
        self.sink.write_at(self._notes_at, self._notes.ljust(self.data_offset - self._notes_at, b"\0"))
        clear(self.sink, self.data_offset, self.end - self.data_offset)

    def _write_programs(self) -> None:
        at, size = HEADER_SIZE, self.page_size
        table = bytearray(Program(_PT_NOTE, 0, self._notes_at, 0, 0, len(self._notes), len(self._notes), 0).pack())
        virtual = _VirtualAddresses(self._origin)
        for number, (first, kept_stop, memory_stop) in enumerate(self._runs):
            address = first * size
            table += Program(_PT_LOAD, _READ_WRITE_EXECUTE, self._offsets[number], virtual.of(address), address,
                             (kept_stop - first) * size, (memory_stop - first) * size, _NO_ALIGNMENT).pack()
            if len(table) >= _AT_A_TIME * PROGRAM_SIZE:
                self.sink.write_at(at, table)
                at += len(table)
                table = bytearray()
        self.sink.write_at(at, table)

    def finish(self, *, incomplete: bool = False) -> None:
        """Write the header again, without the mark unless the dump stays incomplete; the sink stays open."""
        if incomplete or not is_one_way(self.sink):
            self._write_header(INCOMPLETE if incomplete else 0)

    def _write_header(self, flags: int) -> None:
        machine = next(number for number, name in MACHINES.items() if name == self._origin.machine.value)
        header = Header(
            ident=_IDENT, kind=_ET_CORE, machine=machine, version=_EV_CURRENT, entry=0, program_offset=HEADER_SIZE,
            section_offset=self._section_at, flags=flags, header_size=HEADER_SIZE, program_size=PROGRAM_SIZE,
            programs=min(self._programs, PN_XNUM), section_size=SECTION_SIZE if self._many else 0,
            sections=int(self._many), names=0)
        self.sink.write_at(0, header.pack())


class _VirtualAddresses:
    """Where the origin says that its memory is mapped: the direct map, by which makedumpfile and crash find it."""

    def __init__(self, origin: Dump) -> None:
        dump = getattr(origin, "dump", origin)  # a dump that hides secrets has the real one below
        self._segments = [one for one in dump.segments if 0 < one.virtual < _KERNEL_TEXT] \
            if isinstance(dump, ElfDump) else []
        self._at = 0

    def of(self, address: int) -> int:
        """Return the virtual address of a physical one, 0 when the origin does not tell; addresses must rise."""
        while self._at < len(self._segments):
            segment = self._segments[self._at]
            if address < segment.address:
                break
            if address < segment.address + segment.memory_size:
                return segment.virtual + address - segment.address
            self._at += 1
        return 0
