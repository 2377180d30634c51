"""Who holds the machine's memory; sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdumpy.diagnosis.facts.base import HEX


@dataclass(frozen=True)
class MemoryShare:
    """A use of memory."""

    name: str
    """free, reserved, processes, page cache, shared memory, slab reclaimable, slab unreclaimable, vmalloc, huge pages,
    per-cpu, kernel stacks, page tables, or other."""
    size: int
    """Bytes."""
    words: str
    """What that is."""


@dataclass(frozen=True)
class MemoryZone:
    """A zone of memory, and how what is free of it is split up."""

    node: int
    """NUMA node."""
    name: str
    """DMA, DMA32, Normal, ..."""
    present: int
    """Memory that is there."""
    managed: int
    """What of it the page allocator was given."""
    free: int
    """What of that is free."""
    low: int
    """Free memory below which the kernel begins to reclaim."""
    minimum: int
    """Free memory below which only emergencies are served."""
    free_blocks: tuple[int, ...]
    """Number of free blocks of each order (a block of order n has 2^n pages)."""


@dataclass(frozen=True)
class SlabShare:
    """A cache of kernel objects."""

    name: str
    """Its name."""
    size: int
    """Bytes of its slabs."""
    objects: int | None
    """Objects that its slabs have room for; null where the kernel does not count them."""
    object_size: int
    """Bytes of an object."""
    reclaimable: bool
    """The kernel can give its memory back under pressure."""


@dataclass(frozen=True)
class ProcessShare:
    """A process and its memory."""

    pid: int
    """The process."""
    comm: str
    """Its name."""
    anonymous: int
    """Its own memory that is resident."""
    file: int
    """Mapped file contents that are resident."""
    shared: int
    """Shared memory that is resident."""


@dataclass(frozen=True)
class OomKill:
    """A process that the out-of-memory killer ended, as the log tells it."""

    seconds: float | None
    """Seconds since boot."""
    pid: int
    """The process."""
    comm: str
    """Its name."""
    anonymous: int
    """Its own memory that was resident."""
    constraint: str
    """What had run out: none (the whole machine), memcg, cpuset or mempolicy; empty where the log does not say."""
    cgroup: str
    """The cgroup whose limit was reached; empty where none was."""
    score_adjustment: int | None = None
    """oom_score_adj of the process: what was added to its score (-1000 to 1000); null where the log does not say."""


@dataclass(frozen=True)
class CgroupLimit:
    """A cgroup with a memory limit."""

    path: str
    """Its path."""
    used: int
    """Memory that is charged to it."""
    limit: int
    """memory.max."""
    address: int = field(default=0, metadata=HEX)
    """Its struct mem_cgroup; 0 where only the log tells of it."""


@dataclass(frozen=True)
class MemoryAccount:
    """Where the memory went: the shares add up to the RAM."""

    ram: int
    """Memory that the kernel knows of."""
    shares: tuple[MemoryShare, ...]
    """Its uses, the largest first; `other` is the remainder."""
    error: int
    """How far the counters may be off: each CPU keeps up to so many pages of each to itself."""
    zones: tuple[MemoryZone, ...]
    """The zones."""
    caches: tuple[SlabShare, ...]
    """The largest slab caches."""
    processes: tuple[ProcessShare, ...]
    """The largest processes."""
    oom_kills: tuple[OomKill, ...]
    """What the out-of-memory killer did before."""
    cgroups: tuple[CgroupLimit, ...]
    """Cgroups with a limit, the fullest first."""
    missing: tuple[str, ...]
    """Uses that the dump does not tell; they are in `other`."""

    @property
    def managed(self) -> int:
        """What the page allocator was given, bytes: what every share in percent is of."""
        return sum(zone.managed for zone in self.zones)
