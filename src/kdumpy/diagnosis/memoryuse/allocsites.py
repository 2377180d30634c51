"""Which code allocated the objects of a slab cache, where the kernel was told to remember (slub_debug=U).

Such a cache keeps every slab in a list: the full ones, too. A sample of its objects tells who has most.
Source: mm/slub.c, struct kmem_cache_node, SLAB_STORE_USER.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import drgn
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import page_to_virt
from drgn.helpers.linux.slab import for_each_slab_cache

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.crashed import tracking
from kdumpy.diagnosis.memoryuse.takers import frame_at
from kdumpy.diagnosis.memoryuse.usage import cache_nodes
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_SLABS, _PER_SLAB = 256, 8
"""The sample: slabs of a cache, spread over its lists, and objects of each."""
_MOST_LISTED, _MOST_CACHES = 200_000, 4096


@dataclass(frozen=True)
class AllocSite:
    """Code that allocated objects."""

    frame: Frame
    """Where it asked for one: the return address into it."""
    frames: tuple[Frame, ...]
    """The stack of one such call, innermost first; the caller's frame where no more was kept."""
    part: float
    """Its share of the objects that were looked at."""
    track: int
    """Address of the `struct track` of one of them, which tells so."""


def allocation_sites(kernel: Kernel, cache_name: str) -> list[AllocSite]:
    """Return who allocated the objects of a cache, most first; empty where the kernel did not remember."""
    try:
        caches = islice(for_each_slab_cache(kernel.prog), _MOST_CACHES)
        cache = next((item for item in caches if item.name.string_() == cache_name.encode()), None)
        if cache is None or not tracking.remembers(cache):
            return []
        return _sites(kernel, cache)
    except READ_ERRORS as error:
        kernel.problems[f"who allocated the objects of {cache_name}"] = str(error)
        return []


def _sites(kernel: Kernel, cache: drgn.Object) -> list[AllocSite]:
    counted: Counter[int] = Counter()
    seen: dict[int, int] = {}
    for address in _sample(cache):
        try:
            caller = tracking.allocated_by(cache, address)
        except drgn.FaultError:
            continue
        if caller:
            counted[caller] += 1
            seen.setdefault(caller, address)
    total = counted.total()
    return [AllocSite(frame := frame_at(kernel, caller), _stack(kernel, cache, seen[caller], frame), count / total,
                      tracking.track_address(cache, seen[caller]))
            for caller, count in counted.most_common()]


def _stack(kernel: Kernel, cache: drgn.Object, address: int, caller: Frame) -> tuple[Frame, ...]:
    """Return the stack from the caller outwards; before 5.19 the allocator's own functions stand in front of it."""
    try:
        frames = tuple(frame_at(kernel, pc) for pc in tracking.allocation_stack(cache, address))
    except READ_ERRORS:
        return (caller,)
    begin = next((number for number, frame in enumerate(frames) if frame.symbol == caller.symbol), None)
    return (caller,) if begin is None else frames[begin:]


def _sample(cache: drgn.Object) -> Iterator[int]:
    """Yield addresses of objects of slabs that are spread evenly over the cache."""
    size, page = int(cache.size.value_()), 4096
    slabs = list(islice(_slabs(cache), _MOST_LISTED))
    step = max(1, len(slabs) // _SLABS)
    for slab in slabs[::step]:
        base = page_to_virt(drgn.cast("struct page *", slab)).value_()
        count = max(1, min(_PER_SLAB, page // size if size < page else 1))
        # Objects begin behind the red zone of the first one, where there is one.
        first = base + (int(cache.red_left_pad.value_()) if cache.type_.type.has_member("red_left_pad") else 0)
        yield from (first + number * size for number in range(count))


def _slabs(cache: drgn.Object) -> Iterator[drgn.Object]:
    # 122c9ee0ba92 and others "mm: Split slab into its own type" (5.17)
    made, link = ("struct slab", "slab_list") if _is_own(cache.prog_) else ("struct page", "slab_list")
    for node in cache_nodes(cache):
        for name in ("full", "partial"):
            if node.type_.type.has_member(name):
                yield from list_for_each_entry(made, node.member_(name).address_of_(), link)


def _is_own(prog: drgn.Program) -> bool:
    try:
        return bool(prog.type("struct slab").has_member("slab_list"))
    except LookupError:
        return False
