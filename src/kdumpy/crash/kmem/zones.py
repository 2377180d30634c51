"""`kmem -z`: the zones of memory with their watermarks and counters.

Source: include/linux/mmzone.h, struct zone; mm/vmstat.c, zoneinfo_show_print().
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.mmzone import for_each_online_pgdat

from kdumpy.crash.command import Options
from kdumpy.crash.failures import explain
from kdumpy.crash.kmem.counters import counter_lines, names, words, zones_of
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump


@dataclass(frozen=True)
class ZoneRow:
    """A zone of a node."""

    node: int
    zone: int
    """Its place among the node's zones."""
    address: int
    """Of its struct zone."""
    name: str
    spanned: int
    """Pages from its first to its last, holes too; 0 for a zone without memory, as are the fields behind."""
    present: int
    """Pages that are there."""
    managed: int | None
    """Pages that the allocator has; None where the kernel does not count them."""
    minimum: int
    """Pages: the watermarks, without the boost."""
    low: int
    high: int
    boost: int
    """Pages by which the watermarks are raised for now."""
    counters: dict[str, int]
    """Its counters (enum zone_stat_item), pages mostly."""


def rows(session: Session, options: Options) -> Iterator[ZoneRow]:
    """Yield the zones of all nodes.

    Raises:
        NotInDump: some cannot be read; said behind the others.
    """
    known = names(session.prog, "enum zone_stat_item")
    problems = []
    for node in for_each_online_pgdat(session.prog):
        number = node.node_id.value_()
        for place, zone in enumerate(zones_of(node)):
            try:
                yield _row(session.prog, number, place, zone, known)
            except READ_ERRORS as error:
                problems.append(f"node {number}, zone {place}: {explain(error)}")
    if problems:
        raise NotInDump("not all zones can be read", why="; ".join(problems))


def zone_name(zone: drgn.Object) -> str:
    """Return the name of a zone.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    return zone.name.string_().decode("utf-8", "backslashreplace")  # type: ignore[no-any-return]


def _row(prog: drgn.Program, node: int, place: int, zone: drgn.Object, known: list[tuple[int, str]]) -> ZoneRow:
    address, name = zone.address_, zone_name(zone)
    spanned = zone.spanned_pages.value_()
    if not spanned:
        return ZoneRow(node, place, address, name, 0, 0, None, 0, 0, 0, 0, {})
    # "_watermark" since a92144438e2c "mm: move zone watermark accesses behind an accessor" (5.0).
    marks = zone.member_("_watermark" if zone.type_.has_member("_watermark") else "watermark")
    boost = zone.watermark_boost.value_() if zone.type_.has_member("watermark_boost") else 0
    managed = zone.managed_pages.counter.value_() if zone.type_.has_member("managed_pages") else None
    return ZoneRow(node, place, address, name, spanned, zone.present_pages.value_(), managed, marks[0].value_(),
                   marks[1].value_(), marks[2].value_(), boost, dict(words(prog, zone.vm_stat.address_, known)))


def render(found: Iterable[ZoneRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the zones out as crash does."""
    width = max(len(name) for _, name in names(session.prog, "enum zone_stat_item"))
    for row in found:
        yield f'NODE: {row.node}  ZONE: {row.zone}  ADDR: {row.address:x}  NAME: "{row.name}"'
        if not row.spanned:
            yield "  [unpopulated]"
            yield ""
            continue
        present = f"  PRESENT: {row.present}" if row.present < row.spanned else ""
        boost = f"  BOOST: {row.boost}" if row.boost else ""
        yield f"  SIZE: {row.spanned}{present}  MIN/LOW/HIGH: {row.minimum}/{row.low}/{row.high}{boost}"
        yield "  VM_STAT:"
        yield from counter_lines(row.counters.items(), width)
        yield ""
        yield ""
