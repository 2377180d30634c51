"""`kmem -s`, `-S`, `-r`: the slab caches, their slabs and objects, and what is corrupt in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

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
class NodeRow:
    """What a NUMA node keeps of a cache."""

    address: int
    """Of its kmem_cache_node."""
    node: int
    slabs: int | None
    """None where the kernel does not count them (no CONFIG_SLUB_DEBUG)."""
    partial: int
    """Slabs on its list of those with free objects."""


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
    nodes: tuple[NodeRow, ...]
    """With -S."""
    bytes: int
    """Of all its slabs."""


@dataclass(frozen=True)
class NamedRow:
    """A slab cache of which no more than its name is asked for, or that was left out."""

    cache: int
    """Address of its kmem_cache."""
    name: str
    ignored: bool


def rows(session: Session, options: Options) -> Iterator[CacheRow | NamedRow]:
    """Yield a row a cache, checked for corruption."""
    slabs = session.slabs
    if options.addresses == ["list"]:
        yield from (NamedRow(cache.address, cache.name, False) for cache in slabs.caches)
        return
    ignored = set(options.ignored.split(",")) if options.ignored else set()
    wanted, address = _wanted(session, slabs, options)
    deep = options.slabs_all or address is not None
    chosen = [cache for cache in slabs.caches if wanted is None or cache in wanted]
    cpus = None if options.cpus is None else frozenset(session.cpus(options.cpus))

    def row_of(cache: Cache) -> Iterator[CacheRow | NamedRow]:
        if cache.name in ignored:
            if options.as_text:
                yield NamedRow(cache.address, cache.name, True)
        else:
            row = _cache(session, slabs, cache, deep=deep, only=address)
            yield row if cpus is None else _of_cpus(row, cpus)

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


def holder(session: Session, address: int) -> CacheRow:
    """Return the cache of the slab that an address lies in, with that slab and object.

    Raises:
        NotInDump: it lies in no slab.
    """
    return _cache(session, session.slabs, _owner(session.slabs, address), deep=True, only=address)


def _owner(slabs: Slabs, address: int) -> Cache:
    owner = slabs.holding(address)
    if owner is None:
        raise NotInDump(f"{address:016x} lies in no slab")
    return owner


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
        return [_owner(slabs, address)], address
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
    nodes, problem = _nodes(session, cache, len(which), total)
    problems += [problem] if problem else []
    details = tuple(_details(slabs, cache, which, objects.free, cpus, kept, set(barns), only)) if deep else ()
    if len(problems) > _MOST_PROBLEMS:
        problems = [*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS} more"]
    return CacheRow(cache.address, cache.object_size, inuse - len(kept) - len(barns), total, len(which),
                    cache.slab_bytes, cache.name, len(kept), tuple(problems), details,
                    tuple(cpus) if deep and only is None else (), nodes if deep and only is None else (),
                    len(which) * cache.slab_bytes)


def _of_cpus(row: CacheRow, cpus: frozenset[int]) -> CacheRow:
    """Return the row with no other slabs than those of some CPUs, and those with free objects that no CPU has."""
    return replace(row, cpus=tuple(cpu for cpu in row.cpus if cpu.cpu in cpus), details=tuple(
        slab for slab in row.details if slab.held == "partial" or (
            slab.held.startswith("cpu ") and int(slab.held.split()[1]) in cpus)))


def _nodes(session: Session, cache: Cache, slabs: int, objects: int) -> tuple[tuple[NodeRow, ...], str]:
    """Return what each node keeps, and how far their own counts (CONFIG_SLUB_DEBUG) are from what was found."""
    value = drgn.Object(session.prog, "struct kmem_cache *", value=cache.address)
    nodes, counted = [], [0, 0]
    try:
        nested = value.type_.type.has_member("per_node")
        for number in session.slabs.nodes:
            node = value.per_node[number].node if nested else value.node[number]
            if not node:
                continue
            tracked = node.type_.type.has_member("nr_slabs")
            nodes.append(NodeRow(node.value_(), number, node.nr_slabs.counter.value_() if tracked else None,
                                 node.nr_partial.value_()))
            if tracked:
                counted[0] += node.nr_slabs.counter.value_()
                counted[1] += node.total_objects.counter.value_()
    except READ_ERRORS:
        return tuple(nodes), ""
    if counted == [slabs, objects] or any(node.slabs is None for node in nodes):
        return tuple(nodes), ""
    return tuple(nodes), f"{cache.name}: its nodes count {counted[0]} slabs of {counted[1]} objects"


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


def render(found: Iterable[CacheRow | NamedRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the caches out as crash does; what is corrupt stands below its cache."""
    for number, row in enumerate(found):
        if isinstance(row, NamedRow) and not row.ignored:
            yield f"{row.cache:016x} {row.name}"
            continue
        if not number or options.slabs_all or (isinstance(row, CacheRow) and row.details):
            yield HEADER
        if isinstance(row, NamedRow):
            yield f"{row.cache:016x} {'[IGNORED]':44} {row.name}"
            continue
        yield (f"{row.cache:016x} {row.object_size:8} {row.allocated:10} {row.total:9} {row.slabs:6} "
               f"{row.slab_size >> 10:5}k  {row.name}")
        for problem in row.problems:
            yield f"  [CORRUPT] {problem}"
        if options.slabs_all:
            yield from _render_all(row, full=options.cpus is None)
        elif row.details:
            for slab in row.details:
                yield from _render_slab(slab)


