"""Reading and changing the files of boot loaders, so that what is not understood comes back as it was."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from kdumpy.errors import HostError
from kdumpy.host.bootloaders import parameters
from kdumpy.host.changes import FileChange, write
from kdumpy.host.system import System

LARGEST = 1 << 20
"""Bytes of a file that is edited. A grub.cfg of hundreds of entries has 200,000, and is only read."""


def text_of(system: System, name: str) -> str | None:
    """Return a file's text so that `changed` gives back its bytes, or None when it is not there.

    Raises:
        HostError: it cannot be read, is too large to be such a file, or is no text.
    """
    data = system.read_bytes(name)
    if data is None:
        return None
    if len(data) > LARGEST:
        raise HostError("the file is too large to be edited", where=name, why=f"{len(data)} bytes or more",
                        mend="it should hold settings alone")
    if b"\0" in data:
        raise HostError("the file is no text", where=name, why=f"a zero byte at offset {data.index(0)}")
    return data.decode(errors="surrogateescape")


def changed(system: System, name: str, text: str, why: str) -> tuple[FileChange, ...]:
    """Return the change that gives a file this text; of a symbolic link, the file that it names is changed."""
    return write(system, real(system, name), text.encode(errors="surrogateescape"), why)


def real(system: System, name: str) -> str:
    """Return a file's path with the links of its last part followed: a link is not to become a file."""
    for _ in range(20):
        path = system.root / name.lstrip("/")
        if not path.is_symlink():
            return name
        name = os.path.normpath(PurePosixPath(name).parent / path.readlink())
    raise HostError("too many symbolic links", where=name)


def one_line(system: System, name: str, changes: dict[str, str | None], why: str) -> tuple[FileChange, ...]:
    """Return the change to a file that holds a command line alone, such as /etc/kernel/cmdline.

    Lines that start with `#` are comments; the parameters may be on several lines. Nothing when it is not there.
    """
    text = text_of(system, name)
    if text is None:
        return ()
    lines = text.splitlines(keepends=True) or [""]
    for parameter, value in changes.items():
        set_in_lines(lines, [at for at, line in enumerate(lines) if not line.startswith("#")], parameter, value)
    return changed(system, name, "".join(lines), why)


def set_in_lines(lines: list[str], usable: list[int], name: str, value: str | None, skip: int = 0) -> bool:
    """Set a parameter in one of several lines of a command line, where it is already or in the last; not elsewhere.

    Args:
        lines: changed in place.
        usable: indices of those that hold parameters.
        name: the parameter's.
        value: what it becomes; None removes it.
        skip: letters at a line's start that are not of the command line.

    Returns: whether there is a line to hold it.
    """
    holding = [at for at in usable if parameters.values(lines[at][skip:], name)]
    home = holding[-1] if holding else usable[-1] if usable else None
    for at in {*holding, *([home] if home is not None else [])}:
        wanted = value if at == home else None
        lines[at] = lines[at][:skip] + parameters.edit(lines[at][skip:], name, wanted)
    return home is not None
