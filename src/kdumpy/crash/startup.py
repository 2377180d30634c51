"""The files of commands that a session begins with, as crash does with ~/.crashrc and ./.crashrc."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def startup_files() -> Iterator[tuple[Path, str]]:
    """Yield (file, why it is not run), the reason empty for those that are: kdumpy's own, ~/.crashrc, ./.crashrc.

    A file can run programs (`!…`), so one that others could have written is not run: it must be the user's own (or
    root's), and writable by nobody else. Whoever opens a dump in a stranger's folder runs nothing of the stranger's.
    """
    home = Path("~").expanduser()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kdumpy" / "crashrc"
    seen: set[Path] = set()
    for path in (config, home / ".crashrc", Path(".crashrc")):
        try:
            real = path.resolve()
            status = real.stat()
        except OSError:
            continue
        if real in seen or not stat.S_ISREG(status.st_mode):
            continue
        seen.add(real)
        if status.st_uid not in (os.getuid(), 0):
            yield path, "it belongs to another user"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield path, "others can write to it"
        else:
            yield path, ""
