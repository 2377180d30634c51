"""Shared libraries: what an ELF program needs beside it in an image, without running it.

Source: the System V ABI (program headers, dynamic section) and ld.so(8) (search order).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import HostError

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29

DEFAULT_DIRECTORIES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64")
"""Searched last, as the loader does; multiarch directories come from ld.so.conf."""


@dataclass(frozen=True)
class Dynamic:
    """What an ELF file says of its needs."""

    machine: tuple[int, int]
    """ELF class (1: 32 bits, 2: 64) and e_machine: a library must have the same."""
    needed: tuple[str, ...] = ()
    """DT_NEEDED: names, or paths when they hold a slash."""
    search: tuple[str, ...] = ()
    """DT_RUNPATH or DT_RPATH, with $ORIGIN unexpanded."""
    interpreter: str | None = None
    """The loader, such as /lib64/ld-linux-x86-64.so.2; None for libraries and static programs."""


def closure(programs: list[Path], root: Path = Path("/"), without: Collection[str] = ()) -> tuple[Path, ...]:
    """Return the loader and all libraries that the programs need, as paths below `root`.

    Paths are the ones the loader will look for (links are not resolved), without
    `root` in front. Libraries that are opened at run time (dlopen) cannot be seen.
    Those named in `without` are left out, and so is what only they need.

    Raises:
        HostError: a file is not ELF, or a library is not found.
    """
    directories = _configured_directories(root) + list(DEFAULT_DIRECTORIES)
    found: dict[Path, None] = {}
    queue: list[tuple[Path, tuple[str, ...]]] = [(Path("/", program), ()) for program in programs]
    seen: set[Path] = set()
    while queue:
        path, inherited = queue.pop(0)
        if path in seen:
            continue
        seen.add(path)
        dynamic = read_dynamic(_below(root, path))
        if dynamic.interpreter:
            found.setdefault(Path(dynamic.interpreter))
        own = tuple(_expand(entry, path) for entry in dynamic.search)
        for name in dynamic.needed:
            if name in without:
                continue
            library = _locate(name, [*own, *inherited, *directories], dynamic.machine, root)
            if library is None:
                raise HostError("shared library not found", where=str(path), why=name,
                                mend="install the package that holds it")
            found.setdefault(library)
            queue.append((library, own + inherited))
    return tuple(found)


def find(name: str, program: Path, root: Path = Path("/")) -> Path | None:
    """Return the library that a program's DT_NEEDED entry stands for, or None."""
    dynamic = read_dynamic(_below(root, program))
    own = [_expand(entry, program) for entry in dynamic.search]
    return _locate(name, [*own, *_configured_directories(root), *DEFAULT_DIRECTORIES], dynamic.machine, root)


def read_dynamic(path: Path) -> Dynamic:
    """Read the needs of an ELF file.

    Raises:
        HostError: the file is not a little- or big-endian ELF file, or is cut short.
    """
    data = path.read_bytes()
    if data[:4] != b"\x7fELF" or len(data) < 52 or data[4] not in (1, 2) or data[5] not in (1, 2):
        raise HostError("not an ELF file", where=str(path), why=f"it begins with {data[:4]!r}")
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError) as error:
        raise HostError("damaged ELF file", where=str(path), why=str(error)) from error


def _parse(data: bytes) -> Dynamic:
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"
    machine = (data[4], struct.unpack_from(order + "H", data, 18)[0])
    header = struct.Struct(order + ("IIQQQQQQ" if wide else "IIIIIIII"))
    table = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)[0]
    entry_bytes, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    interpreter = None
    for index in range(count):
        fields = header.unpack_from(data, table + index * entry_bytes)
        kind = fields[0]
        # p_flags moved between the classes: type flags offset vaddr … / type offset vaddr …
        offset, address, size = (fields[2], fields[3], fields[5]) if wide else (fields[1], fields[2], fields[4])
        if kind == PT_LOAD:
            loads.append((address, offset, size))
        elif kind == PT_DYNAMIC:
            dynamic = (offset, size)
        elif kind == PT_INTERP:
            interpreter = _string(data, offset)
    if dynamic is None:
        return Dynamic(machine, interpreter=interpreter)
    pair = struct.Struct(order + ("qQ" if wide else "iI"))
    tags = [pair.unpack_from(data, dynamic[0] + at) for at in range(0, dynamic[1], pair.size)]
    strings = next((value for tag, value in tags if tag == DT_STRTAB), None)
    if strings is None:
        return Dynamic(machine, interpreter=interpreter)
    base = next(offset + strings - address for address, offset, size in loads
                if address <= strings < address + size)
    needed = tuple(_string(data, base + value) for tag, value in tags if tag == DT_NEEDED)
    paths = {tag: _string(data, base + value) for tag, value in tags if tag in (DT_RPATH, DT_RUNPATH)}
    search = paths.get(DT_RUNPATH, paths.get(DT_RPATH, ""))
    return Dynamic(machine, needed, tuple(filter(None, search.split(":"))), interpreter)


def _string(data: bytes, offset: int) -> str:
    return data[offset:data.index(b"\0", offset)].decode()


def _expand(entry: str, program: Path) -> str:
    origin = str(program.parent)
    return entry.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _locate(name: str, directories: list[str], machine: tuple[int, int], root: Path) -> Path | None:
    candidates = [Path(name)] if "/" in name else [Path(directory, name) for directory in directories]
    for candidate in candidates:
        path = Path(os.path.normpath(Path("/", candidate)))
        file = _below(root, path)
        if file.is_file() and _machine(file) == machine:
            return path
    return None


def _machine(path: Path) -> tuple[int, int] | None:
    """Return class and machine of an ELF file, or None: a 32-bit namesake must be skipped."""
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    return head[4], struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]


def _configured_directories(root: Path, name: str = "/etc/ld.so.conf") -> list[str]:
    """Return the directories of ld.so.conf, with its `include` lines followed."""
    directories: list[str] = []
    try:
        text = _below(root, Path(name)).read_text()
    except OSError:
        return directories
    for raw in text.splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("include"):
            pattern = Path("/etc", line.split(None, 1)[1]).relative_to("/")
            for file in sorted(root.glob(str(pattern))):
                directories += _configured_directories(root, "/" + os.path.relpath(file, root))
        elif line and not line.startswith("hwcap"):
            directories.append(line)
    return directories
