"""Open a dump that may be damaged in its headers, or lack its VMCOREINFO, and say what was made good."""

from __future__ import annotations

from pathlib import Path

from kdumpy.dumpfile import elf, flattened
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.flattened import FlattenedSource
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.kdumpheader import DESCRIPTOR_SIZE, check_descriptor
from kdumpy.dumpfile.opening import open_source
from kdumpy.dumpfile.salvage import find_vmcoreinfo
from kdumpy.dumpfile.source import FileSource, Source
from kdumpy.errors import DamagedDump, DumpFormatError, KdumpyError, NotInDump

_SMALLEST = 1 << 16
"""Bytes; what is smaller holds no memory."""
_LOOKED_AT = 256
"""Descriptors that tell whether the headers lead to the table."""


def open_damaged(path: str | Path) -> tuple[Dump, list[str]]:
    """Open one file (or part of a split set) as well as it can be; return what was made good, in words.

    Raises:
        HostError: it cannot be read.
        DumpFormatError, DamagedDump: it is no dump, or nothing can be made of it.
    """
    source: Source = FileSource(path)
    try:
        return _open(source)
    except BaseException:
        source.close()
        raise


def _open(source: Source) -> tuple[Dump, list[str]]:
    told: list[str] = []
    start = source.read(0, min(32, source.size))
    try:
        dump = open_source(source)
        if isinstance(dump, KdumpDump) and not _leads_to_descriptors(dump):
            raise DamagedDump("the header does not lead to the page descriptors", where=source.name)
        if isinstance(dump, KdumpDump) and not dump.notes:
            raise DamagedDump("the header does not lead to the notes", where=source.name)
    except (DamagedDump, DumpFormatError) as error:
        unsupported = "not supported" in error.what and "machine" not in error.what
        if elf.recognised(start) or source.size < _SMALLEST or "archive" in error.what or unsupported:
            raise
        try:
            dump, told = _with_new_headers(source, start, error)
        except KdumpyError:
            if "notes" not in error.what:
                raise
            dump = open_source(source)      # as it is: there are none to be found
    if not dump.vmcoreinfo:
        found = find_vmcoreinfo(dump)
        if found is not None:
            dump.adopt_vmcoreinfo(found)
            told.append(f"its VMCOREINFO was found in the kernel's memory ({found.where.rpartition(', ')[2]})")
        else:
            told.append("it has no VMCOREINFO, and none was found in its memory")
    return dump, told


def _with_new_headers(source: Source, start: bytes, error: KdumpyError) -> tuple[Dump, list[str]]:
    from kdumpy.dumpfile.rebuildheader import mended
    inner: Source = FlattenedSource(source) if flattened.recognised(start) else source
    try:
        patched, told = mended(inner)
        return KdumpDump(patched), told
    except KdumpyError:
        raise error from None


def _leads_to_descriptors(dump: KdumpDump) -> bool:
    """Whether most of the first descriptors are right, or the file ends (or was never written) before them."""
    try:
        count = min(dump.bitmap.count, _LOOKED_AT, (dump.source.size - dump.descriptors_offset) // DESCRIPTOR_SIZE)
        wrong = 0
        for one in dump.descriptors(0, max(count, 0)):
            try:
                check_descriptor(one, dump.block_size, "")
                wrong += one.offset < dump.descriptors_offset or bool(one.page_flags)
            except DamagedDump:
                wrong += bool(one.offset or one.size)
    except (KdumpyError, NotInDump):
        return False
    return wrong * 2 <= count or count <= 0
