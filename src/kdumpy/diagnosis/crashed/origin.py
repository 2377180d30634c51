"""What a running kernel thread was set to do, where its stack cannot be read: its registers were never saved.

A CPU that takes no interrupts and no NMI keeps its registers to itself. What its thread was started for, or which work
it was given, stands in memory. Sources: kernel/kthread.c (struct kthread), kernel/workqueue_internal.h (struct worker).
"""

from __future__ import annotations

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame, Task

_PF_WQ_WORKER = 0x20
"""include/linux/sched.h."""


def origin_of(kernel: Kernel, task: Task) -> Frame | None:
    """Return the work or the function that a kernel thread was running; None for a process, or where it is not told."""
    if not task.kernel_thread or task.pid == 0:
        return None
    try:
        found = kernel.task_object(task.address)
        function = _work(kernel.prog, found) if int(found.flags) & _PF_WQ_WORKER else _function(kernel.prog, found)
        symbol = kernel.prog.symbol(function)
    except READ_ERRORS:
        return None
    symbols = kernel.debuginfo.module_symbols
    return Frame(function, symbol.name, 0, symbols.module_at(function) if symbols else None)


def _work(prog: drgn.Program, task: drgn.Object) -> int:
    from drgn.helpers.linux.kthread import kthread_data

    return int(drgn.cast(prog.type("struct worker *"), kthread_data(task)).current_func)


def _function(prog: drgn.Program, task: drgn.Object) -> int:
    from drgn.helpers.linux.kthread import to_kthread

    return int(to_kthread(task).threadfn)
