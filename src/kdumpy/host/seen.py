"""The crashes that lay on this host once: /var/lib/kdumpy/crashes.json.

A dump that somebody has removed, or that lies where dumps do not go any more, was left all the same.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from kdumpy.errors import HostError
from kdumpy.host.crashes import Crash
from kdumpy.host.images import STATE
from kdumpy.host.system import System

PATH = f"{STATE}/crashes.json"

_KEPT = 32


@dataclass(frozen=True, slots=True)
class Seen:
    """A crash's folder as it was found first, at the boot after the crash."""

    path: str
    """The folder."""
    at: float
    """Seconds since 1970, as `Crash.at`."""
    state: str
    """As `Crash.state`."""
    dump: str = ""
    """The dump's path, whole or not."""
    cause: str = ""
    """By the log beside it."""


def all_of(system: System) -> tuple[Seen, ...]:
    """Return all that is known, the newest first; nothing where the file is damaged.

    Raises:
        HostError: it is there and may not be read.
    """
    text = system.read(PATH)
    try:
        known = [Seen(**values) for values in json.loads(text or "[]")]
        return tuple(sorted(known, key=lambda one: float(one.at), reverse=True))
    except (ValueError, TypeError):
        return ()


def remember(system: System, found: Iterable[Crash], cause_of: Callable[[Crash], str] = lambda crash: "") -> None:
    """Add crashes that are not known yet; that it cannot be written keeps nothing from being told."""
    with contextlib.suppress(OSError, HostError):
        known = all_of(system)
        paths = {one.path for one in known}
        new = [Seen(crash.path, crash.at, crash.state, crash.dump, cause_of(crash)) for crash in found
               if crash.path not in paths]
        if not new:
            return
        kept = sorted((*new, *known), key=lambda one: one.at, reverse=True)[:_KEPT]
        path = system.path(PATH)
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps([asdict(one) for one in kept], indent=1) + "\n")
        partial.chmod(0o600)
        partial.replace(path)
