"""`kmem -s`, `-S`, `-r`: the slab caches, their slabs and objects, and what is corrupt in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
import numpy as np
from numpy.typing import NDArray

from kdumpy.crash.command import Options
from kdumpy.crash.memory.slabs import Slabs
from kdumpy.crash.memory.slabvalues import Cache, CpuSlab
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError

_MOST_PROBLEMS = 20
"""Shown of one cache."""


@dataclass(frozen=True)
class ObjectRow:
    """An object."""

    address: int
    free: bool
    cpu: int | None
    """The CPU that keeps it, free, for its next allocation."""


@dataclass(frozen=True)
class SlabRow:
    """A slab and its objects."""

    slab: int
    """Address of its struct slab (struct page)."""
    memory: int
    node: int
    total: int
    allocated: int
    held: str
    """Who holds it: `cpu 0`, `cpu 0 partial`, `partial`, `full`."""
    objects: tuple[ObjectRow, ...]


@dataclass(frozen=True)
class CacheRow:
    """A slab cache."""

    cache: int
    """Address of its kmem_cache."""
    object_size: int
    """Bytes."""
    allocated: int
    """Objects in use."""
    total: int
    """Objects."""
    slabs: int
    slab_size: int
    """Bytes of one."""
    name: str
    per_cpu_free: int
    """Free objects that CPUs keep for themselves (they count as in use in their slab)."""
    problems: tuple[str, ...]
    """What is corrupt or cannot be read."""
    details: tuple[SlabRow, ...]
    """Its slabs, with -S or an address."""
    cpus: tuple[CpuSlab, ...]
    """With -S."""


def rows(session: Session, options: Options) -> Iterator[CacheRow]:
    """Yield a row a cache, checked for corruption."""
    slabs = session.slabs
    ignored = set(options.ignored.split(",")) if options.ignored else set()
    wanted, address = _wanted(session, slabs, options)
    deep = options.slabs_all or address is not None
    chosen = [cache for cache in slabs.caches
              if cache.name not in ignored and (wanted is None or cache in wanted)]

    def row_of(cache: Cache) -> Iterator[CacheRow]:
        yield _cache(session, slabs, cache, deep=deep, only=address)

    if chosen and slabs.heads is not None:      # read before the work is shared out, once
        yield from session.share(chosen, row_of)
    if not chosen:
        raise NotInDump("no slab cache is like this")
    if slabs.heads.unreadable:
        raise NotInDump(f"the struct pages of {slabs.heads.unreadable} pages are not in the dump, and so their slabs")
    slabs.unread.tell()
    if wanted is None:
        strays = sorted(set(slabs.heads.cache.tolist()) - {cache.address for cache in slabs.caches})
        if strays:
            raise NotInDump(f"slabs belong to {len(strays)} caches that no list names",
                            where=", ".join(f"{stray:016x}" for stray in strays[:4]))


def _wanted(session: Session, slabs: Slabs, options: Options) -> tuple[list[Cache] | None, int | None]:
    """Return which caches are asked for, None for all, and the address whose slab is."""
    if not options.addresses:
        return None, None
    names = {cache.name: cache for cache in slabs.caches}
    found: list[Cache] = []
    for text in options.addresses:
        if text in names:
            found.append(names[text])
            continue
        try:
            address = session.address(text)
        except UsageError:
            raise NotInDump(f"there is no slab cache {text!r}") from None
        by_address = [cache for cache in slabs.caches if cache.address == address]
        if by_address:
            found += by_address
            continue
        owner = slabs.holding(address)
        if owner is None:
            raise NotInDump(f"{address:016x} lies in no slab")
        return [owner], address
    return found, None


def _cache(session: Session, slabs: Slabs, cache: Cache, *, deep: bool, only: int | None) -> CacheRow:
    which = slabs.heads.of(cache.address)
    cpus = slabs.per_cpu(cache)
    problems = [cpu.problem for cpu in cpus if cpu.problem]
    kept = {address: cpu.cpu for cpu in cpus for address in cpu.free}
    try:
        barns = slabs.in_barns(cache)
    except READ_ERRORS as error:
        barns = []
        problems.append(str(error).splitlines()[0])
    objects = slabs.objects(cache, which)
    problems += objects.problems
    total, inuse = int(slabs.heads.objects[which].sum()), int(slabs.heads.inuse[which].sum())
    problems += _counted(session, cache, len(which), total)
    details = tuple(_details(slabs, cache, which, objects.free, cpus, kept, set(barns), only)) if deep else ()
    if len(problems) > _MOST_PROBLEMS:
        problems = [*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS} more"]
    return CacheRow(cache.address, cache.object_size, inuse - len(kept) - len(barns), total, len(which),
                    cache.slab_bytes, cache.name, len(kept), tuple(problems), details,
                    tuple(cpus) if deep and only is None else ())


def _counted(session: Session, cache: Cache, slabs: int, objects: int) -> Iterator[str]:
    """Compare with what the nodes count themselves (CONFIG_SLUB_DEBUG)."""
    value = drgn.Object(session.prog, "struct kmem_cache *", value=cache.address)
    from drgn.helpers.linux.nodemask import for_each_online_node

    try:
        entries = value.per_node if value.type_.type.has_member("per_node") else value.node
        nodes = [entries[node].node if value.type_.type.has_member("per_node") else entries[node]
                 for node in for_each_online_node(session.prog)]
        counts = [(node.nr_slabs.counter.value_(), node.total_objects.counter.value_()) for node in nodes if node]
    except READ_ERRORS:
        return
    if sum(count for count, _ in counts) != slabs or sum(count for _, count in counts) != objects:
        yield (f"{cache.name}: its nodes count {sum(count for count, _ in counts)} slabs of "
               f"{sum(count for _, count in counts)} objects")


def _details(slabs: Slabs, cache: Cache, which: NDArray[np.int64], free: NDArray[np.bool_], cpus: list[CpuSlab],
             kept: dict[int, int], barns: set[int], only: int | None) -> Iterator[SlabRow]:
    heads = slabs.heads
    holders = {cpu.slab: f"cpu {cpu.cpu}" for cpu in cpus if cpu.slab}
    holders |= {slab: f"cpu {cpu.cpu} partial" for cpu in cpus for slab in cpu.partial}
    for place, row in enumerate(which.tolist()):
        memory, count = int(heads.memory[row]) + cache.red_left_pad, int(heads.objects[row])
        if only is not None and not memory - cache.red_left_pad <= only < memory + count * cache.size:
            continue
        objects = []
        for number in range(count):
            address = memory + number * cache.size
            if only is not None and not address <= only < address + cache.size:
                continue
            cpu = kept.get(address)
            objects.append(ObjectRow(address, bool(free[place, number]) or cpu is not None or address in barns, cpu))
        base = memory - cache.red_left_pad
        unused = sum(base <= address < base + count * cache.size for address in (*kept, *barns))
        slab = int(heads.slab[row])
        held = holders.get(slab) or ("full" if int(heads.inuse[row]) == count else "partial")
        yield SlabRow(slab, base, int(heads.node[row]), count, int(heads.inuse[row]) - unused, held, tuple(objects))


HEADER = "CACHE             OBJSIZE  ALLOCATED     TOTAL  SLABS  SSIZE  NAME"
_SLAB_HEADER = "  SLAB              MEMORY            NODE  TOTAL  ALLOCATED  FREE"


def render(found: Iterable[CacheRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the caches out as crash does; what is corrupt stands below its cache."""
    for number, row in enumerate(found):
        if not number or row.details:
            yield HEADER
        yield (f"{row.cache:016x} {row.object_size:8} {row.allocated:10} {row.total:9} {row.slabs:6} "
               f"{row.slab_size >> 10:5}k  {row.name}")
        for problem in row.problems:
            yield f"  [CORRUPT] {problem}"
        if options.slabs_all:
            yield from _render_all(row)
        elif row.details:
            for slab in row.details:
                yield from _render_slab(slab)


