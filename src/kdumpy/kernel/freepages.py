"""Free pages on the CPUs' own lists: freed lately, so that what was in them is still there.

Nothing in such a page tells that it is free (it is not in the buddy allocator), so no dump level leaves it out.
Source: include/linux/mmzone.h, struct per_cpu_pages; mm/page_alloc.c, pindex_to_order().
"""

from __future__ import annotations

from collections.abc import Iterator

import drgn
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import page_to_phys
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.percpu import per_cpu_ptr

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.erasure import LARGEST, Erasure, Reach

_PER_ORDER = 3
"""Lists of each order: MIGRATE_PCPTYPES."""
_LOW_ORDERS = 4
"""Orders 0 to PAGE_ALLOC_COSTLY_ORDER; the lists behind them are of huge pages. One order only before 5.14."""
_HUGE_ORDER = 9
"""HPAGE_PMD_ORDER with 4 KiB pages."""
_MOST = 1 << 24


def find(reach: Reach) -> Erasure:
    """Return the pages on the CPUs' lists."""
    erasure = Erasure("per_cpu_pages.lists", "free pages on the CPUs' own lists")
    try:
        for pages in _lists(reach.prog):
            try:
                _list(reach, erasure, pages)
            except READ_ERRORS as error:
                erasure.failed(error)
    except READ_ERRORS as error:
        erasure.not_judged = str(error) or type(error).__name__
    return erasure


def _lists(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield the struct per_cpu_pages of every zone and CPU."""
    cpus = list(for_each_possible_cpu(prog))
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            if not zone.present_pages:
                continue
            for cpu in cpus:
                if zone.type_.has_member("per_cpu_pageset"):    # since 5.14
                    yield per_cpu_ptr(zone.per_cpu_pageset, cpu)[0]
                else:
                    yield per_cpu_ptr(zone.pageset, cpu).pcp


def _list(reach: Reach, erasure: Erasure, pages: drgn.Object) -> None:
    size = reach.memory.page_size
    for number, head in enumerate(pages.lists):
        order = number // _PER_ORDER
        if order >= _LOW_ORDERS:
            order = _HUGE_ORDER
        length = size << order
        for page in list_for_each_entry("struct page", head.address_of_(), "lru"):
            physical = page_to_phys(page).value_()
            if erasure.count >= _MOST or length > LARGEST:
                raise ValueError("the lists of free pages have no end")
            erasure.extents.append((physical, length))
            erasure.count += 1
            erasure.size += length
