"""What is told of the slab allocator: caches, slabs, what CPUs keep, objects."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cache:
    """A struct kmem_cache."""

    address: int
    name: str
    object_size: int
    """Bytes that the user asked for."""
    size: int
    """Bytes from one object to the next."""
    offset: int
    """Where in a free object the pointer to the next stands."""
    random: int | None
    """What these pointers are mixed with (CONFIG_SLAB_FREELIST_HARDENED); None without."""
    red_left_pad: int
    """Bytes before the first object."""
    slab_bytes: int
    """Bytes of a slab, as new ones are made."""


@dataclass(frozen=True)
class CpuSlab:
    """What a CPU keeps of a cache for itself."""

    cpu: int
    address: int
    """Of its struct kmem_cache_cpu, or slub_percpu_sheaves."""
    slab: int
    """Address of the struct slab in use; 0 for none."""
    free: tuple[int, ...]
    """Free objects of that slab, or in the CPU's sheaves."""
    partial: tuple[int, ...]
    """Addresses of its partial slabs."""
    problem: str


@dataclass(frozen=True)
class Heads:
    """Every slab of the machine; all arrays have the shape (n,)."""

    slab: NDArray[np.uint64]
    """Address of its struct slab (struct page)."""
    memory: NDArray[np.uint64]
    """Address of its first byte, in the direct map."""
    cache: NDArray[np.uint64]
    """Address of its kmem_cache."""
    freelist: NDArray[np.uint64]
    inuse: NDArray[np.int64]
    objects: NDArray[np.int64]
    node: NDArray[np.int64]
    frozen: NDArray[np.bool_]
    unreadable: int
    """Struct pages that the dump does not hold."""

    def of(self, cache: int) -> NDArray[np.int64]:
        """Return the rows of one cache's slabs."""
        return np.flatnonzero(self.cache == np.uint64(cache))


@dataclass
class Objects:
    """The objects of some slabs of one cache."""

    free: NDArray[np.bool_]
    """Shape (n, objects): on the slab's own list of free objects."""
    problems: list[str] = field(default_factory=list)
