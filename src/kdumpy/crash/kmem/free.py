"""`kmem -f`, `-F`: the lists of free pages, of the allocator and of each CPU, followed and counted.

Source: mm/page_alloc.c; include/linux/mmzone.h, struct free_area, struct per_cpu_pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.percpu import per_cpu_ptr

from kdumpy.crash.command import Options
from kdumpy.crash.memory.bits import page_struct_size
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.paging import kernel_page_size
from kdumpy.errors import DamagedDump, NotInDump


@dataclass(frozen=True)
class FreeListRow:
    """A list of free blocks."""

    node: int
    zone: str
    cpu: int | None
    """The CPU whose own list it is; None for the allocator's."""
    order: int
    head: int
    """Address of the list."""
    type: int
    """Its place among the lists of its order: the migrate type."""
    blocks: int
    pages: int
    physical: tuple[int, ...]
    """Physical addresses of the blocks; empty without -F."""
    problem: str
    """Where the list ends early, and why."""


@dataclass(frozen=True)
class _Zone:
    """A zone that has pages."""

    value: drgn.Object
    node: int
    name: str


def rows(session: Session, options: Options) -> Iterator[FreeListRow]:
    """Yield every list; with an address, the one that its page is on.

    Raises:
        DamagedDump: a zone's lists hold another number of pages than it counts.
    """
    base, size = int(session.prog["vmemmap"]), page_struct_size(session.prog)
    page_size = kernel_page_size(session.kernel.dump)
    wanted = _wanted(session, options.addresses) if options.addresses else []
    problems = []
    for zone in _zones(session):
        total = 0
        for row in (*_areas(session, zone, base, size), *_per_cpu(session, zone, base, size)):
            if row.cpu is None:
                total += row.pages
            if wanted and not _holds(row, wanted, page_size):
                continue
            if options.free_pages or wanted:
                yield row
            else:
                yield FreeListRow(row.node, row.zone, row.cpu, row.order, row.head, row.type, row.blocks, row.pages,
                                  (), row.problem)
        counted = _counted(session, zone)
        if counted is not None and counted != total:
            problems.append(f"node {zone.node}, {zone.name}: {total} pages on the lists, and it counts {counted}")
    if problems and not wanted:
        raise DamagedDump("lists of free pages do not fit the counters", why="; ".join(problems))


def _wanted(session: Session, addresses: list[str]) -> list[int]:
    from kdumpy.crash.kmem.pages import pfn_of  # numpy is not needed for the lists themselves
    from kdumpy.crash.memory.pages import StructPages

    pages = StructPages(session.prog, session.arrays)
    return [pfn_of(session, pages, text) for text in addresses]


def _holds(row: FreeListRow, wanted: list[int], page_size: int) -> bool:
    return any(start // page_size <= pfn < (start // page_size) + (1 << row.order)
               for start in row.physical for pfn in wanted)


def _zones(session: Session) -> Iterator[_Zone]:
    for node in for_each_online_pgdat(session.prog):
        for number in range(node.nr_zones.value_()):
            zone = node.node_zones[number]
            if zone.present_pages:
                yield _Zone(zone, node.node_id.value_(), zone.name.string_().decode("utf-8", "backslashreplace"))


def _counted(session: Session, zone: _Zone) -> int | None:
    """Return the pages that a zone's free areas count."""
    try:
        return sum(int(area.nr_free.value_()) << order for order, area in enumerate(zone.value.free_area))
    except READ_ERRORS:
        return None


def _areas(session: Session, zone: _Zone, base: int, size: int) -> Iterator[FreeListRow]:
    for order, area in enumerate(zone.value.free_area):
        for kind, head in enumerate(area.free_list):
            yield _list(session, zone, head.address_, order, kind, None, base, size)


