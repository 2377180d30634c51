"""DWARF, where it is at hand: it adds lines, inlined functions and local variables.

Given by hand, found at the standard paths (/usr/lib/debug, /lib/modules/RELEASE/...), or fetched
from the debuginfod servers that `DEBUGINFOD_URLS` names, which is done only when asked for,
because a kernel's file has hundreds of megabytes.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
from collections.abc import Sequence
from pathlib import Path

import drgn

from kdumpy.errors import NotInDump, UsageError


class Dwarf(enum.Enum):
    """Where to look for DWARF that was not given by hand."""

    AUTO = "auto"
    """At the standard paths."""
    FETCH = "fetch"
    """At the standard paths, then from debuginfod."""
    NO = "no"
    """Nowhere."""


def _standard_paths(release: str) -> tuple[Path, ...]:
    # Source: drgn's and crash's documented search paths for vmlinux.
    return (Path("/usr/lib/debug/boot") / f"vmlinux-{release}", Path("/boot") / f"vmlinux-{release}",
            Path("/usr/lib/debug/lib/modules") / release / "vmlinux", Path("/lib/modules") / release / "vmlinux",
            Path("/lib/modules") / release / "build" / "vmlinux")


def load(prog: drgn.Program, release: str, build_id: str | None, files: Sequence[Path], where: Dwarf) -> list[str]:
    """Load DWARF and return the files that are in use; nothing found is an empty list.

    Raises:
        UsageError: a file given by hand does not exist, or no server is named to fetch from.
        NotInDump: a file given by hand does not belong to this kernel, or has no DWARF.
    """
    for file in files:
        if not file.is_file():
            what = "not a file" if file.exists() else "no such file"
            raise UsageError(what, where=str(file), mend="give a vmlinux with debug symbols")
    mend = f"it must be of {release}, build id {build_id or 'unknown'}, and have debug symbols"
    # drgn knows the modules by the kernel's own types: a module's file is of use behind the kernel's only.
    files = sorted(files, key=_is_module)
    if files and _is_module(files[0]):
        mend = "a module's file is used beside the kernel's own: --vmlinux VMLINUX --vmlinux MODULE.ko"
    for file in files:
        try:
            prog.load_debug_info([str(file)])
        except Exception as error:      # drgn raises a bare Exception for an ELF file that it cannot read
            if str(file.resolve()) not in _loaded(prog):
                raise NotInDump("this file of debug symbols cannot be used", where=str(file),
                                why=str(error).splitlines()[0], mend=mend) from error
        if str(file.resolve()) not in _loaded(prog):
            raise NotInDump("this file does not belong to the dump, or has no debug symbols", where=str(file),
                            mend=mend)
    if files:
        return _loaded(prog)
    if where is Dwarf.FETCH and not os.environ.get("DEBUGINFOD_URLS"):
        raise UsageError("there is no server to fetch debug symbols from", mend="set DEBUGINFOD_URLS")
    if where is Dwarf.NO:
        return []
    at_standard = any(path.is_file() for path in _standard_paths(release)) or (
        build_id is not None and Path(f"/usr/lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug").is_file())
    if at_standard or (where is Dwarf.FETCH and os.environ.get("DEBUGINFOD_URLS")):
        finders = [name for name in prog.enabled_debug_info_finders() if at_standard or name != "standard"]
        if where is not Dwarf.FETCH:
            finders = [name for name in finders if name != "debuginfod"]
        prog.set_enabled_debug_info_finders(finders)
        with contextlib.suppress(drgn.MissingDebugInfoError):   # of some modules; what was found is in use
            prog.load_default_debug_info()
    return _loaded(prog)


def _is_module(file: Path) -> bool:
    return ".ko" in file.suffixes


def _loaded(prog: drgn.Program) -> list[str]:
    return [module.debug_file_path for module in prog.modules() if module.debug_file_path]


def how_to_get(prog: drgn.Program) -> str:
    """Return in words how to get the DWARF of a dump's kernel: which package, which build id."""
    release = prog["UTS_RELEASE"].string_().decode("ascii", "replace")
    found = re.search(rb"^BUILD-ID=([0-9a-f]+)$", prog["VMCOREINFO"].string_(), re.M)
    build_id = f", build id {found[1].decode()}" if found else ""
    return (f"install {package_of(release)}{build_id}, or give --vmlinux FILE; "
            "where DEBUGINFOD_URLS names servers, --dwarf fetch gets them")


def package_of(release: str) -> str:
    """Return the name of the package that brings a kernel's DWARF."""
    if re.search(r"\+deb\d|-(amd64|arm64)$", release):
        return f"linux-image-{release}-dbg"
    if release.endswith(("-generic", "-lowlatency", "-aws", "-azure", "-gcp")):
        return f"linux-image-unsigned-{release}-dbgsym"
    if ".el" in release or ".fc" in release:
        return f"kernel-debuginfo-{release}"
    return f"the debuginfo package of kernel {release}"
