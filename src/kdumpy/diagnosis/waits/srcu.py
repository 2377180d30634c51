"""Waits for a grace period of SRCU: which srcu_struct it is of, and how many of its readers it waits for.

SRCU waits for its own readers, wherever they sleep, and not for CPUs.
Source: kernel/rcu/srcutree.c, include/linux/srcutree.h.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed.following import Follower
from kdumpy.diagnosis.waits.holders import Holders
from kdumpy.kernel import Kernel, Task
from kdumpy.kernel.values import Frame

WAITERS = ("synchronize_srcu", "__synchronize_srcu", "srcu_barrier")
"""Beginnings of the functions that wait; the srcu_struct is their first argument."""
_MOST_CPUS = 8192


def structure_of(kernel: Kernel, holders: Holders, task: Task, frames: Sequence[Frame],
                 waiters: tuple[str, ...] = WAITERS) -> int:
    """Return the address of the srcu_struct whose readers a task waits for; 0 where its caller's code does not tell.

    Or of another thing that is the first argument of the functions that wait for it.

    Args:
        kernel: whose task it is.
        holders: knows the registers along its stack.
        task: the one that sleeps.
        frames: its stack, innermost first, inlined calls included.
        waiters: beginnings of the names of those functions.
    """
    last = max((number for number, frame in enumerate(frames) if (frame.function or "").startswith(waiters)),
               default=-1)
    if kernel.system.machine != "x86_64" or not 0 <= last < len(frames) - 1:
        return 0
    registers = holders.registers(task, frames)
    if len(registers) <= last + 1:
        return 0
    call = operands.decode_call(holders.read, frames[last + 1].pc, {})
    if call is None:
        return 0
    flow = Follower(kernel, holders.read, frames[last + 1:], call.address, registers[last + 1])
    return flow.number(flow.values.get("rdi"), ask_memory=True) or 0


def readers_of(prog: drgn.Program, address: int) -> int | None:
    """Return how many readers of a srcu_struct are within their section; None where that cannot be read.

    Newer kernels have both counts of a side in one structure (`srcu_ctrs`); older ones an array of two for each.
    """
    from drgn.helpers.linux.percpu import per_cpu_ptr

    from kdumpy.kernel.online import online_cpus

    count = 0
    try:
        own = drgn.Object(prog, "struct srcu_struct *", address).sda
        for number, cpu in enumerate(online_cpus(prog)):
            if number >= _MOST_CPUS:
                return None
            data = per_cpu_ptr(own, cpu)
            if data.type_.type.has_member("srcu_ctrs"):
                count += sum(_number(side.srcu_locks) - _number(side.srcu_unlocks) for side in data.srcu_ctrs)
            else:
                count += sum(map(_number, data.srcu_lock_count)) - sum(map(_number, data.srcu_unlock_count))
    except READ_ERRORS:
        return None
    return count if count >= 0 else None


def _number(counter: drgn.Object) -> int:
    with contextlib.suppress(AttributeError, *READ_ERRORS):
        return int(counter.counter.value_())
    return int(counter.value_())
