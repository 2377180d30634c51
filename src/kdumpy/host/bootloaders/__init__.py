"""Boot loaders, one file each: what the next boot's command line is, and the changes that set a parameter in it."""

from __future__ import annotations

from kdumpy.host.bootloaders.base import BootLoader
from kdumpy.host.system import System

__all__ = ["BootLoader", "detect"]


def detect(system: System) -> BootLoader | None:
    """Return the boot loader that starts this system, or None when it is none that is known."""
    return None
