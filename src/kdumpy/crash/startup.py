"""What a session begins with: files of commands, as crash does with ~/.crashrc and ./.crashrc, and extensions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kdumpy.errors import KdumpyError

ENTRY_POINTS = "kdumpy.crash_commands"
"""The group of entry points that installed packages give commands by."""


def startup_files() -> Iterator[tuple[Path, str]]:
    """Yield (file, why it is not run), the reason empty for those that are: kdumpy's own, ~/.crashrc, ./.crashrc.

    A file can run programs (`!…`), so one that others could have written is not run: it must be the user's own (or
    root's), and writable by nobody else. Whoever opens a dump in a stranger's folder runs nothing of the stranger's:
    a link there must be the user's own too, for it may lead to what is root's and says what the stranger wants
    (/proc/PID/cmdline of a program that runs as root).
    """
    home = Path("~").expanduser()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kdumpy" / "crashrc"
    seen: set[Path] = set()
    for path in (config, home / ".crashrc", Path(".crashrc")):
        real = path.resolve()
        if real not in seen and real.is_file():
            seen.add(real)
            yield path, _distrust(path)


def _distrust(path: Path) -> str:
    """Return why a file may not be run; empty where it may."""
    try:
        status, link = path.stat(), path.lstat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "it is no file"
    if link.st_uid not in (os.getuid(), 0):
        return "it belongs to another user"
    if status.st_uid not in (os.getuid(), 0):
        return "it leads to a file of another user"
    return "others can write to it" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def load_packages() -> Iterator[str]:
    """Load the commands of installed packages; yield what went wrong.

    A package names its command (an object, or a module with COMMAND or COMMANDS) as an entry point of the group
    `kdumpy.crash_commands`. To look through all packages takes longer than to open a dump: it is done for a command
    that is not known, `help`, `extend` and completion.
    """
    from importlib.metadata import entry_points

    from kdumpy.crash.commands.extend import add

    for point in entry_points(group=ENTRY_POINTS):
        try:
            add(point.load(), f"{point.value} ({point.dist.name if point.dist else 'a package'})")
        except Exception as error:      # of somebody else's code, of whatever kind
            yield f"the extension {point.name} ({point.value}) is not loaded: {error}"


def load_extensions() -> Iterator[str]:
    """Load the commands of the files in the extensions' folder; yield what went wrong.

    A file that others could have written is not loaded.
    """
    from kdumpy.crash.commands.extend import folder, load

    if not folder().is_dir():
        return
    status = folder().stat()
    trusted = status.st_uid in (os.getuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    for path in sorted(folder().glob("*.py")):
        refusal = _distrust(path) if trusted else "others can write to its folder"
        if refusal:
            yield f"{path}: not loaded: {refusal}"
            continue
        try:
            load(path)
        except KdumpyError as error:
            yield f"{error}"
