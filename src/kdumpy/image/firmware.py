"""Firmware: the files that kernel modules ask for, as they name them themselves.

Source: modinfo's `firmware` fields; Documentation/driver-api/firmware/fw_search_path.rst of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kdumpy.image.modules import read_module

SUFFIXES = ("", ".zst", ".xz")
"""The kernel unpacks them by itself, where it was built to; else the distribution ships them plain."""

_FIELD = re.compile(rb"(?<![^\0])firmware=([^\0]+)\0")


def names(module: bytes) -> tuple[str, ...]:
    """Return the firmware that a module (its ELF contents) may ask for."""
    return tuple(dict.fromkeys(found.decode(errors="replace") for found in _FIELD.findall(module)))


def files(modules: Iterable[Path], release: str, root: Path) -> tuple[tuple[str, Path], ...]:
    """Return (path in the image, file) of the firmware that modules ask for and that is installed below `root`."""
    found: dict[str, Path] = {}
    for module in modules:
        for name in names(read_module(module)):
            for folder in (f"updates/{release}", "updates", release, "."):
                place = root / "lib" / "firmware" / folder
                for path in (place / f"{name}{suffix}" for suffix in SUFFIXES):
                    if path.is_file() and ".." not in Path(name).parts:
                        found.setdefault(f"lib/firmware/{path.relative_to(root / 'lib' / 'firmware')}", path)
    return tuple(sorted(found.items()))
