"""Locks that are an rt_mutex below: all that can sleep on PREEMPT_RT, its spinlocks among them, and rt_mutexes.

A task that waits for one is queued by a `struct rt_mutex_waiter` on its own stack, to which `task->pi_blocked_on`
points: it names the lock, and the lock's word its owner. Queued nowhere is only a writer that waits for readers to go:
it owns the rt_mutex inside of the lock already, and is found by that.

Sources: kernel/locking/rtmutex_common.h, rwbase_rt.c, rtmutex_api.c, spinlock_rt.c; include/linux/rwbase_rt.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.kernel import Kernel, Stack, Task
from kdumpy.kernel.tasks import task_value

RTLOCK_WAIT = 0x1000
"""TASK_RTLOCK_WAIT, in task->__state of a task that waits for a spinlock: include/linux/sched.h, since 5.15."""
_HAS_WAITERS = 1
"""RT_MUTEX_HAS_WAITERS, the lowest bit of rt_mutex_base.owner."""
_WRITER_BIAS = 1 << 30
"""rwbase_rt.readers: below it, the number of readers that a waiting writer must see gone."""
_DEEPEST = 14
"""Frames in which the kind of lock is looked for."""


class RtWait(NamedTuple):
    """What a task waits for."""

    kind: str
    """mutex, rwsem, spinlock, rwlock, rt_mutex."""
    address: int
    mode: str
    """read or write, where the kind tells them apart."""
    owner: Task | None = None
    readers: int = 0
    """Who must go before a writer gets it."""


def is_rt(prog: drgn.Program) -> bool:
    """Tell whether the kernel was built with PREEMPT_RT: its mutex is an rt_mutex."""
    try:
        return bool(prog.type("struct mutex").has_member("rtmutex"))
    except LookupError:
        return False


def waited(kernel: Kernel, task: drgn.Object, stack: Stack,
           stack_words: Callable[[drgn.Object], tuple[int, Sequence[int]]]) -> RtWait | None:
    """Return the lock that a sleeping task waits for; None where it waits for none of these.

    Args:
        kernel: the opened dump.
        task: struct task_struct *.
        stack: its frames.
        stack_words: gives the address and the 64-bit words of the part of its stack that is in use.
    """
    try:
        waiter = task.pi_blocked_on
        if waiter:
            return _queued(kernel, stack, waiter.lock)
        return _writer(kernel, task, stack, stack_words) if is_rt(kernel.prog) else None
    except (AttributeError, *READ_ERRORS):      # a kernel without CONFIG_RT_MUTEXES has no such member
        return None


def _queued(kernel: Kernel, stack: Stack, lock: drgn.Object) -> RtWait:
    kind, mode = _kind_of(stack, rt=is_rt(kernel.prog))
    inside = _offset(kernel.prog, "rtmutex") if kind in ("rwsem", "rwlock") else 0
    holder = int(lock.owner.value_()) & ~_HAS_WAITERS
    owner = task_value(kernel.task_object(holder)) if holder else None
    return RtWait(kind, int(lock.value_()) - inside, mode, owner)


def _writer(kernel: Kernel, task: drgn.Object, stack: Stack,
            stack_words: Callable[[drgn.Object], tuple[int, Sequence[int]]]) -> RtWait | None:
    """Find the lock whose readers a writer waits for, among the words of its stack."""
    kind, mode = _kind_of(stack, rt=True)
    if kind not in ("rwsem", "rwlock") or mode != "write":
        return None
    owner, readers = _offset(kernel.prog, "rtmutex.owner"), _offset(kernel.prog, "readers")
    for word in dict.fromkeys(stack_words(task)[1]):
        if not memory.is_kernels(word):
            continue
        try:
            if kernel.prog.read_u64(word + owner) & ~_HAS_WAITERS != task.value_():
                continue
            count = kernel.prog.read_u32(word + readers)
        except drgn.FaultError:
            continue
        if 0 < count < _WRITER_BIAS:
            return RtWait(kind, word, mode, readers=count)
    return None


def _offset(prog: drgn.Program, member: str) -> int:
    return int(drgn.offsetof(prog.type("struct rwbase_rt"), member))


def _kind_of(stack: Stack, *, rt: bool) -> tuple[str, str]:
    """Return (kind of the lock, read or write), told by the functions that wait."""
    names = [frame.function or "" for frame in stack.frames[:_DEEPEST]]

    def has(*beginnings: str) -> bool:
        return any(name.startswith(beginnings) for name in names)

    if not rt or has("rt_mutex_wait_proxy_lock", "futex_lock_pi"):
        return "rt_mutex", ""
    if has("rwbase_", "__rwbase_", "down_read", "down_write", "rt_read_lock", "rt_write_lock"):
        reads = any("read_lock" in name or "down_read" in name for name in names)
        return "rwlock" if has("rtlock_", "rt_read_lock", "rt_write_lock") else "rwsem", "read" if reads else "write"
    return "spinlock" if has("rtlock_", "rt_spin_lock") else "mutex", ""