def _render_all(row: CacheRow, *, full: bool) -> Iterator[str]:
    by_holder: dict[str, list[SlabRow]] = {}
    for slab in row.details:
        by_holder.setdefault(slab.held if slab.held.startswith("cpu") else f"{slab.held} {slab.node}", []).append(slab)

    def slabs_of(title: str, holder: str) -> Iterator[str]:
        yield f"{title}:"
        if holder not in by_holder:
            yield "  (empty)"
        for slab in by_holder.get(holder, ()):
            yield from _render_slab(slab)

    for cpu in row.cpus:
        yield f"CPU {cpu.cpu} KMEM_CACHE_CPU:"
        yield f"  {cpu.address:016x}"
        yield from slabs_of(f"CPU {cpu.cpu} SLAB", f"cpu {cpu.cpu}")
        yield from slabs_of(f"CPU {cpu.cpu} PARTIAL", f"cpu {cpu.cpu} partial")
    cpus = {f"cpu {cpu.cpu}" for cpu in row.cpus}
    on_cpus = Counter(slab.node for slab in row.details if slab.held in cpus)
    known = {node.node: node for node in row.nodes}
    for number in sorted(known.keys() | {slab.node for slab in row.details}):
        node = known.get(number)        # not where its structure is lost
        if node is not None:
            yield "KMEM_CACHE_NODE   NODE  SLABS  PARTIAL  PER-CPU"
            yield (f"{node.address:016x} {number:5} {'-' if node.slabs is None else node.slabs:>6} {node.partial:8} "
                   f"{on_cpus[number]:8}")
        yield from slabs_of(f"NODE {number} PARTIAL", f"partial {number}")
        if full:
            yield from slabs_of(f"NODE {number} FULL", f"full {number}")


def _render_slab(slab: SlabRow) -> Iterator[str]:
    yield _SLAB_HEADER
    yield (f"  {slab.slab:016x}  {slab.memory:016x} {slab.node:5} {slab.total:6} {slab.allocated:10} "
           f"{slab.total - slab.allocated:5}")
    yield "  FREE / [ALLOCATED]"
    for entry in slab.objects:
        cache = f"  (cpu {entry.cpu} cache)" if entry.cpu is not None else ""
        yield f"   {entry.address:016x}{cache}" if entry.free else f"  [{entry.address:016x}]"