def _per_cpu(session: Session, zone: _Zone, base: int, size: int) -> Iterator[FreeListRow]:
    modern = zone.value.type_.has_member("per_cpu_pageset")         # 28f836b6777b, 5.14
    for cpu in for_each_possible_cpu(session.prog):
        own = per_cpu_ptr(zone.value.per_cpu_pageset, cpu)[0] if modern else \
            per_cpu_ptr(zone.value.pageset, cpu).pcp
        heads = list(own.lists)
        # MIGRATE_PCPTYPES lists of each order up to PAGE_ALLOC_COSTLY_ORDER; behind them those of huge pages.
        for number, head in enumerate(heads):
            order = number // 3 if len(heads) > 3 else 0
            yield _list(session, zone, head.address_, 9 if order > 3 else order, number % 3 if order <= 3
                        else number - 12, cpu, base, size)


def _list(session: Session, zone: _Zone, head: int, order: int, kind: int, cpu: int | None, base: int, size: int
          ) -> FreeListRow:
    """Follow a list of struct pages; it must lead to struct pages of memory, each once."""
    at = int(drgn.offsetof(session.prog.type("struct page"), "lru"))
    limit = session.kernel.dump.max_pfn
    blocks: list[int] = []
    problem, before = "", head
    try:
        current = int(session.prog.read_u64(head))
        marks: set[int] = set()
        while current != head:
            pfn, rest = divmod(current - at - base, size)
            if rest or not 0 <= pfn < limit:
                problem = f"leads to {current:016x}, which is no page, after {len(blocks)} blocks (from {before:016x})"
                break
            if pfn in marks:
                problem = f"runs in a circle at {current - at:016x}, after {len(blocks)} blocks"
                break
            marks.add(pfn)
            blocks.append(pfn)
            before, current = current, int(session.prog.read_u64(current))
    except drgn.FaultError as error:
        problem = f"leads to {error.address:016x}, which is not in the dump, after {len(blocks)} blocks"
    page_size = kernel_page_size(session.kernel.dump)
    return FreeListRow(zone.node, zone.name, cpu, order, head, kind, len(blocks), len(blocks) << order,
                       tuple(pfn * page_size for pfn in blocks), problem)


def render(found: Iterable[FreeListRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the lists out as crash does; behind each zone those of the CPUs."""
    before: tuple[int, str] | None = None
    in_cpu: int | None = None
    zones = {(zone.node, zone.name): (number, zone.value) for number, zone in enumerate(_zones(session))}
    page_size = kernel_page_size(session.kernel.dump)
    page_kb = page_size >> 10
    vmemmap, size = int(session.prog["vmemmap"]), page_struct_size(session.prog)
    total = kept = 0
    for row in found:
        if (row.node, row.zone) != before:
            if before is not None:
                yield ""
            before, in_cpu = (row.node, row.zone), None
            number, zone = zones[before]
            start = zone.zone_start_pfn.value_()
            first = zone.zone_pgdat.node_start_pfn.value_()
            free = sum(area.nr_free.value_() << order for order, area in enumerate(zone.free_area))
            yield "ZONE  NAME        SIZE    FREE      MEM_MAP       START_PADDR  START_MAPNR"
            yield (f"{number:3}   {row.zone:<10} {zone.spanned_pages.value_():5} {free:7}  "
                   f"{vmemmap + start * size:016x}  {start * page_kb * 1024:8x}  {start - first:11}")
            yield "AREA    SIZE  FREE_AREA_STRUCT  BLOCKS  PAGES"
        if row.cpu is not None and row.cpu != in_cpu:
            in_cpu = row.cpu
            yield f"CPU {row.cpu} LISTS:"
        total, kept = (total + row.pages, kept) if row.cpu is None else (total, kept + row.pages)
        yield f"{row.order:3} {page_kb << row.order:8}k  {row.head:016x}  {row.blocks:6} {row.pages:6}"
        if row.problem:
            yield f"  [CORRUPT] the list {row.problem}"
        yield from (f"{vmemmap + start // page_size * size:016x}  {start:x}" for start in row.physical)
    if before is None:
        raise NotInDump("this page is on no list of free pages")
    if not options.addresses:
        yield ""
        yield f"nr_free_pages: {total}  (verified)    on CPUs' own lists: {kept}"
