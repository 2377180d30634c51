"""Where the memory went, so that it adds up to the RAM.

Source: mm/vmstat.c, fs/proc/meminfo.c, mm/percpu.c, mm/show_mem.c. Only counters are read, no pages.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from heapq import nlargest

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.facts.memory import (
    CgroupLimit,
    MemoryAccount,
    MemoryShare,
    OomKill,
    ProcessShare,
    SlabShare,
)
from kdumpy.diagnosis.memoryuse.zones import memory_zones
from kdumpy.kernel import Kernel
from kdumpy.kernel.tasks import task_objects

_MOST_CACHES, _SHOWN = 2000, 12
_MOST_PROCESSES = 4096
_MOST_SUMS = 2000
"""Tasks times CPUs whose counters are read exactly; beyond, they may be off by some dozens of pages a CPU."""
_MOST_CGROUPS = 2000
_MOST_HSTATES = 16
_DIFFERENCE_PAGES = 125
"""The most that a CPU keeps of a counter to itself (mm/vmstat.c, calculate_normal_threshold)."""
_RECLAIMABLE = 0x00020000
"""SLAB_RECLAIM_ACCOUNT, where it is no enumerator yet (6.9: _SLAB_RECLAIM_ACCOUNT)."""
_NO_LIMIT = 1 << 50
"""PAGE_COUNTER_MAX is LONG_MAX / PAGE_SIZE; a limit in pages that is larger than this is none."""

_KILLED = re.compile(r"(?:Out of memory|Memory cgroup out of memory).*Killed process (\d+) \((.*?)\)"
                     r"(?:.*anon-rss:(\d+)kB)?(?:.*oom_score_adj:(-?\d+))?")
_CONSTRAINT = re.compile(r"oom-kill:constraint=CONSTRAINT_(\w+).*?(?:oom_memcg=([^,]*))?,task_memcg=.*?,pid=(\d+)")


def memory_account(kernel: Kernel, lines: Sequence[str] = (),
                   seconds: Sequence[float | None] = ()) -> MemoryAccount | None:
    """Return the account; None where the zones of memory cannot be read.

    Args:
        kernel: the opened dump.
        lines: its log, a line each.
        seconds: the times of the lines.
    """
    try:
        zones = memory_zones(kernel.prog)
    except READ_ERRORS:
        return None
    if not zones:
        return None
    counters = Counters(kernel)
    ram, managed = (sum(getattr(zone, name) for zone in zones) for name in ("present", "managed"))
    shares = [MemoryShare("reserved", ram - managed, "kept from the page allocator: the kernel's image, the capture "
                          "kernel's memory, page structs"), *counters.shares()]
    rest = ram - sum(share.size for share in shares)
    shares.append(MemoryShare("other", max(0, rest), "taken from the page allocator by the kernel itself and counted "
                              "nowhere: drivers, network buffers, BPF, file systems"))
    return MemoryAccount(
        ram, tuple(sorted(shares, key=lambda share: -share.size)),
        _DIFFERENCE_PAGES * counters.page * (kernel.system.cpus or 1), zones, tuple(_caches(kernel, counters.page)),
        tuple(_processes(kernel, counters.page)), tuple(oom_kills(lines, seconds)),
        tuple(_cgroups(kernel, counters.page)), tuple(counters.missing))


class Counters:
    """The kernel's counters of memory, in bytes."""

    def __init__(self, kernel: Kernel) -> None:
        self.prog = kernel.prog
        self.missing: list[str] = []
        self.page = 4096
        with contextlib.suppress(*READ_ERRORS):
            self.page = int(kernel.prog["PAGE_SIZE"].value_())

    def of(self, *names: str) -> int | None:
        """Return the first counter that the kernel has, of its nodes or zones; None where it has none."""
        for name in names:
            for array in ("vm_node_stat", "vm_zone_stat"):
                with contextlib.suppress(*READ_ERRORS):
                    index = self.prog.constant(name)
                    # An enumerator of the zones' counters is no index of the nodes'.
                    kind = "node_stat_item" if array == "vm_node_stat" else "zone_stat_item"
                    if index.type_.tag == kind:
                        return max(0, int(self.prog[array][index].counter.value_()))
        return None

    def shares(self) -> Iterator[MemoryShare]:
        """Yield the shares that are counted."""
        page = self.page
        shmem = self.of("NR_SHMEM") or 0
        file = self._pages("page cache", "NR_FILE_PAGES")
        swap_cache = self.of("NR_SWAPCACHE") or 0
        stacks = (self.of("NR_KERNEL_STACK_KB") or 0) * 1024
        free = self._pages("free", "NR_FREE_PAGES")
        yield MemoryShare("free", free + self._tried(self._on_cpus), "free, also what CPUs keep at hand")
        yield MemoryShare("processes", self._pages("processes", "NR_ANON_MAPPED"), "memory of processes of their own")
        yield MemoryShare("page cache", max(0, file - (shmem + swap_cache) * page), "contents of files")
        yield MemoryShare("shared memory", shmem * page, "tmpfs and shared memory")
        yield MemoryShare("slab reclaimable", self._pages("slab", "NR_SLAB_RECLAIMABLE_B", "NR_SLAB_RECLAIMABLE"),
                          "kernel objects that can be given back")
        yield MemoryShare("slab unreclaimable", self._pages("slab", "NR_SLAB_UNRECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE"),
                          "kernel objects that are in use until they are freed")
        yield MemoryShare("kernel stacks", stacks, "stacks of threads")
        yield MemoryShare("page tables", self._pages("page tables", "NR_PAGETABLE")
                          + (self.of("NR_SECONDARY_PAGETABLE") or 0) * page, "page tables")
        vmalloc = self._vmalloc()
        if self._stacks_in_vmalloc():
            vmalloc = max(0, vmalloc - stacks)
        yield MemoryShare("vmalloc", vmalloc, "vmalloc areas (modules and their data among them), without stacks")
        yield MemoryShare("per-cpu", self._tried(self._per_cpu), "per-CPU memory beyond that of the kernel's image")
        yield MemoryShare("huge pages", self._tried(self._huge), "hugetlb pages, free or used")

    def _pages(self, what: str, *names: str) -> int:
        found = self.of(*names)
        if found is None:
            self.missing.append(what)
        return (found or 0) * self.page

    @staticmethod
    def _tried(read: Callable[[], int]) -> int:
        try:
            return read()
        except READ_ERRORS:
            return 0

    def _vmalloc(self) -> int:
        counted = self.of("NR_VMALLOC")
        if counted is not None:
            return counted * self.page
        try:
            return int(self.prog.read_u64(self.prog.symbol("nr_vmalloc_pages").address)) * self.page
        except READ_ERRORS:
            self.missing.append("vmalloc")
            return 0

    def _stacks_in_vmalloc(self) -> bool:
        with contextlib.suppress(*READ_ERRORS):
            return bool(self.prog.type("struct task_struct").has_member("stack_vm_area"))
        return False

    def _per_cpu(self) -> int:
        pages = self.prog.read_u64(self.prog.symbol("pcpu_nr_populated").address)
        units = self.prog.read_u32(self.prog.symbol("pcpu_nr_units").address)
        return int(pages) * int(units) * self.page

    def _huge(self) -> int:
        from drgn.helpers.linux.hugetlb import for_each_hstate

        found = 0
        for number, state in enumerate(for_each_hstate(self.prog)):
            if number >= _MOST_HSTATES:
                break
            found += int(state.nr_huge_pages.value_()) * (self.page << int(state.order.value_()))
        return found

    def _on_cpus(self) -> int:
        """Free pages in the CPUs' own lists, which NR_FREE_PAGES leaves out."""
        from drgn.helpers.linux.percpu import per_cpu_ptr

        from kdumpy.diagnosis.memoryuse.zones import zones
        from kdumpy.kernel.online import online_cpus

        found = 0
        for zone in zones(self.prog):
            # 28f836b6777b "mm/page_alloc: split per cpu page lists and zone stats" (5.14)
            new = zone.type_.type.has_member("per_cpu_pageset")
            for number, cpu in enumerate(online_cpus(self.prog)):
                if number >= 256:
                    break
                own = per_cpu_ptr(zone.per_cpu_pageset if new else zone.pageset, cpu)
                found += int((own.count if new else own.pcp.count).value_())
        return found * self.page


