"""Checks of memory."""

from __future__ import annotations

from collections.abc import Iterator

from drgn.helpers.linux.mm import vm_commit_limit, vm_memory_committed

from kdumpy.diagnosis.findings.base import CRITICAL, INFO, WARNING, Check, Found, Machine
from kdumpy.diagnosis.memoryuse.account import Counters
from kdumpy.units import human_bytes

_LARGE_ORDER = 3
"""PAGE_ALLOC_COSTLY_ORDER: blocks of up to 32 KiB the kernel takes for granted."""

_NODE_EMPTY, _NODE_FREE = 0.05, 0.25
"""Free shares of a node that has next to nothing, and of one that has plenty."""


def _percent(part: int, whole: int) -> int:
    return round(100 * part / max(1, whole))


def watermarks(machine: Machine) -> Iterator[Found]:
    """A zone with less free memory than its lowest mark serves emergencies only."""
    for zone in machine.account.zones:
        if zone.free < zone.minimum:
            yield Found(CRITICAL, f"Zone {zone.name} of node {zone.node} has run out of memory",
                        f"{human_bytes(zone.free)} free, below its minimum of {human_bytes(zone.minimum)}", "kmem -z")


def fragmentation(machine: Machine) -> Iterator[Found]:
    """Much memory is free, but in pieces."""
    for zone in machine.account.zones:
        large = sum(zone.free_blocks[_LARGE_ORDER:])
        if zone.free > 2 * zone.low and zone.free > 4 << 20 and not large:
            yield Found(WARNING, f"Free memory of zone {zone.name} is fragmented",
                        f"{human_bytes(zone.free)} are free, but no block of 32 KiB", "kmem -f")


def imbalance(machine: Machine) -> Iterator[Found]:
    """A node of memory is used up, while another one has plenty."""
    nodes: dict[int, tuple[int, int]] = {}
    for zone in machine.account.zones:
        free, managed = nodes.get(zone.node, (0, 0))
        nodes[zone.node] = free + zone.free, managed + zone.managed
    share = {node: free / managed for node, (free, managed) in nodes.items() if managed}
    for node, part in share.items():
        best = max(share, key=lambda other: share[other])
        if part < _NODE_EMPTY and share[best] > _NODE_FREE:
            yield Found(WARNING, f"The memory of NUMA node {node} is used up",
                        f"{human_bytes(nodes[node][0])} of {human_bytes(nodes[node][1])} are free; "
                        f"node {best} has {human_bytes(nodes[best][0])}", "kmem -n")


def commitment(machine: Machine) -> Iterator[Found]:
    """More was promised to processes than there is."""
    prog = machine.kernel.prog
    committed, limit = int(vm_memory_committed(prog)), int(vm_commit_limit(prog))
    strict = int(prog["sysctl_overcommit_memory"].value_()) == 2
    if committed > limit:
        page = Counters(machine.kernel).page
        yield Found(WARNING if strict else INFO, f"{_percent(committed, limit)} % of the commit limit is promised",
                    f"{human_bytes(committed * page)} of {human_bytes(limit * page)}", "kmem -i")


def swap(machine: Machine) -> Iterator[Found]:
    """Swap is nearly used up."""
    prog = machine.kernel.prog
    total, free = int(prog["total_swap_pages"].value_()), int(prog["nr_swap_pages"].counter.value_())
    used = _percent(total - free, total)
    if total > 0 and used >= 80:
        yield Found(WARNING, f"{used} % of swap is used", command="swap")


def large_process(machine: Machine) -> Iterator[Found]:
    """A process holds more than a quarter of memory."""
    memory = machine.account.managed
    for process in machine.account.processes:
        used = process.anonymous + process.shared
        if used > memory // 4:
            yield Found(WARNING if used > memory // 2 else INFO,
                        f"{process.comm} (pid {process.pid}) holds {_percent(used, memory)} % of memory",
                        human_bytes(used), f"vm {process.pid}")


def slab(machine: Machine) -> Iterator[Found]:
    """Kernel objects that cannot be given back take much."""
    memory, used = machine.account.managed, machine.share("slab unreclaimable")
    if used > memory // 4:
        largest = next(iter(machine.account.caches), None)
        yield Found(CRITICAL if used > memory // 2 else WARNING,
                    f"{_percent(used, memory)} % of memory are kernel objects that cannot be given back",
                    f"the largest cache is {largest.name}: {human_bytes(largest.size)}" if largest else "",
                    "kmem -s |: sort -bytes |: head 3")


def unaccounted(machine: Machine) -> Iterator[Found]:
    """Much memory is in no counter."""
    memory, other = machine.account.managed, machine.share("other")
    if other > memory // 5 and not machine.account.missing:
        yield Found(WARNING, f"{_percent(other, memory)} % of memory is in no counter",
                    f"{human_bytes(other)}: drivers or file systems took it from the page allocator", "kmem -i")


def writeback(machine: Machine) -> Iterator[Found]:
    """Much of what files hold is not on the disk yet."""
    counters = Counters(machine.kernel)
    dirty, being = counters.of("NR_FILE_DIRTY"), counters.of("NR_WRITEBACK")
    waiting = ((dirty or 0) + (being or 0)) * counters.page
    if waiting > machine.account.managed // 5:
        yield Found(WARNING, f"{human_bytes(waiting)} of file contents were not written to disk yet",
                    f"of them being written: {human_bytes((being or 0) * counters.page)}", "kmem -V")


def cgroups(machine: Machine) -> Iterator[Found]:
    """A cgroup is at its limit."""
    for group in machine.account.cgroups:
        if group.used >= 0.95 * group.limit:
            yield Found(WARNING, f"The cgroup {group.path} is at its memory limit",
                        f"{human_bytes(group.used)} of {human_bytes(group.limit)}")


def killed(machine: Machine) -> Iterator[Found]:
    """The out-of-memory killer had ended processes."""
    kills = machine.account.oom_kills
    if kills:
        yield Found(WARNING, f"The out-of-memory killer had ended {len(kills)} process{'es' if len(kills) > 1 else ''}",
                    ", ".join(f"{kill.comm} (pid {kill.pid})" for kill in kills[-5:]), "log")


_ACCOUNT = ("the account of memory",)
CHECKS = (
    Check("free memory", watermarks, _ACCOUNT), Check("fragmentation", fragmentation, _ACCOUNT),
    Check("NUMA nodes", imbalance, _ACCOUNT),
    Check("commit limit", commitment, ("variable vm_committed_as", "variable sysctl_overcommit_memory")),
    Check("swap", swap, ("variable total_swap_pages", "variable nr_swap_pages")),
    Check("large process", large_process, _ACCOUNT), Check("slab", slab, _ACCOUNT),
    Check("unaccounted memory", unaccounted, _ACCOUNT), Check("writeback", writeback, _ACCOUNT),
    Check("cgroup limits", cgroups, _ACCOUNT), Check("oom kills", killed, _ACCOUNT),
)
