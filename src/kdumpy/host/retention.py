"""Which crashes are removed: too many, too old, too little room. The newest is never one of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host.crashes import Crash, find
from kdumpy.host.settings import Retention
from kdumpy.host.system import System

_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Removal:
    """A crash that goes, and why."""

    crash: Crash
    why: str


def choose(system: System, places: tuple[str, ...], rules: Retention, now: float) -> list[Removal]:
    """Return the crashes that the rules remove, oldest first.

    Args:
        system: the host.
        places: directories that dumps are saved to.
        rules: of the settings.
        now: seconds since 1970.

    Raises:
        HostError: a directory cannot be read.
    """
    try:
        # A folder that holds no dump and no log of a crash is not ours to remove.
        crashes = [crash for crash in find(system, places) if crash.state != "nothing"]
    except OSError as error:
        raise HostError("cannot read the directory", where=str(error.filename or ""),
                        why=error.strerror or str(error)) from error
    removed: dict[str, Removal] = {}
    for number, crash in enumerate(crashes[1:], 1):
        days = (now - crash.at) / _DAY_S
        if rules.keep and number >= rules.keep:
            removed[crash.path] = Removal(crash, f"{rules.keep} newer ones are kept")
        elif rules.max_age_days and days > rules.max_age_days:
            removed[crash.path] = Removal(crash, f"{days:.0f} days old, {rules.max_age_days} are allowed")
    for removal in _for_room(system, places, rules, crashes, removed):
        removed[removal.crash.path] = removal
    return sorted(removed.values(), key=lambda removal: removal.crash.at)


def _for_room(system: System, places: tuple[str, ...], rules: Retention, crashes: list[Crash],
              removed: dict[str, Removal]) -> Iterator[Removal]:
    """Yield, oldest first, what has to go until enough of each file system is free."""
    for place in places:
        path = system.path(place)
        if not path.is_dir():
            continue
        room = os.statvfs(path)
        free = room.f_bavail * room.f_frsize
        wanted = room.f_blocks * room.f_frsize * rules.min_free_percent // 100
        here = [crash for crash in crashes if crash.path.startswith(f"{place.rstrip('/')}/")]
        free += sum(crash.bytes for crash in here if crash.path in removed)
        for crash in reversed(here):
            if free >= wanted:
                break
            if crash is not crashes[0] and crash.path not in removed:
                free += crash.bytes
                yield Removal(crash, f"less than {rules.min_free_percent} % of {place}'s file system are free")


def remove(system: System, removal: Removal) -> None:
    """Remove a crash's folder.

    Raises:
        HostError: something of it cannot be removed.
    """
    try:
        shutil.rmtree(system.path(removal.crash.path))
    except OSError as error:
        raise HostError("cannot remove the dump", where=removal.crash.path,
                        why=error.strerror or str(error)) from error
