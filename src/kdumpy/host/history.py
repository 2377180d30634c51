"""What was loaded and unloaded when, over boots: /var/lib/kdumpy/history.json.

After a crash without a dump it says whether the capture kernel was there at all.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass

from kdumpy.errors import HostError
from kdumpy.host.images import STATE
from kdumpy.host.system import System

PATH = f"{STATE}/history.json"
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_KEPT = 32
"""Events; a machine whose udev reloads often has some a boot."""


@dataclass(frozen=True, slots=True)
class Event:
    """One load or unload."""

    boot: str
    """The boot's id, as the kernel made it up."""
    at: float
    """Seconds since 1970."""
    event: str
    """`loaded`, `unloaded`, `failed` (to load), or `kept` (it could not be unloaded)."""
    why: str = ""
    """Of a failure."""
    mend: str = ""
    reserved: int = 0
    """Bytes of reserved memory; 0: not known."""
    targets: tuple[str, ...] = ()
    """Where a crash of that boot would have been saved."""


def boot_id(system: System) -> str:
    """Return the running boot's id."""
    return system.value(BOOT_ID) or ""


def events(system: System) -> tuple[Event, ...]:
    """Return all that is known, the oldest first; nothing where the file is damaged.

    Raises:
        HostError: it is there and may not be read.
    """
    text = system.read(PATH)
    try:
        return tuple(Event(**{**values, "targets": tuple(values.get("targets", ()))})
                     for values in json.loads(text or "[]"))
    except (ValueError, TypeError, AttributeError):
        return ()


def last_of_boot(system: System, boot: str) -> Event | None:
    """Return a boot's last event."""
    return next((event for event in reversed(events(system)) if event.boot == boot), None)


def last_of_earlier_boots(system: System) -> Event | None:
    """Return the last event before this boot."""
    here = boot_id(system)
    return next((event for event in reversed(events(system)) if event.boot != here), None)


def last_targets(system: System) -> tuple[str, ...]:
    """Return the targets of what was loaded last, in whichever boot."""
    return next((event.targets for event in reversed(events(system)) if event.event == "loaded"), ())


def note(system: System, event: str, why: str = "", mend: str = "", reserved: int = 0,
         targets: tuple[str, ...] = ()) -> None:
    """Add an event; that it cannot be written keeps nothing from being loaded."""
    with contextlib.suppress(OSError, HostError):
        new = Event(boot_id(system), round(time.time(), 1), event, why, mend, reserved, targets)
        known = [*events(system), new]
        path = system.path(PATH)
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps([asdict(one) for one in known[-_KEPT:]], indent=1) + "\n")
        partial.replace(path)
