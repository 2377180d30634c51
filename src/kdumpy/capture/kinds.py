"""What a page of the crashed machine was used for, and which uses each dump level leaves out.

The levels are makedumpfile's (makedumpfile(8), -d): bits 1 zero, 2 cache, 4 cache private, 8 user, 16 free.
Zero pages are known by their contents and so are no kind of their own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ZERO, NON_PRIVATE_CACHE, ALL_CACHE, USER_DATA, FREE_PAGES = 1, 2, 4, 8, 16
"""The bits of a dump level."""


class Kind(IntEnum):
    """The use of one page."""

    NOT_MEMORY = 0
    """The dump has no memory there."""
    KERNEL = 1
    """The kernel's own, or not known: no level leaves it out."""
    FREE = 2
    """In a free block of the buddy allocator."""
    CACHE = 3
    """Page cache without private data (file pages; clean or dirty)."""
    CACHE_PRIVATE = 4
    """Page cache with private data, such as buffer heads."""
    USER = 5
    """A process's anonymous memory, or a hugetlbfs page, used or in the pool."""
    HWPOISON = 6
    """Broken memory: reading it may raise a machine check, so no level keeps it."""
    OFFLINE = 7
    """Given back to the hypervisor (balloon, virtio-mem, Hyper-V): it has no contents, so no level keeps it."""
    UNACCEPTED = 8
    """Free, and never yet accepted by a confidential guest: reading it may end the guest."""


def left_out(level: int) -> NDArray[np.bool_]:
    """Return which kinds a dump level leaves out: shape (256,), indexed by kind."""
    import numpy as np
    table = np.zeros(256, np.bool_)
    # NOT_MEMORY is True, so that `~left_out(level)[kinds]` is exactly the set of pages to be kept.
    table[[Kind.NOT_MEMORY, Kind.HWPOISON, Kind.OFFLINE]] = True
    table[Kind.CACHE] = bool(level & (NON_PRIVATE_CACHE | ALL_CACHE))
    table[Kind.CACHE_PRIVATE] = bool(level & ALL_CACHE)
    table[Kind.USER] = bool(level & USER_DATA)
    table[[Kind.FREE, Kind.UNACCEPTED]] = bool(level & FREE_PAGES)
    return table
