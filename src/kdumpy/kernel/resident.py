"""How many pages of processes are in memory, for thousands of them: where the counters lie is worked out once.

It is what drgn's task_rss() tells (a test compares them), which is asked where a structure is not as known here.
"""

from __future__ import annotations

import struct

import drgn
from drgn.helpers.linux.mm import task_rss
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.pid import for_each_task_in_group

from kdumpy.kernel.online import online_cpus

_CACHE = "kdumpy.resident"
_KINDS = ("MM_FILEPAGES", "MM_ANONPAGES", "MM_SHMEMPAGES")
_HIGHEST = (1 << 64) - 1


def resident_pages(task: drgn.Object) -> int:
    """Return the pages in memory of the process of a `struct task_struct *`; 0 for a thread of the kernel.

    Raises:
        drgn.FaultError: the counters are not in the dump.
    """
    prog = task.prog_
    if _CACHE not in prog.cache:
        try:
            prog.cache[_CACHE] = _Counters(prog)
        except (LookupError, AttributeError):
            prog.cache[_CACHE] = None
    counters = prog.cache[_CACHE]
    return int(counters.total(task) if counters is not None else task_rss(task).total)


class _Counters:
    """The counters of one kernel's address spaces (struct mm_struct, rss_stat)."""

    def __init__(self, prog: drgn.Program) -> None:
        """Find out where they lie.

        Raises:
            LookupError, AttributeError: a structure is not as known here.
        """
        self._prog = prog
        made, task = prog.type("struct mm_struct"), prog.type("struct task_struct")
        kinds = [int(prog.constant(kind)) for kind in _KINDS]
        self._mm = int(drgn.offsetof(task, "mm"))
        self._signal = int(drgn.offsetof(task, "signal"))
        self._threads = int(drgn.offsetof(prog.type("struct signal_struct"), "nr_threads"))
        self._of_thread: int | None = None
        counted = made.member("rss_stat").type
        if counted.kind == drgn.TypeKind.ARRAY:
            # f1a7941243c1 "mm: convert mm's rss stats into percpu_counter" (6.2)
            one = prog.type("struct percpu_counter")
            start, step = int(drgn.offsetof(made, "rss_stat")), drgn.sizeof(one)
            self._places = [start + kind * step + int(drgn.offsetof(one, "count")) for kind in kinds]
            self._of_cpus = [start + kind * step + int(drgn.offsetof(one, "counters")) for kind in kinds]
            nothing = drgn.Object(prog, "void *", value=0)
            self._cpus = [per_cpu_ptr(nothing, cpu).value_() for cpu in online_cpus(prog)]
            return
        start = int(drgn.offsetof(made, "rss_stat.count"))
        self._places = [start + kind * 8 for kind in kinds]
        self._of_cpus = []
        if task.has_member("rss_stat"):     # SPLIT_RSS_COUNTING: each thread keeps what it has not handed in yet
            self._of_thread = int(drgn.offsetof(task, "rss_stat.count"))
            self._cached = struct.Struct(f"<{max(kinds) + 1}i")
            self._kinds = kinds

    def total(self, task: drgn.Object) -> int:
        """Return the pages in memory of a task's process."""
        read, address = self._prog.read_u64, task.value_()
        mm = read(address + self._mm)
        if not mm:
            return 0
        pages = sum(_signed(read(mm + place), 64) for place in self._places)
        for place in self._of_cpus:
            counter = read(mm + place)
            pages += sum(_signed(self._prog.read_u32(counter + cpu & _HIGHEST), 32) for cpu in self._cpus)
        if self._of_thread is not None:
            alone = self._prog.read_u32(read(address + self._signal) + self._threads) == 1
            threads = [address] if alone else [one.value_() for one in for_each_task_in_group(task, include_self=True)]
            for thread in threads:
                kept = self._cached.unpack(self._prog.read(thread + self._of_thread, self._cached.size))
                pages += sum(kept[kind] for kind in self._kinds)
        return pages


def _signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> bits - 1 else number