def _caches(kernel: Kernel, page: int) -> list[SlabShare]:
    from kdumpy.diagnosis.memoryuse.usage import cache_nodes

    found: list[SlabShare] = []
    try:
        from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_pages_per_slab

        flag = _reclaim_flag(kernel.prog)
        for number, cache in enumerate(for_each_slab_cache(kernel.prog)):
            if number >= _MOST_CACHES:
                break
            with contextlib.suppress(*READ_ERRORS):
                nodes = cache_nodes(cache)
                slabs = sum(int(node.nr_slabs.counter.value_()) for node in nodes)
                counted = bool(nodes) and nodes[0].type_.type.has_member("total_objects")
                objects = sum(int(node.total_objects.counter.value_()) for node in nodes) if counted else None
                found.append(SlabShare(cache.name.string_().decode("utf-8", "backslashreplace"),
                                       slabs * int(slab_cache_pages_per_slab(cache)) * page, objects,
                                       int(cache.object_size.value_()), bool(int(cache.flags.value_()) & flag)))
    except READ_ERRORS:
        pass
    return nlargest(_SHOWN, found, key=lambda cache: cache.size)


def _reclaim_flag(prog: drgn.Program) -> int:
    try:
        return 1 << int(prog.constant("_SLAB_RECLAIM_ACCOUNT").value_())
    except READ_ERRORS:
        return _RECLAIMABLE


