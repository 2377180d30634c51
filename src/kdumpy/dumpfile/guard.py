"""What must hold before a file is given to the engine's C code (drgn, libkdumpfile).

libkdumpfile maps extents that a header claims without asking whether the file is that long (SIGBUS), and both
take sizes on trust. Corruptions of every byte of a real dump's headers were tried against drgn 0.3.0; each one
that killed it, hung it or made it eat memory is refused here. Truncated dumps pass as far as their headers are
whole; where a page's descriptor leads out of the file (`why_unsafe`), memory is read by our own reader.
"""

from __future__ import annotations

from pathlib import Path

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.elf import ElfDump
from kdumpy.dumpfile.flattened import FlattenedSource
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.notes import LARGEST as LARGEST_NOTES
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.opening import open_dump
from kdumpy.dumpfile.splitset import SplitDump
from kdumpy.dumpfile.vmcoreinfo import LARGEST, PAGE_SIZES
from kdumpy.errors import DamagedDump


def check_for_engine(path: str | Path) -> None:
    """Raise DumpFormatError or DamagedDump when a file could crash, hang or exhaust the engine."""
    with open_dump(path) as dump:
        check(dump)


def check(dump: Dump) -> None:
    """Do the same for a dump that is open."""
    if isinstance(dump.source, FlattenedSource) and dump.source.damage:
        raise _refuse(dump, "the flattened stream ends early", dump.source.damage)
    if isinstance(dump, SplitDump):
        for part in dump.parts:
            check(part)
    if isinstance(dump, KdumpDump):
        _check_kdump(dump)
    elif isinstance(dump, ElfDump):
        _check_elf(dump)
    _check_vmcoreinfo(dump)


def why_unsafe(dump: Dump) -> str:
    """Return why the engine must not read a dump's pages by itself, though all else is sound; empty where it may.

    libkdumpfile maps what a page's descriptor speaks of: beyond the end of the file that is a SIGBUS.
    """
    if not isinstance(dump, KdumpDump):     # drgn reads ELF itself, by pread
        return ""
    found = dump.survey
    if found.shift or not found.strays:
        return found.shifted
    return f"the descriptors of {found.strays} of {dump.bitmap.count} pages lead out of the file"


def _refuse(dump: Dump, what: str, why: str, at: int | None = None) -> DamagedDump:
    where = dump.source.name if at is None else f"{dump.source.name} at {at:#x}"
    return DamagedDump(what, where=where, why=why,
                       mend="the kernel log may still be read: kdumpy log")


def _check_extent(dump: Dump, name: str, offset: int, size: int, largest: int) -> None:
    if offset + size > dump.source.size:
        raise _refuse(dump, f"the {name} lies beyond the end of the file",
                      f"{size} bytes are claimed, the file ends at {dump.source.size:#x}", offset)
    if size > largest:
        raise _refuse(dump, f"the {name} is too large", f"{size} bytes are claimed", offset)


def _check_kdump(dump: KdumpDump) -> None:
    sub = dump.sub_header
    _check_extent(dump, "note section", sub.offset_note, sub.size_note, LARGEST_NOTES)
    _check_extent(dump, "VMCOREINFO", sub.offset_vmcoreinfo, sub.size_vmcoreinfo, LARGEST)
    _check_extent(dump, "erase information", sub.offset_eraseinfo, sub.size_eraseinfo, LARGEST_NOTES)


def _check_elf(dump: ElfDump) -> None:
    for offset, size in dump.note_extents:
        _check_extent(dump, "note section", offset, size, LARGEST_NOTES)


def _check_vmcoreinfo(dump: Dump) -> None:
    info = dump.vmcoreinfo
    if not info:
        return
    if info.page_size not in PAGE_SIZES:
        raise _refuse(dump, f"page size {info.page_size} in VMCOREINFO", "4096, 16384 and 65536 exist")
    if dump.machine is Machine.AARCH64:
        bits = info.number("VA_BITS", 48)
        if not 36 <= bits <= 52:
            raise _refuse(dump, f"virtual addresses of {bits} bits in VMCOREINFO", "36 to 52 exist")
