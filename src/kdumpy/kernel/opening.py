"""From a path to a `Kernel`: the file is checked before the engine sees it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kdumpy.debuginfo.dwarf import Dwarf
from kdumpy.errors import DamagedDump, DumpFormatError
from kdumpy.kernel.kernel import Kernel


def open_kernel(path: str | os.PathLike[str], *, vmlinux: Sequence[str | os.PathLike[str]] = (),
                dwarf: Dwarf = Dwarf.AUTO) -> Kernel:
    """Open a dump of a kernel.

    Args:
        path: an ELF, kdump-compressed or flattened vmcore.
        vmlinux: files with DWARF, the kernel's and its modules', given by hand.
        dwarf: where else to look for DWARF.

    Raises:
        DumpFormatError: the file is no dump, or of a kind that is not supported.
        DamagedDump: the file is a dump, too damaged to be opened.
        UsageError, NotInDump: a file in `vmlinux` is missing or of another kernel.
    """
    os.environ.setdefault("DRGN_DISABLE_PLUGINS", "kdumpy")     # attached below, once, and after DWARF
    import drgn

    from kdumpy.debuginfo import attach
    from kdumpy.debuginfo import dwarf as dwarf_files
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.health import check_for_engine

    place = Path(path)
    check_for_engine(place)
    dump = open_dump(place)
    prog = drgn.Program()
    try:
        prog.set_core_dump(str(place))
    except Exception as error:      # drgn and libkdumpfile raise whatever fits; each is a file they cannot use
        raise DamagedDump("the dump cannot be opened", where=str(place), why=str(error).splitlines()[0]) from error
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise DumpFormatError("not a dump of a Linux kernel", where=str(place),
                              why="it has no VMCOREINFO: a process's core, or a guest without -device vmcoreinfo")
    info = dump.vmcoreinfo
    files = dwarf_files.load(prog, info.osrelease or "", info.build_id, [Path(file) for file in vmlinux], dwarf)
    attached = attach.attach(prog, [status.registers for status in dump.prstatus])
    attached.dwarf = files
    return Kernel(place, dump, prog, attached)
