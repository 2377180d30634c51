"""`kmem -V`: the counters of /proc/vmstat.

Source: mm/vmstat.c; include/linux/mmzone.h, enum zone_stat_item, node_stat_item; vm_event_item.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import drgn
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.percpu import per_cpu_ptr

from kdumpy.crash.command import Options
from kdumpy.crash.failures import explain
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, NotInDump

_MOST = 4096
"""Counters of one kind."""
_MOST_ZONES = 64
"""Zones of a node; the kernel has six kinds (enum zone_type)."""
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class CounterRow:
    """A counter."""

    group: str
    """Which counters it is one of: VM_ZONE_STAT, VM_NODE_STAT, VM_EVENT_STATES; VM_NUMA_EVENT, or before 5.14
    VM_NUMA_STAT."""
    name: str
    value: int
    """As the kernel keeps it: what the CPUs have not handed in yet is not in it, so it can be below 0."""


def rows(session: Session, options: Options) -> Iterator[CounterRow]:
    """Yield the counters.

    Raises:
        NotInDump: some cannot be read; said behind the others.
    """
    prog = session.prog
    problems = []
    for group, read in (("VM_ZONE_STAT", _zones), ("VM_NODE_STAT", _nodes), ("VM_EVENT_STATES", _events),
                        ("VM_NUMA_EVENT" if "vm_numa_event" in prog else "VM_NUMA_STAT", _numa)):
        try:
            found = read(prog)
        except READ_ERRORS as error:
            problems.append(f"{group}: {explain(error)}")
            continue
        yield from (CounterRow(group, name, value) for name, value in found)
    if problems:
        raise NotInDump("not all counters can be read", why="; ".join(problems))


def _zones(prog: drgn.Program) -> list[tuple[str, int]]:
    return words(prog, prog["vm_zone_stat"].address_, names(prog, "enum zone_stat_item"))


def _nodes(prog: drgn.Program) -> list[tuple[str, int]]:
    return words(prog, prog["vm_node_stat"].address_, names(prog, "enum node_stat_item"))


def _numa(prog: drgn.Program) -> list[tuple[str, int]]:
    """Return the counters of NUMA, with what the CPUs have not handed in: that is nearly all, they do it when asked.

    A kernel without CONFIG_NUMA has none. f19298b9516c "mm/vmstat: convert NUMA statistics to basic NUMA counters"
    (5.14) renamed them and made the CPUs' own whole words.
    """
    try:
        known = names(prog, "enum numa_stat_item")
    except LookupError:
        return []
    modern = "vm_numa_event" in prog
    total = dict(words(prog, prog["vm_numa_event" if modern else "vm_numa_stat"].address_, known))
    layout = "q" if modern else "H"
    size = struct.calcsize(f"<{layout}")
    for node in for_each_online_pgdat(prog):
        for zone in zones_of(node):
            if not zone.present_pages:
                continue
            own = zone.per_cpu_zonestats if modern else zone.pageset
            for cpu in for_each_possible_cpu(prog):
                counts = per_cpu_ptr(own, cpu).member_("vm_numa_event" if modern else "vm_numa_stat_diff")
                values = struct.unpack(f"<{len(counts)}{layout}", prog.read(counts.address_, len(counts) * size))
                for place, name in known:
                    total[name] += values[place]
    return list(total.items())


def _events(prog: drgn.Program) -> list[tuple[str, int]]:
    """Return the sums of the CPUs' counters of events; a CPU that went offline has handed its own over."""
    known = names(prog, "enum vm_event_item")
    state = prog["vm_event_states"].address_of_()
    total = [0] * len(known)
    for cpu in for_each_possible_cpu(prog):
        for number, (_, value) in enumerate(words(prog, per_cpu_ptr(state, cpu).value_(), known)):
            total[number] += value
    return [(name, value & _WORD) for (_, name), value in zip(known, total, strict=True)]


def zones_of(node: drgn.Object) -> list[drgn.Object]:
    """Return the `struct zone`s of a `struct pglist_data *`, those without memory too.

    Raises:
        DamagedDump: they are too many to be believed.
    """
    found = node.node_zones
    if len(found) > _MOST_ZONES:
        raise DamagedDump(f"{len(found)} zones of a node are not believed")
    return list(found)


def names(prog: drgn.Program, kind: str) -> list[tuple[int, str]]:
    """Return place and name of the counters of an enumeration, without what only ends it.

    Raises:
        LookupError: there is no such enumeration.
        DamagedDump: it cannot be one of counters.
    """
    # NR_LRU_BASE and the like are other names of the counter behind them.
    found = {int(value): name for name, value in prog.type(kind).enumerators or ()
             if not (name.startswith("NR_VM_") and name.endswith("_ITEMS"))}
    if not found or min(found) < 0 or max(found) >= _MOST:
        raise DamagedDump(f"{kind} does not number counters")
    return sorted(found.items())


def words(prog: drgn.Program, address: int, known: list[tuple[int, str]]) -> list[tuple[str, int]]:
    """Return name and value of the counters (atomic_long_t or long) in an array at an address.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    size = known[-1][0] + 1
    values = struct.unpack(f"<{size}q", prog.read(address, 8 * size))
    return [(name, values[place]) for place, name in known]


def counter_lines(counters: Iterable[tuple[str, int]], width: int) -> Iterator[str]:
    """Lay counters out as crash does, the names of one width."""
    return (f"{name:>{width}}: {value}" for name, value in counters)


def render(found: Iterable[CounterRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the counters out as crash does, those of NUMA, which crash shows of old kernels only, behind the others."""
    begun = False
    for group, members in groupby(found, key=lambda row: row.group):
        if begun:
            yield ""
        begun = True
        counters = [(row.name, row.value) for row in members]
        yield f"  {group}:"
        yield from counter_lines(counters, max(len(name) for name, _ in counters))