def _processes(kernel: Kernel, page: int) -> list[ProcessShare]:
    """Return the largest processes."""
    found: list[ProcessShare] = []
    cpus = kernel.system.cpus or 1
    with contextlib.suppress(*READ_ERRORS):
        for number, task in enumerate(task_objects(kernel.prog)):
            if number >= _MOST_PROCESSES:
                break
            with contextlib.suppress(*READ_ERRORS):
                pid, mm = int(task.pid.value_()), task.mm
                if pid != int(task.tgid.value_()) or not mm:
                    continue
                file, anonymous, _, shared = _resident(mm.rss_stat, exact=number * cpus < _MOST_SUMS)
                comm = task.comm.string_().decode("utf-8", "backslashreplace")
                found.append(ProcessShare(pid, comm, anonymous * page, file * page, shared * page))
    return nlargest(_SHOWN, found, key=lambda process: process.anonymous + process.shared)


def _resident(counters: drgn.Object, exact: bool) -> list[int]:
    """Return the counts of mm_struct.rss_stat: MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES.

    Per-CPU counters since f1a7941243c1 "mm: convert mm's rss stats into percpu_counter" (6.2); `exact` adds what
    each CPU keeps to itself, some dozens of pages.
    """
    from drgn.helpers.linux.percpu import percpu_counter_sum

    items = list(counters.count if counters.type_.kind == drgn.TypeKind.STRUCT else counters)
    if items[0].type_.has_member("counters"):
        return [max(0, percpu_counter_sum(item) if exact else int(item.count.value_())) for item in items]
    return [max(0, int(item.counter.value_())) for item in items]


def oom_kills(lines: Sequence[str], seconds: Sequence[float | None] = ()) -> Iterator[OomKill]:
    """Yield what the out-of-memory killer ended, by the log's lines."""
    constraint, group, said = "", "", 0
    for number, line in enumerate(lines):
        match = _CONSTRAINT.search(line)
        if match:
            constraint, group, said = match[1].lower(), match[2] or "", int(match[3])
        match = _KILLED.search(line)
        if match:
            same = int(match[1]) == said
            yield OomKill(seconds[number] if number < len(seconds) else None, int(match[1]), match[2],
                          int(match[3] or 0) << 10, constraint if same else "", group if same else "",
                          int(match[4]) if match[4] else None)


def _cgroups(kernel: Kernel, page: int) -> list[CgroupLimit]:
    """Return the cgroups with a limit of memory, the fullest first."""
    prog = kernel.prog
    found: list[CgroupLimit] = []
    with contextlib.suppress(*READ_ERRORS):
        from drgn.helpers.linux.cgroup import cgroup_path, css_for_each_descendant_pre

        root = drgn.Object(prog, "struct mem_cgroup *", prog.read_u64(prog.symbol("root_mem_cgroup").address))
        offset = drgn.offsetof(prog.type("struct mem_cgroup"), "css")
        for number, css in enumerate(css_for_each_descendant_pre(root.css.address_of_())):
            if number >= _MOST_CGROUPS:
                break
            with contextlib.suppress(*READ_ERRORS):
                group = drgn.Object(prog, "struct mem_cgroup *", css.value_() - offset)
                limit = int(group.memory.max.value_())
                if 0 < limit < _NO_LIMIT // page:
                    path = cgroup_path(css.cgroup).decode("utf-8", "backslashreplace")
                    found.append(CgroupLimit(path, int(group.memory.usage.counter.value_()) * page, limit * page,
                                             group.value_()))
    return nlargest(_SHOWN, found, key=lambda group: group.used / max(1, group.limit))
