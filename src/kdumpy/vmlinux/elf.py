"""An ELF executable written section by section: contents that are at hand, and room for those that come later.

Source: the ELF-64 specification.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from kdumpy.dumpfile.elf import HEADER_SIZE, PROGRAM_SIZE, SECTION_SIZE, Header, Program, Section
from kdumpy.dumpfile.sink import Buffer, Sink, flat_bytes

_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
"""64-bit, little endian, ELF version 1, System V."""
_ET_EXEC, _EV_CURRENT = 2, 1
_PT_LOAD, _PT_NOTE = 1, 4
_PAGE = 4096
EM_X86_64 = 62


class Kind(enum.IntEnum):
    """SHT_*: what a section holds."""

    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    NOTE = 7
    NOBITS = 8
    """Nothing: it is room in memory."""


class Flag(enum.IntFlag):
    """SHF_*: what a section is for."""

    NONE = 0
    WRITE = 1
    ALLOC = 2
    CODE = 4


_READ, _WRITE, _EXECUTE = 4, 2, 1


@dataclass
class Placed:
    """A section, and where it lies in the file."""

    name: str
    kind: Kind
    flags: Flag
    address: int
    size: int
    """Bytes, in memory where it is NOBITS, else in the file too."""
    offset: int = 0
    """In the file, bytes."""
    physical: int = 0
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_size: int = 0


class ElfFile:
    """The file: header | program headers | sections, those in memory at whole pages | section headers."""

    def __init__(self, groups: Sequence[Sequence[Placed]], others: Sequence[Placed], *, entry: int) -> None:
        """Lay the file out.

        Args:
            groups: sections in memory; those of a group follow each other without a gap.
            others: sections that are not loaded; their `link` counts from the first of them.
            entry: the physical address at which the kernel starts.
        """
        self._groups = groups
        self._entry = entry
        self.sections = [placed for group in groups for placed in group] + list(others)
        """In the order of the section headers, which begin with an empty one."""
        self._loaded = len(self.sections) - len(others)
        self._names, name_table = _name_table([placed.name for placed in self.sections] + [".shstrtab"])
        self._name_section = Placed(".shstrtab", Kind.STRTAB, Flag.NONE, 0, len(name_table))
        self._name_table = name_table
        self._programs = len(groups) + any(placed.kind == Kind.NOTE for placed in self.sections)
        at = HEADER_SIZE + self._programs * PROGRAM_SIZE
        for group in groups:
            at = -(-at // _PAGE) * _PAGE + group[0].address % _PAGE
            for placed in group:
                placed.offset = at
                at += 0 if placed.kind == Kind.NOBITS else placed.size
        for placed in [*others, self._name_section]:
            at = -(-at // placed.alignment) * placed.alignment
            placed.offset = at
            at += placed.size
        self._headers_at = -(-at // 8) * 8
        self.size = self._headers_at + (len(self.sections) + 2) * SECTION_SIZE
        """Bytes of the file."""

    def number(self, placed: Placed) -> int:
        """Return the number by which symbols name a section."""
        return self.sections.index(placed) + 1

    def write_headers(self, sink: Sink) -> None:
        """Write all that is not a section's contents."""
        notes = [placed for placed in self.sections if placed.kind == Kind.NOTE and placed.address]
        programs = [self._segment(group) for group in self._groups]
        programs += [Program(_PT_NOTE, _READ, placed.offset, placed.address, placed.physical, placed.size, placed.size,
                             4) for placed in notes]
        header = Header(_IDENT, _ET_EXEC, EM_X86_64, _EV_CURRENT, self._entry, HEADER_SIZE, self._headers_at, 0,
                        HEADER_SIZE, PROGRAM_SIZE, len(programs), SECTION_SIZE, len(self.sections) + 2,
                        len(self.sections) + 1)
        sink.write_at(0, header.pack() + b"".join(program.pack() for program in programs))
        rows = [Section(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
        for placed, name in zip([*self.sections, self._name_section], self._names, strict=True):
            link = placed.link + self._loaded + 1 if placed.kind == Kind.SYMTAB else placed.link
            rows.append(Section(name, placed.kind, placed.flags, placed.address, placed.offset, placed.size, link,
                                placed.info, placed.alignment, placed.entry_size))
        sink.write_at(self._name_section.offset, self._name_table)
        sink.write_at(self._headers_at, b"".join(row.pack() for row in rows))

    def write(self, sink: Sink, placed: Placed, data: Buffer, offset: int = 0) -> None:
        """Write contents of a section, from `offset` in it on."""
        view = flat_bytes(data)
        assert offset + len(view) <= placed.size
        sink.write_at(placed.offset + offset, view)

    @staticmethod
    def _segment(group: Sequence[Placed]) -> Program:
        first, last = group[0], group[-1]
        flags = _READ
        flags |= _WRITE if any(placed.flags & Flag.WRITE for placed in group) else 0
        flags |= _EXECUTE if any(placed.flags & Flag.CODE for placed in group) else 0
        stored = sum(placed.size for placed in group if placed.kind != Kind.NOBITS)
        return Program(_PT_LOAD, flags, first.offset, first.address, first.physical, stored,
                       last.address + last.size - first.address, _PAGE)


def _name_table(names: Sequence[str]) -> tuple[list[int], bytes]:
    table, places = bytearray(b"\0"), []
    for name in names:
        places.append(len(table))
        table += name.encode() + b"\0"
    return places, bytes(table)
