"""Where the memory was, by the kernel's own counters; the parts add up to all of it."""

from __future__ import annotations

from collections.abc import Sequence

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.details.model import Census, Share, TaskRow
from kdumpy.diagnosis.usage import largest_slabs
from kdumpy.kernel import Kernel

_LARGEST = 12
_KIB = 1024


def read(kernel: Kernel, tasks: Sequence[TaskRow], missing: dict[str, str]) -> Census:
    """Return the census; empty, with the reason in `missing`, where the counters cannot be read."""
    slabs = tuple(row for row in largest_slabs(kernel)[:_LARGEST] if row[1])
    leaders = {task.tgid: task for task in tasks if task.rss and task.pid == task.tgid}
    processes = tuple((task.pid, task.comm, task.rss or 0)
                      for task in sorted(leaders.values(), key=lambda task: -(task.rss or 0))[:_LARGEST])
    total = kernel.system.memory_bytes
    try:
        shares = _shares(kernel)
    except READ_ERRORS as error:
        missing["memory"] = f"the counters cannot be read: {error}"
        return Census(total, (), slabs, processes)
    if total is None:
        missing["memory"] = kernel.problems.get("memory", "the size of the memory is not in the dump")
        return Census(None, (), slabs, processes)
    rest = total - sum(share.size for share in shares)
    if rest > 0:
        shares.append(Share("not counted", "taken by drivers and the kernel, page by page, without a counter", rest))
    return Census(max(total, total - rest), tuple(share for share in shares if share.size > 0), slabs, processes)


def _shares(kernel: Kernel) -> list[Share]:
    """Return the parts that have counters.

    Source: mm/vmstat.c, vmstat_text; fs/proc/meminfo.c. The per-CPU parts of the counters (at most 125 pages
    a CPU) are left out. NR_FILE_PAGES counts shmem too.
    """
    prog = kernel.prog
    page = int(prog["PAGE_SIZE"].value_())

    def counter(array: str, *names: str, unit: int = page) -> int:
        for name in names:
            try:
                return max(0, int(prog[array][prog.constant(name)].counter.value_())) * unit
            except READ_ERRORS:
                continue
        return 0

    node = "vm_node_stat"
    shared = counter(node, "NR_SHMEM")
    return [
        Share("processes", "anonymous memory: heaps and stacks", counter(node, "NR_ANON_MAPPED")),
        Share("shared and tmpfs", "shared memory, and files that live in memory", shared),
        Share("file cache", "contents of files; given back when needed",
              max(0, counter(node, "NR_FILE_PAGES") - shared)),
        Share("huge pages", "reserved for huge pages (hugetlb)", _huge(kernel, page)),
        Share("slab, in use", "the kernel's own objects, which cannot be given back",
              counter(node, "NR_SLAB_UNRECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE")),
        Share("slab, reclaimable", "the kernel's caches of names and inodes; given back when needed",
              counter(node, "NR_SLAB_RECLAIMABLE_B", "NR_SLAB_RECLAIMABLE")),
        Share("kernel stacks", "a stack for every thread", counter(node, "NR_KERNEL_STACK_KB", unit=_KIB)),
        Share("page tables", "which address is which page", counter(node, "NR_PAGETABLE")
              or counter("vm_zone_stat", "NR_PAGETABLE")),
        Share("free", "used by nobody", counter("vm_zone_stat", "NR_FREE_PAGES")),
    ]


def _huge(kernel: Kernel, page: int) -> int:
    try:
        from drgn.helpers.linux.hugetlb import for_each_hstate, huge_page_size

        return sum(int(state.nr_huge_pages.value_()) * int(huge_page_size(state).value_())
                   for state in for_each_hstate(kernel.prog))
    except (*READ_ERRORS, ImportError):
        return 0
