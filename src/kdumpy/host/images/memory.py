"""What memory a capture kernel takes with an image: the kernel, its files, and the capture or the opening of a key."""

from __future__ import annotations

KERNEL = 40 << 20
"""Bytes that the capture kernel itself takes of a small reservation, seen on Debian's 6.1: 192 MiB leave 152."""

CAPTURE = 80 << 20
"""Bytes of the capture program at most, and what it needs of the page cache beside."""


def needed(packed: int, unpacked: int, unlock: int = 0) -> int:
    """Return the bytes of memory that are needed at the worst moment.

    Args:
        packed: the image as it lies in memory until it is unpacked: then it is there twice.
        unpacked: its files.
        unlock: what opening an encrypted device takes, which ends before the capture begins.
    """
    return KERNEL + unpacked + max(packed, CAPTURE, unlock)
