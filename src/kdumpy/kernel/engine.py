"""The engine over a dump: drgn's own reader, or ours where that one refuses the file."""

from __future__ import annotations

from pathlib import Path

import drgn
from drgn import Architecture, Platform

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.guard import why_unsafe
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.splitset import SplitDump
from kdumpy.errors import DamagedDump, DumpFormatError, KdumpyError

_ARCHITECTURES = {Machine.X86_64: Architecture.X86_64, Machine.AARCH64: Architecture.AARCH64}


def open_program(path: Path, dump: Dump) -> tuple[drgn.Program, str]:
    """Return a program on the dump, and why drgn's own reader could not be used (empty when it is).

    Raises:
        DumpFormatError: the dump is not one of a Linux kernel.
        DamagedDump: neither reader can use it.
    """
    if isinstance(dump, SplitDump):  # drgn opens one file, and would miss the other parts' pages
        return _over_our_reader(dump), "drgn does not read split sets"
    unsafe = why_unsafe(dump)
    if unsafe:
        return _over_our_reader_at_last(path, dump, unsafe)
    prog = drgn.Program()
    try:
        prog.set_core_dump(str(path))
    except Exception as error:      # drgn and libkdumpfile raise whatever fits; each is a file they cannot use
        return _over_our_reader_at_last(path, dump, str(error).splitlines()[0] if str(error) else type(error).__name__)
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise DumpFormatError("not a dump of a Linux kernel", where=str(path),
                              why="it has no VMCOREINFO: a process's core, or a guest without -device vmcoreinfo")
    return prog, ""


def _over_our_reader_at_last(path: Path, dump: Dump, refusal: str) -> tuple[drgn.Program, str]:
    """Return a program over our reader, and why drgn's own cannot be used.

    Raises:
        DamagedDump: its VMCOREINFO is of no use, or lacking: both readers need it.
    """
    if not dump.vmcoreinfo:
        raise DamagedDump("the dump cannot be opened", where=str(path), why=refusal)
    try:
        return _over_our_reader(dump), refusal
    except READ_ERRORS as error:
        raise DamagedDump("the dump cannot be opened", where=str(path), why=refusal) from error


def _over_our_reader(dump: Dump) -> drgn.Program:
    """Let drgn read physical memory through `Dump.read_physical`: slower, and for every format that we read."""
    prog = drgn.Program(Platform(_ARCHITECTURES[dump.machine]))

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return dump.read_physical(address, count)
        except KdumpyError as error:
            # Told once a place where something is missing: in short, health tells of the file.
            raise drgn.FaultError(error.what if isinstance(error, DamagedDump) else str(error), address) from error

    # The memory first: plugins, ours among them where drgn has loaded it before, look at it as soon as it is a kernel.
    prog.add_memory_segment(0, dump.max_pfn * dump.page_size, read, physical=True)
    prog.set_linux_kernel_custom(dump.vmcoreinfo.raw, False)
    return prog
