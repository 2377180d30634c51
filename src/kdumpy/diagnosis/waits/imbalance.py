"""Who left preemption off: code that has returned, and is on no stack any more, with a spinlock that it took.

The scheduler notices when the task sleeps next, mostly after that code: a worker between two works, a thread at its
end, a process on its way out of a system call. What the task ran last stands in memory; whether a function can return
with a spinlock stands in its code.

Sources: kernel/workqueue_internal.h (worker.last_func), kernel/kthread.c, arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

from typing import NamedTuple

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.held import PREEMPTION, SOFTIRQS, SPIN
from kdumpy.diagnosis.crashed.origin import origin_of
from kdumpy.kernel import Kernel, Task
from kdumpy.kernel.values import Frame

_PF_WQ_WORKER = 0x20
"""include/linux/sched.h."""
_OPERATIONS = {0: ("read", "read_iter"), 1: ("write", "write_iter"), 16: ("unlocked_ioctl",), 19: ("read_iter",),
               20: ("write_iter",), 9: ("mmap",), 8: ("llseek",), 74: ("fsync",), 17: ("read", "read_iter"),
               18: ("write", "write_iter"), 3: ("flush", "release")}
"""System calls of x86-64 on an open file, by number, and the file's operation that each calls."""
_SOFTIRQS_OFF = 0xFE00
"""Bits of the preempt count: include/linux/preempt.h."""
_MOST_FILES = 1 << 20
_USER = 3
"""The privilege level in the lowest bits of cs: what lies there are a process's registers."""


class Suspect(NamedTuple):
    """Who is likely to have left preemption off."""

    frame: Frame
    why: str
    """A sentence."""
    spinlock: bool = False
    """It is a spinlock that it did not give back."""


def suspect(crash: Crash, count: int) -> Suspect | None:
    """Return who left preemption off in the task that was found; None where code on its stack keeps it off itself.

    Args:
        crash: the crash.
        count: the count of what keeps preemption off, as the scheduler told it.
    """
    kernel, task, waits = crash.kernel, crash.task, crash.waits
    if kernel is None or task is None or waits is None:
        return None
    own = crash.own_frame
    kinds = (SPIN, SOFTIRQS) if count & _SOFTIRQS_OFF else (SPIN, PREEMPTION)
    # The scheduler keeps preemption off itself.
    of_modules = [frame for frame in crash.below_panic if frame.module]
    if any(waits.holders.within(crash.below_panic if kind is SPIN else of_modules, kind) is not None for kind in kinds):
        return None
    ran = _ran_last(kernel, task, crash.below_panic) if own is None or not own.module else None
    module = own.module if own is not None and own.module else ran.frame.module if ran is not None else None
    modules = [module] if module else [name for name in crash.modules if crash.is_foreign(name)]
    for kind, does in zip(kinds, ("takes a spinlock", "keeps softirqs off" if SOFTIRQS in kinds else
                                  "keeps preemption off"), strict=True):
        leavers = waits.holders.leavers(modules, kind, waits.spins.is_taken if kind is SPIN else None)
        if len(leavers) == 1:
            found = leavers[0]
            before = f"{ran.why} " if ran is not None and ran.frame.function != found.function else ""
            return Suspect(found, f"{before}{found.function}() of the module {found.module} {does}, and has a way out "
                                  "on which it does not give that back.", kind is SPIN)
    return ran


def over_giver(crash: Crash) -> Suspect | None:
    """Return who gave a spinlock back twice, where the count of what keeps preemption off is below zero."""
    if crash.kernel is None or crash.task is None or crash.waits is None or crash.machine != "x86_64":
        return None
    own = crash.own_frame
    ran = _ran_last(crash.kernel, crash.task, crash.below_panic) if own is None or not own.module else None
    module = own.module if own is not None and own.module else ran.frame.module if ran is not None else None
    found = crash.waits.holders.ways_out.twice(module, SPIN) if module else []
    if len(found) == 1:
        return Suspect(found[0], f"{found[0].function}() of the module {module} has a way on which it gives a spinlock "
                                 "back twice.")
    return ran


def _ran_last(kernel: Kernel, task: Task, frames: tuple[Frame, ...]) -> Suspect | None:
    """Return what a task ran last that belongs to a module."""
    try:
        if task.kernel_thread:
            made = kernel.task_object(task.address)
            if int(made.flags) & _PF_WQ_WORKER:
                return _named(kernel, _last_work(kernel, made), "The last work of this worker was {}().")
            ended = any((frame.function or "") in ("do_task_dead", "do_exit", "kthread_exit") for frame in frames)
            origin = origin_of(kernel, task) if ended else None
            return Suspect(origin, f"The thread had run {origin.function}() to its end.") \
                if origin and origin.module else None
        return _of_call(kernel, task)
    except READ_ERRORS:
        return None


def _named(kernel: Kernel, function: int, words: str) -> Suspect | None:
    symbols = kernel.debuginfo.module_symbols
    module = symbols.module_at(function) if symbols and function else None
    if not module:
        return None
    frame = Frame(function, kernel.prog.symbol(function).name, None, module)
    return Suspect(frame, words.format(frame.function))


def _last_work(kernel: Kernel, task: drgn.Object) -> int:
    from drgn.helpers.linux.kthread import kthread_data

    worker = drgn.cast(kernel.prog.type("struct worker *"), kthread_data(task))
    return int(worker.current_func) or (int(worker.last_func) if worker.type_.type.has_member("last_func") else 0)


def _of_call(kernel: Kernel, task: Task) -> Suspect | None:
    """Return the operation of the file on which a process made its system call; x86-64 only.

    Its registers lie at the end of its stack (struct pt_regs; task_pt_regs(), arch/x86/include/asm/processor.h).
    """
    prog = kernel.prog
    if kernel.system.machine != "x86_64":
        return None
    made = kernel.task_object(task.address)
    padding = 16 if _has_fred(prog) else 0
    end = made.stack.value_() + kernel.stack_size - padding
    registers = drgn.Object(prog, "struct pt_regs *", end - drgn.sizeof(prog.type("struct pt_regs")))
    number, descriptor = int(registers.orig_ax), int(registers.di)
    table = made.files.fdt
    if int(registers.cs) & 3 != _USER or number not in _OPERATIONS or \
            not 0 <= descriptor < min(int(table.max_fds), _MOST_FILES):
        return None
    file = table.fd[descriptor]
    if not file:
        return None
    for name in _OPERATIONS[number]:
        function = int(file.f_op.member_(name)) if file.f_op.type_.type.has_member(name) else 0
        found = _named(kernel, function, "The process was on its way out of {}().") if function else None
        if found is not None:
            return found
    return None


def _has_fred(prog: drgn.Program) -> bool:
    """Tell whether the kernel leaves room above the registers for FRED (Linux 6.9: struct fred_frame)."""
    try:
        prog.type("struct fred_info")
    except LookupError:
        return False
    return True
