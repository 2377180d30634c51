"""Open a dump: the format is told by what the file holds, never by its name."""

from __future__ import annotations

import re
from pathlib import Path

from kdumpy.dumpfile import elf, flattened, kdump
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.mapped import PROC_VMCORE, MappedSource
from kdumpy.dumpfile.source import FileSource, Source
from kdumpy.errors import DamagedDump, DumpFormatError

_START = 32
"""Bytes that tell the formats apart."""

_OTHERS = {
    b"\xfd7zXZ\0": "an xz archive", b"\x1f\x8b": "a gzip archive", b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"BZh": "a bzip2 archive", b"PK\3\4": "a zip archive", b"LPKSHHRH": "a SUSE LKCD dump",
    b"sadump": "a sadump", b"\xd2\xbe\xd2\xbe": "a VMware snapshot", b"QEVM": "a QEMU migration stream",
}

_AGE = b"age-encryption.org/"
_PGP = re.compile(rb"(?s)\x84.\x03|\x85..\x03|\xc1[\0-\xbf][\x03\x06]|\xc1[\xc0-\xdf].[\x03\x06]")
"""A packet with a session key for a public key. Source: RFC 9580, sections 4.2 and 5.1."""


def open_dump(path: str | Path, *more: str | Path) -> Dump:
    """Open a dump for reading; the caller closes it (or uses `with`).

    A split set is one dump: name all of its parts, or one whose siblings lie beside it under the same name with
    another number (vmcore-1, vmcore-2, …). A part whose siblings are not found is opened alone.
    DumpFormatError when it is no dump that is supported, DamagedDump when its headers cannot be used.
    """
    dump = open_one(path)
    if not more and not (isinstance(dump, kdump.KdumpDump) and dump.split):
        return dump
    from kdumpy.dumpfile import splitset
    opened: list[Dump] = [dump]
    try:
        if more:
            for other in more:
                opened.append(open_one(other))
        elif isinstance(dump, kdump.KdumpDump):
            opened += splitset.siblings(Path(path), dump, open_one)
        return splitset.join(opened) if len(opened) > 1 else dump
    except BaseException:
        for one in opened:
            one.close()
        raise


def open_one(path: str | Path) -> Dump:
    """Open one file, a part of a split set too."""
    source = MappedSource(path) if Path(path) == PROC_VMCORE else FileSource(path)
    try:
        return open_source(source)
    except BaseException:
        source.close()
        raise


def open_source(source: Source) -> Dump:
    """Open a dump whose bytes come from `source`."""
    start = source.read(0, min(_START, source.size))
    stream = flattened.recognised(start)
    if stream:
        source = flattened.FlattenedSource(source)
        start = source.read(0, min(_START, source.size))
    dump: elf.ElfDump | kdump.KdumpDump
    if kdump.recognised(start):
        dump = kdump.KdumpDump(source)
    elif elf.recognised(start):
        dump = elf.ElfDump(source)
    else:
        raise _unknown(source, start)
    if stream:
        dump.format += " flattened"
    return dump


def _unknown(source: Source, start: bytes) -> DumpFormatError | DamagedDump:
    if not start:
        return DamagedDump("the file is empty", where=source.name, why="nothing was captured, or the disk was full")
    if not any(start):
        return DamagedDump("the file starts with zeros", where=source.name,
                           why="the capture stopped before it wrote the header")
    other = next((name for magic, name in _OTHERS.items() if start.startswith(magic)), "")
    if start.startswith(_AGE) or _PGP.match(start):
        age = start.startswith(_AGE)
        return DumpFormatError(f"this is encrypted with {'age' if age else 'OpenPGP'}", where=source.name,
                               mend="decrypt it first: " + ("age --decrypt -i KEYFILE" if age else "gpg --decrypt"))
    if "archive" in other:
        return DumpFormatError(f"this is {other}", where=source.name, mend="unpack it first")
    if other:
        return DumpFormatError(f"this is {other}, which is not supported", where=source.name,
                               mend="open it with crash")
    return DumpFormatError("not a dump", where=source.name,
                           why=f"it starts with {start[:8].hex(' ')}, which no supported format does",
                           mend="give an ELF or kdump-compressed vmcore")
