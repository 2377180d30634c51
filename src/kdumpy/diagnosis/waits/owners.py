"""Whether the task that a lock's word names can be the one that took it.

A task that ends with a lock leaves its address in the lock's word, and the memory there is soon another task's. Who
is named then has nothing to do with the lock.

Sources: kernel/locking/mutex.c (unlocking wakes the first waiter), include/linux/timekeeper_internal.h.
"""

from __future__ import annotations

import contextlib

import drgn
from drgn.helpers.linux.pid import find_task

from kdumpy.debuginfo.reading import READ_ERRORS

_MARGIN = 1.0
"""Seconds that two of the kernel's clocks, read at their last ticks, may be apart over one wait."""


def is_gone(owner: drgn.Object) -> bool:
    """Tell whether the kernel does not know a task any more: its number leads to no task, or to another one."""
    with contextlib.suppress(*READ_ERRORS):
        found = find_task(owner.prog_, owner.pid.value_())
        return not found or found.value_() != owner.value_()
    return False


def came_later(owner: drgn.Object, waiter: drgn.Object, lock: drgn.Object, waited: float | None,
               stack_size: int) -> bool:
    """Tell whether a task was created after another one had begun to wait for what it is said to hold.

    Only asked of the first waiter: whoever gives the lock back wakes that one, which then waits anew. Both times are
    durations, as tasks are dated by another clock than sleeps are.

    Args:
        owner: struct task_struct *, as the lock's word names it.
        waiter: struct task_struct *, of one who waits.
        lock: struct mutex * or struct rw_semaphore *.
        waited: seconds since the waiter ran; None where that is not known.
        stack_size: bytes of a kernel stack.
    """
    if waited is None:
        return False
    with contextlib.suppress(*READ_ERRORS):
        # Locks have no list head, but a pointer to their first waiter, since 7.1.
        made = lock.type_.type
        first = lock.wait_list.next if made.has_member("wait_list") else lock.first_waiter
        if not 0 <= first.value_() - waiter.stack.value_() < stack_size:
            return False
        now = int(owner.prog_["tk_core"].timekeeper.tkr_mono.base.value_())
        return (now - int(owner.start_time.value_())) / 1e9 + _MARGIN < waited
    return False
