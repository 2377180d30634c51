"""Tasks and CPUs as values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import drgn
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.sched import cpu_curr

from kdumpy.debuginfo.reading import READ_ERRORS, is_damage
from kdumpy.errors import DamagedDump
from kdumpy.kernel.online import online_cpus
from kdumpy.kernel.stacks import Stacks
from kdumpy.kernel.taskreader import task_value as task_value
from kdumpy.kernel.taskreader import tasks_by_id
from kdumpy.kernel.values import Cpu, Stack

MOST_TASKS = 4 << 20
"""PID_MAX_LIMIT of a 64-bit kernel: a list that is longer goes in circles."""
MOST_CPUS = 8192
"""The largest NR_CPUS that distributions build."""


def task_objects(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield the `struct task_struct *` of every thread but the idle tasks, each once, in the order of their ids.

    Where the tree of process ids is damaged, the list of processes gives what it lacks, before the error.

    Raises:
        DamagedDump: not all tasks could be found by the tree.
    """
    seen: set[int] = set()
    try:
        yield from _each_once(tasks_by_id(prog), seen)
    except (DamagedDump, drgn.FaultError) as error:
        count = len(seen)
        with contextlib.suppress(*READ_ERRORS):
            yield from _each_once(_by_list(prog), seen, known=True)
        read = f"{count} tasks were read by it, {len(seen) - count} more by the list of processes"
        if isinstance(error, DamagedDump):
            raise DamagedDump(error.what, where=error.where, why=f"{error.why}; {read}".removeprefix("; ")) from error
        raise DamagedDump("the tree of process ids is damaged", where=f"address {error.address:016x}",
                          why=f"it leads there, where no memory is; {read}") from error


def _each_once(tasks: Iterator[drgn.Object], seen: set[int], *, known: bool = False) -> Iterator[drgn.Object]:
    """Yield tasks that are not in `seen`; with `known`, one that is does not mean a circle."""
    for task in tasks:
        address = task.value_()
        if address in seen and known:
            continue
        if address in seen or len(seen) >= MOST_TASKS:
            raise DamagedDump("the list of tasks runs in a circle", where=f"address {address:#x}")
        seen.add(address)
        yield task


def _by_list(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield the tasks by the list of processes and that of each one's threads."""
    for leader in list_for_each_entry("struct task_struct", prog["init_task"].tasks.address_of_(), "tasks"):
        yield leader
        with contextlib.suppress(*READ_ERRORS):
            yield from list_for_each_entry("struct task_struct", leader.signal.thread_head.address_of_(),
                                           "thread_node")


def cpus(prog: drgn.Program, stacks: Stacks, panicked: int | None) -> Iterator[Cpu]:
    """Yield every CPU that was online, with the stack of what ran on it."""
    for count, number in enumerate(online_cpus(prog)):
        if count >= MOST_CPUS:
            return
        try:
            current = cpu_curr(prog, number)
            task = task_value(current)
            stack = stacks.of(current)
        except READ_ERRORS as error:
            yield Cpu(number, None, number == panicked, False, Stack((), str(error)),
                      "cannot be read: the file is damaged there" if is_damage(error) else "not in the dump")
            continue
        idle = task.pid == 0
        yield Cpu(number, task, number == panicked, idle, stack, _doing(stack, idle, number == panicked))


def _doing(stack: Stack, idle: bool, panicked: bool) -> str:
    if panicked:
        return "panicked"
    names = [frame.function or "" for frame in stack.frames]
    if idle and any("idle" in name or name == "mwait" for name in names):
        return "idle"
    if stack.frames and stack.frames[0].user:
        return "in user space"
    first = next((name for name in names if name), None)
    return f"in the kernel: {first}" if first else "unknown"
