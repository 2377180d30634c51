"""Rebuild an ELF vmcore of what is left of one: program headers that speak of more than the file holds are cut.

The pages stay where they are; only the tables before them are written anew, and notes that were not there before
go behind the end.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kdumpy.dumpfile.elf import HEADER_SIZE, INCOMPLETE, PN_XNUM, PROGRAM_SIZE, ElfDump, Program
from kdumpy.dumpfile.kdumpwriter import notes_to_write
from kdumpy.dumpfile.notes import pack_notes
from kdumpy.dumpfile.patched import PatchedSource
from kdumpy.dumpfile.sink import Sink
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.storedcopy import Progress

_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION_INFO = 44
"""Offset of sh_info in a section header."""
_FLAGS_AT = 48
"""Offset of e_flags in the ELF header."""
_PT_NULL, _PT_LOAD, _PT_NOTE = 0, 1, 4
_PIECE = 8 << 20


class ElfLosses(NamedTuple):
    """What an ELF dump says it holds and does not."""

    bytes: int
    """Of memory, beyond the end of the file."""
    extents: list[tuple[int, int]]
    """(physical address, bytes) of it."""
    headers: int
    """Program headers that are impossible, whose memory is lost."""
    notes: int
    """Bytes of notes beyond the end of the file."""


def rebuild_elf(dump: ElfDump, sink: Sink, progress: Progress | None = None) -> tuple[int, ElfLosses]:
    """Write what is there of a dump as a whole one, marked incomplete when memory is lost; return its size."""
    source = dump.source
    patches, losses = _patches(dump)
    patched = PatchedSource(source, patches)
    for at in range(0, patched.size, _PIECE):
        size = min(_PIECE, patched.size - at)
        sink.write_at(at, patched.read(at, size))
        if progress is not None:
            page = dump.page_size
            progress((at + size) // page, patched.size // page, at + size)
    sink.sync()
    return patched.size, losses


def _patches(dump: ElfDump) -> tuple[dict[int, bytes], ElfLosses]:
    source, header = dump.source, dump.header
    count = _programs(source, dump)
    table = bytearray(source.read(header.program_offset, count * PROGRAM_SIZE))
    extents: list[tuple[int, int]] = []
    impossible, notes_lost = len(dump.implausible), 0
    note_at: list[int] = []
    for number in range(count):
        at = number * PROGRAM_SIZE
        program = Program._make(_PROGRAM.unpack_from(table, at))
        held = max(min(program.file_size, source.size - program.offset), 0)
        if header.program_offset + at in dump.implausible:
            table[at:at + PROGRAM_SIZE] = program._replace(kind=_PT_NULL).pack()
        elif program.kind == _PT_LOAD and held < program.file_size:
            extents.append((program.physical + held, program.file_size - held))
            offset = program.offset if held else 0
            table[at:at + PROGRAM_SIZE] = program._replace(file_size=held, offset=offset).pack()
        elif program.kind == _PT_NOTE:
            note_at.append(at)
            notes_lost += program.file_size - held
    patches: dict[int, bytes] = {}
    had = any(note.name == "VMCOREINFO" for note in dump.notes)
    if note_at and (notes_lost or (dump.vmcoreinfo and not had)):
        # All notes that can be read, behind the end, aligned as notes are.
        data = pack_notes(notes_to_write(dump))[0]
        end = -(-source.size // 4) * 4
        patches[source.size] = bytes(end - source.size) + data
        for number, at in enumerate(note_at):
            program = Program._make(_PROGRAM.unpack_from(table, at))
            where = (end, len(data)) if number == 0 else (0, 0)
            table[at:at + PROGRAM_SIZE] = program._replace(
                kind=_PT_NULL if number else _PT_NOTE, offset=where[0], file_size=where[1],
                memory_size=where[1]).pack()
    patches[header.program_offset] = bytes(table)
    lost = sum(size for _address, size in extents)
    flags = header.flags | (INCOMPLETE if lost or impossible else 0)
    start = bytearray(source.read(0, HEADER_SIZE))
    start[_FLAGS_AT:_FLAGS_AT + 4] = flags.to_bytes(4, "little")
    patches[0] = bytes(start)
    return patches, ElfLosses(lost, extents, impossible, notes_lost)


def _programs(source: Source, dump: ElfDump) -> int:
    """Return the number of program headers; `ElfDump` has checked that they are all in the file."""
    if dump.header.programs != PN_XNUM:
        return dump.header.programs
    return int.from_bytes(source.read(dump.header.section_offset + _SECTION_INFO, 4), "little")
