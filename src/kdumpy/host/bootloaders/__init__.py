"""Boot loaders, one file each: what the next boot's command line is, and the changes that set a parameter in it.

A further one is a module with `detect(system) -> BootLoader | None` and its row in ORDER.
"""

from __future__ import annotations

import importlib

from kdumpy.host.bootloaders.base import BootLoader
from kdumpy.host.system import System

__all__ = ["ORDER", "BootLoader", "detect"]

ORDER = ("ostree", "zipl", "sdbootutil", "systemdboot", "bls", "grub", "extlinux", "raspberry")
"""Modules of this package in the order in which they are asked: the first that finds its own is it."""


def detect(system: System) -> BootLoader | None:
    """Return the boot loader that starts this system, or None when it is none that is known.

    Raises:
        HostError: a file of one is there and cannot be read.
    """
    for name in ORDER:
        found: BootLoader | None = importlib.import_module(f"{__name__}.{name}").detect(system)
        if found is not None:
            return found
    return None
