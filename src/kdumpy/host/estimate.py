"""How large a dump would be that was taken now: from the kernel's own counters, on the cautious side.

Source: Documentation/filesystems/proc.rst (meminfo); the dump levels as docs/which-pages.md has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdumpy.capture.config import CaptureConfig
from kdumpy.errors import HostError
from kdumpy.host import corehdr
from kdumpy.host.system import System

CACHE, USER, FREE = 2 | 4, 8, 16
"""Dump levels. Zero pages (1) are not counted anywhere: none are taken off."""

RATIOS = {"zstd": 2.5, "zlib": 2.3, "lzo": 1.8, "snappy": 1.8, "none": 1.0}
"""Bytes of memory for one of the dump. zstd: the least of 18 dumps of Debian guests at level 31 (2.5 to 20, half of
them above 3.9); others in proportion, as measured on one dump."""

_LINE = re.compile(r"^(\w+):\s+(\d+)(?: kB)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a dump would take now."""

    kept: int
    """Bytes of memory that it would hold."""
    bytes: int
    """Of the file, packed."""


def dump_now(system: System, config: CaptureConfig, memory: int, reserved: int) -> Estimate | None:
    """Estimate a dump of the memory as it is used now; None where /proc/meminfo is not there.

    Args:
        system: the host.
        config: level and compression.
        memory: bytes of RAM that the kernel knows of.
        reserved: bytes of it that are the capture kernel's, and not in the dump (`set_aside`).
    """
    counted = {name: int(value) for name, value in _LINE.findall(system.value("/proc/meminfo") or "")}
    if "MemTotal" not in counted:
        return None
    sizes = {name: value << 10 for name, value in counted.items()}
    huge = counted.get("HugePages_Total", 0) * sizes.get("Hugepagesize", 0)
    kept = max(memory - reserved, sizes["MemTotal"])
    if config.level & FREE:
        kept -= sizes.get("MemFree", 0)
    if config.level & CACHE == CACHE:
        kept -= sum(sizes.get(name, 0) for name in ("Buffers", "Cached", "SwapCached"))
    if config.level & USER:
        kept -= sizes.get("AnonPages", 0) + huge
    kept = max(kept, 0)
    ratio = RATIOS[config.compress] if config.format == "kdump" else 1.0
    return Estimate(kept, int(kept / ratio))


def set_aside(system: System, reserved: int) -> int:
    """Return the bytes that the capture kernel has: with `,high` there is a low part, too, that only root sees."""
    try:
        return max(reserved, sum(one.size for one in corehdr.crash_regions(corehdr.ranges(system))))
    except HostError:
        return reserved
