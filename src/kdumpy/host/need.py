"""How much reserved memory image and capture take: as a rehearsal measured it, else as estimated."""

from __future__ import annotations

from dataclasses import dataclass

from kdumpy.host import rehearsed
from kdumpy.host.images import memory
from kdumpy.host.images.memory import KERNEL
from kdumpy.host.images.result import BuiltImage
from kdumpy.host.system import System

__all__ = ["GROW", "KERNEL", "Need", "look", "measured"]

GROW = "set a larger crashkernel in /etc/kdumpy.toml (or `auto`), run `kdumpy setup`, reboot"
"""What mends a reservation that is too small."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the reservation has to hold."""

    bytes: int
    """With this much a dump is saved."""
    least: int
    """With less the capture kernel does not even get to its first program, or a rehearsal failed."""
    measured: bool
    """By a rehearsal."""

    @property
    def told(self) -> str:
        """Where the figure comes from."""
        return "a rehearsal needed" if self.measured else "kernel and image need about"


def measured(system: System, release: str, image: BuiltImage | None) -> int | None:
    """Return the bytes that a rehearsal found to be the smallest safe reservation; None: none was rehearsed.

    A rehearsal's disk is not encrypted: what a key takes beside the image, before the capture begins, is added.
    """
    found = rehearsed.need(system, release)
    if found is None or image is None or not image.unlock:
        return found
    return max(found, KERNEL + image.unpacked + image.unlock)


def look(system: System, release: str, image: BuiltImage | None) -> Need | None:
    """Return what a kernel's capture takes; None: nothing was rehearsed, and there is no image to estimate by.

    Args:
        system: the host.
        release: the capture kernel's.
        image: the capture image, where it was built.
    """
    found = measured(system, release, image)
    if found is not None:
        return Need(found, found, measured=True)
    if image is None:
        return None
    # A kernel gives an image's files half of its memory at most; without what its key takes the target stays closed.
    return Need(memory.needed(image.bytes, image.unpacked, image.unlock),
                KERNEL + image.unpacked + max(image.unpacked, image.unlock), measured=False)
