"""The checks of `kdumpy status`, one file each: what has to hold so that the next panic leaves a dump.

A further one is a module with `ESSENTIAL` and `look(facts) -> Answer`, its row in CHECKS, and its test.
"""

from __future__ import annotations

import importlib
from typing import cast

from kdumpy.errors import KdumpyError
from kdumpy.host.checks.base import Answer, Check, Facts, Verdict, unknown

__all__ = ["CHECKS", "Answer", "Facts", "Verdict", "ask"]

CHECKS = {
    "configuration": "/etc/kdumpy.toml is there and right",
    "kernel": "the kernel can be told of a crash, and tells of itself",
    "reservation": "memory is reserved for the capture kernel",
    "loaded": "the capture kernel is loaded, and it is the one that is wanted",
    "image": "the capture image fits kernel, configuration and targets",
    "memory": "the reservation is enough for image and capture",
    "target": "a target is there and can be written to",
    "space": "the estimated dump finds room",
    "panic": "the kernel panics when it was configured to",
    "watchdog": "no watchdog resets the machine while it captures",
    "service": "the capture kernel is loaded at each boot",
    "next-boot": "memory is reserved at the next boot, too",
    "security": "secure boot and lockdown let the capture kernel be loaded",
    "conflict": "no other service loads a capture kernel",
    "retention": "dumps do not fill the disk",
    "last-crash": "the last crash left a dump",
}
"""A check's name, and what holds where it is ok, in the order in which they are shown."""


def ask(name: str, facts: Facts) -> Answer:
    """Run one check. One that fails is unknown, with the reason: the others go on."""
    try:
        return check(name).look(facts)
    except KdumpyError as error:
        what = f"{error.where}: {error.what}" if error.where else error.what
        return unknown(f"{what}: {error.why}" if error.why else what, error.mend or _as_root(facts))
    except OSError as error:
        return unknown(f"{error.filename}: {error.strerror}", _as_root(facts))


def check(name: str) -> Check:
    """Return a check by its name."""
    return cast(Check, importlib.import_module(f"{__name__}.{name.replace('-', '')}"))


def _as_root(facts: Facts) -> str:
    return "" if facts.privileged else "run it as root"
