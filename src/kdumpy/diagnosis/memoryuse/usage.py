"""How memory was used at the crash, by the kernel's own counters."""

from __future__ import annotations

from collections.abc import Callable

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.model import MemoryFacts
from kdumpy.kernel import Kernel

_MOST_NODES = 1024
"""The largest MAX_NUMNODES."""


def memory_usage(kernel: Kernel) -> MemoryFacts:
    """Read the counters; what the dump does not hold is None.

    The per-CPU parts of the counters (at most 125 pages a CPU) are left out.
    """
    prog = kernel.prog
    try:
        page = int(prog["PAGE_SIZE"].value_())
    except READ_ERRORS:
        page = 4096

    def counter(array: str, *names: str) -> int | None:
        for name in names:
            try:
                value = prog[array][prog.constant(name)].counter.value_()
                return max(0, int(value)) * page
            except READ_ERRORS:
                continue
        return None

    # NR_SLAB_*_B: d42f3245c7e2 "mm: memcg: convert vmstat slab counters to bytes" (5.9); the node's global
    # counter stays in pages.
    reclaimable = counter("vm_node_stat", "NR_SLAB_RECLAIMABLE_B", "NR_SLAB_RECLAIMABLE")
    unreclaimable = counter("vm_node_stat", "NR_SLAB_UNRECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE")
    slab = None if reclaimable is None or unreclaimable is None else reclaimable + unreclaimable
    return MemoryFacts(
        total=kernel.system.memory_bytes, free=counter("vm_zone_stat", "NR_FREE_PAGES"),
        file=counter("vm_node_stat", "NR_FILE_PAGES"), anonymous=counter("vm_node_stat", "NR_ANON_MAPPED"),
        slab=slab, slab_unreclaimable=unreclaimable)


def largest_slabs(kernel: Kernel) -> list[tuple[str, int]]:
    """Return (cache, bytes) of the slab caches, largest first; empty where they cannot be read."""
    prog = kernel.prog
    found: list[tuple[str, int]] = []

    def read(action: Callable[[], int]) -> int:
        try:
            return action()
        except READ_ERRORS:
            return 0

    try:
        from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_pages_per_slab

        page = int(prog["PAGE_SIZE"].value_())
        for cache in for_each_slab_cache(prog):
            slabs = sum(read(lambda node=node: int(node.nr_slabs.counter.value_()))  # type: ignore[misc]
                        for node in cache_nodes(cache))
            pages = read(lambda cache=cache: int(slab_cache_pages_per_slab(cache)))  # type: ignore[misc]
            found.append((cache.name.string_().decode("utf-8", "backslashreplace"), slabs * pages * page))
    except READ_ERRORS:
        pass
    return sorted(found, key=lambda row: -row[1])


def cache_nodes(cache: drgn.Object) -> list[drgn.Object]:
    """Return the `struct kmem_cache_node *` of a cache.

    The array is declared for the most nodes that a kernel can have, but holds nr_node_ids only: what lies behind
    it is something else's (mm/slub.c, kmem_cache_init()). 7.2 has it as `per_node`, beside the node's barn.
    """
    made = cache.type_.type
    if made.has_member("per_node"):
        table, wrapped = cache.per_node, True
    elif made.has_member("node"):
        table, wrapped = cache.node, False
    else:
        return []
    count = min(int(cache.prog_["nr_node_ids"].value_()), len(table), _MOST_NODES)
    nodes = [table[number].node if wrapped else table[number] for number in range(count)]
    return [node for node in nodes if node]
