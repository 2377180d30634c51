"""The zones of memory and their free blocks.

Source: include/linux/mmzone.h, struct zone, struct free_area.
"""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.facts.memory import MemoryZone

_MOST_NODES = 1024
_MINIMUM, _LOW = 0, 1
"""WMARK_MIN, WMARK_LOW."""


def zones(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield each `struct zone *` that holds memory."""
    for node in _nodes(prog):
        for number in range(min(int(node.nr_zones.value_()), len(node.node_zones))):
            zone = node.node_zones[number]
            if zone.present_pages:
                yield zone.address_of_()


def _nodes(prog: drgn.Program) -> Iterator[drgn.Object]:
    try:
        count = min(int(prog["nr_node_ids"].value_()), _MOST_NODES)
        table = prog["node_data"]
    except READ_ERRORS:
        yield prog["contig_page_data"].address_of_()        # without CONFIG_NUMA
        return
    for number in range(count):
        if table[number]:
            yield table[number]


def memory_zones(prog: drgn.Program) -> tuple[MemoryZone, ...]:
    """Return the zones that hold memory.

    Raises:
        LookupError, drgn.FaultError: they are not in the dump.
    """
    page = int(prog["PAGE_SIZE"].value_())
    free = int(prog.constant("NR_FREE_PAGES").value_())
    found = []
    for zone in zones(prog):
        marks = zone._watermark if zone.type_.type.has_member("_watermark") else zone.watermark
        found.append(MemoryZone(
            int(zone.node.value_()) if zone.type_.type.has_member("node") else 0,
            zone.name.string_().decode("ascii", "replace"), int(zone.present_pages.value_()) * page,
            int(zone.managed_pages.counter.value_()) * page, max(0, int(zone.vm_stat[free].counter.value_())) * page,
            int(marks[_LOW].value_()) * page, int(marks[_MINIMUM].value_()) * page,
            tuple(int(area.nr_free.value_()) for area in zone.free_area)))
    return tuple(found)
