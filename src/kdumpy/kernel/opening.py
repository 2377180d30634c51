"""From a path to a `Kernel`: the file is checked before the engine sees it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdumpy.debuginfo.dwarf import Dwarf
from kdumpy.kernel.kernel import Kernel

_KNOWN = ("drgn", "kdumpy")
"""Packages whose plugins are known."""


def open_kernel(path: str | os.PathLike[str], *, vmlinux: Sequence[str | os.PathLike[str]] = (),
                dwarf: Dwarf = Dwarf.AUTO, commands: bool = True) -> Kernel:
    """Open a dump of a kernel.

    From then on drgn's helpers end, in this process, where a damaged list, tree or path would lead them in a circle.

    Args:
        path: an ELF, kdump-compressed or flattened vmcore.
        vmlinux: files with DWARF, the kernel's and its modules', given by hand.
        dwarf: where else to look for DWARF.
        commands: whether drgn's own commands (`drgn.commands`) are to be had; drgn loads them with the first program
            of a process, or never.

    Raises:
        DumpFormatError: the file is no dump, or of a kind that is not supported.
        DamagedDump: the file is a dump, too damaged to be opened.
        UsageError, NotInDump: a file in `vmlinux` is missing or of another kernel.
    """
    from kdumpy.debuginfo import attach
    from kdumpy.debuginfo import dwarf as dwarf_files
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.health import check_for_engine
    from kdumpy.kernel.circles import guard_lists
    from kdumpy.kernel.directmap import mend_direct_map, mend_image
    from kdumpy.kernel.engine import open_program
    from kdumpy.kernel.registers import saved_registers

    guard_lists()
    place = Path(path)
    check_for_engine(place)
    dump = open_dump(place)
    try:
        # Ours is attached below, once, and after DWARF; the others' are mostly about where to find DWARF.
        ours = "kdumpy" if commands else "kdumpy,builtin_commands,crash_commands"
        none = (dwarf is Dwarf.NO and not vmlinux) or not (commands or _plugins_of_others())
        with _without_plugins("*" if none else ours):
            prog, refusal = open_program(place, dump)
        image = mend_image(prog, dump)
        info = dump.vmcoreinfo
        files = dwarf_files.load(prog, info.osrelease or "", info.build_id, [Path(file) for file in vmlinux], dwarf)
    except BaseException:
        dump.close()
        raise
    attached = attach.attach(prog, saved_registers)
    attached.dwarf = files
    kernel = Kernel(place, dump, prog, attached)
    if mend_direct_map(prog, dump) or image:
        kernel.problems["page tables"] = "some are lost; what they map is read by its address alone, slower"
    if refusal:
        kernel.problems["engine"] = f"read by kdumpy's own reader, slower: {refusal}"
    return kernel


def _plugins_of_others() -> bool:
    """Tell whether a package beside drgn and kdumpy may have plugins of drgn's, without the 20 ms that asking takes."""
    for place in map(Path, sys.path):
        if place.is_file():
            return True             # an archive, which may hold anything
        for points in place.glob("*-info/entry_points.txt"):
            if points.parent.name.partition("-")[0] not in _KNOWN:
                with contextlib.suppress(OSError):
                    if b"[drgn.plugins]" in points.read_bytes():
                        return True
    return False


@contextlib.contextmanager
def _without_plugins(which: str) -> Iterator[None]:
    """Keep drgn from loading plugins: those that a pattern of DRGN_DISABLE_PLUGINS names, and the user's choice."""
    name = "DRGN_DISABLE_PLUGINS"
    before = os.environ.get(name)
    os.environ[name] = which if not before or which == "*" else f"{before},{which}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
