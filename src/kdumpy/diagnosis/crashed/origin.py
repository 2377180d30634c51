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
        function = int(_worker(kernel.prog, found).current_func) if int(found.flags) & _PF_WQ_WORKER \
            else int(_thread(found).threadfn)
        symbol = kernel.prog.symbol(function)
    except READ_ERRORS:
        return None
    symbols = kernel.debuginfo.module_symbols
    return Frame(function, symbol.name, 0, symbols.module_at(function) if symbols else None)


def of_thread(kernel: Kernel | None, task: Task | None) -> tuple[str, ...]:
    """Return the crash shell's lines that show what a kernel thread was set to do."""
    if kernel is None or task is None:
        return ("runq",)
    try:
        found = kernel.task_object(task.address)
        shown = f"struct worker.current_func {_worker(kernel.prog, found).value_():x}" \
            if int(found.flags) & _PF_WQ_WORKER else f"struct kthread.threadfn {_thread(found).value_():x}"
    except READ_ERRORS:
        return (f"ps {task.pid}",)
    return f"ps {task.pid}", shown


def _worker(prog: drgn.Program, task: drgn.Object) -> drgn.Object:
    from drgn.helpers.linux.kthread import kthread_data

    return drgn.cast(prog.type("struct worker *"), kthread_data(task))


def _thread(task: drgn.Object) -> drgn.Object:
    from drgn.helpers.linux.kthread import to_kthread

    return to_kthread(task)