def _render_all(row: CacheRow) -> Iterator[str]:
    by_holder: dict[str, list[SlabRow]] = {}
    for slab in row.details:
        by_holder.setdefault(slab.held, []).append(slab)
    for cpu in row.cpus:
        yield f"CPU {cpu.cpu} KMEM_CACHE_CPU:"
        yield f"  {cpu.address:016x}"
        for title, holder in (("SLAB", f"cpu {cpu.cpu}"), ("PARTIAL", f"cpu {cpu.cpu} partial")):
            yield f"CPU {cpu.cpu} {title}:"
            if holder not in by_holder:
                yield "  (empty)"
            for slab in by_holder.get(holder, ()):
                yield from _render_slab(slab)
    for title, holder in (("PARTIAL", "partial"), ("FULL", "full")):
        yield f"NODE {title}:"
        if holder not in by_holder:
            yield "  (empty)"
        for slab in by_holder.get(holder, ()):
            yield from _render_slab(slab)


def _render_slab(slab: SlabRow) -> Iterator[str]:
    yield _SLAB_HEADER
    yield (f"  {slab.slab:016x}  {slab.memory:016x} {slab.node:5} {slab.total:6} {slab.allocated:10} "
           f"{slab.total - slab.allocated:5}")
    yield "  FREE / [ALLOCATED]"
    for entry in slab.objects:
        cache = f"  (cpu {entry.cpu} cache)" if entry.cpu is not None else ""
        yield f"   {entry.address:016x}{cache}" if entry.free else f"  [{entry.address:016x}]"
