"""How the boot before this one ended: by a shutdown, or not.

Source: utmp(5), systemd-update-utmp(8); wtmpdb(8), which replaces the file where time has 64 bits; journald, which
renames a journal that was not closed to `…~`.
"""

from __future__ import annotations

import platform
import re
import struct
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host.system import System

WTMP = ("/var/log/wtmp", "/run/log/wtmp")
WTMPDB = "/var/lib/wtmpdb/wtmp.db"

RUN_LVL, BOOT_TIME = 1, 2

_RECORDS = 4096
"""Of the file's end."""

_SLACK_S = 900
"""The clock may be set between the kernel's start and the record of it."""


@dataclass(frozen=True, slots=True)
class BootEnd:
    """The boot before this one."""

    began: float | None
    """Seconds since 1970."""
    clean: bool | None
    """It was shut down; None: nothing tells."""
    source: str
    """What tells it."""


def boot_time(system: System) -> float:
    """Return when this boot began, in seconds since 1970; 0: unknown."""
    found = re.search(r"^btime (\d+)$", system.value("/proc/stat") or "", re.MULTILINE)
    return float(found[1]) if found else 0.0


def last_end(system: System) -> BootEnd:
    """Return how the last boot ended."""
    began = boot_time(system)
    for path in WTMP:
        events = _wtmp(system, path)
        if events:
            return _judge(events, began, path)
    events = _wtmpdb(system)
    if events:
        return _judge(events, began, WTMPDB)
    return _by_journal(system, began)


def _judge(events: list[tuple[float, str]], began: float, source: str) -> BootEnd:
    """Look at what stands between the last boot's record and this one's."""
    boots = [number for number, (_at, kind) in enumerate(events) if kind == "boot"]
    if boots and events[boots[-1]][0] < began - _SLACK_S:
        boots.append(len(events))       # this boot has written no record of itself
    if len(boots) < 2:
        return BootEnd(None, None, source)
    before, here = boots[-2], boots[-1]
    clean = any(kind == "shutdown" for _at, kind in events[before:here])
    return BootEnd(events[before][0], clean, source)


def _wtmp(system: System, path: str) -> list[tuple[float, str]]:
    """Return boots and shutdowns. Source: bits/utmp.h; 32 bits of time where 32-bit programs share the file."""
    wide = (system.value("/proc/sys/kernel/arch") or platform.machine()) in ("aarch64", "riscv64", "loongarch64")
    size, time_at, word = (400, 344, "<q") if wide else (384, 340, "<i")
    place = system.path(path)
    try:
        with place.open("rb") as file:
            whole = place.stat().st_size // size
            file.seek(max(whole - _RECORDS, 0) * size)
            data = file.read(_RECORDS * size)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError("cannot read the file", where=path, why=error.strerror or str(error)) from error
    events = []
    for offset in range(0, len(data) - size + 1, size):
        kind = struct.unpack_from("<h", data, offset)[0]
        user = data[offset + 44:offset + 76].split(b"\0")[0]
        at = float(struct.unpack_from(word, data, offset + time_at)[0])
        if kind == BOOT_TIME:
            events.append((at, "boot"))
        elif kind == RUN_LVL and user == b"shutdown":
            events.append((at, "shutdown"))
    return events


def _wtmpdb(system: System) -> list[tuple[float, str]]:
    """Return boots and shutdowns: a boot's row gets its logout time at the shutdown."""
    if not system.path(WTMPDB).is_file():
        return []
    import sqlite3  # only newer distributions have such a file

    try:
        with sqlite3.connect(f"file:{system.path(WTMPDB)}?mode=ro&immutable=1", uri=True, timeout=1) as database:
            rows = database.execute("SELECT Login, Logout FROM wtmp WHERE Type = 1 ORDER BY Login").fetchall()
    except sqlite3.Error:
        return []
    events = []
    for login, logout in rows:
        events.append((login / 1e6, "boot"))
        if logout:
            events.append((logout / 1e6, "shutdown"))
    return events


def _by_journal(system: System, began: float) -> BootEnd:
    """Look for a journal that was not closed, and set aside when this boot began."""
    for path in system.glob("/var/log/journal/*/system@*.journal~"):
        status = system.path(path).stat()
        if began and status.st_mtime < began and status.st_ctime >= began - 5:
            return BootEnd(None, False, path)
    return BootEnd(None, None, "")
