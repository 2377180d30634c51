"""CPUs that took no timer interrupt for long: stuck with interrupts off, whoever noticed.

The kernel's own detectors of hard lockups need the NMI of a performance counter, or another CPU that looks (6.5,
1f423c905a6b "watchdog/hardlockup: detect hard lockups using secondary (buddy) CPUs"); where neither is, an
operator's NMI ends the machine, and the dump alone can tell what it hung in.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import islice

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.kernel import Kernel
from kdumpy.kernel.panic import SAVERS
from kdumpy.kernel.values import Cpu, Task

_INTERRUPTS = 1 << 9
"""x86: the interrupt flag of RFLAGS."""
_CLOCKS_APART = 1.0
"""Seconds."""
_NO_TICKS = 2.0
"""Seconds without a tick that no CPU spends with interrupts merely off for a moment; more than `_CLOCKS_APART`."""
_MOST_TASKS = 65_536
_DEFAULT_THRESHOLD = 10
"""Seconds; kernel.watchdog_thresh."""


@dataclass(frozen=True)
class Tickless:
    """A CPU whose clock stood still."""

    cpu: Cpu
    seconds: float
    """Since its last tick."""
    threshold: int
    """Seconds after which the kernel's own detector calls that a hard lockup (kernel.watchdog_thresh)."""
    interrupts_off: bool | None
    """What its registers say; None where they are not known."""


def tickless_cpus(kernel: Kernel, now: float | None) -> tuple[Tickless, ...]:
    """Return the busy CPUs that had no tick for longer than the kernel allows, the longest first.

    Args:
        kernel: the dump.
        now: the clock of the log at the end, in seconds; None where the log is lost.
    """
    clock = _monotonic(kernel.prog, now)
    if clock is None:
        return ()
    try:
        threshold = int(kernel.prog["watchdog_thresh"].value_())
    except READ_ERRORS:
        threshold = _DEFAULT_THRESHOLD
    found = []
    for cpu in kernel.cpus:
        # An idle CPU stops its tick by itself, and so may one with a single task that is told to (nohz_full).
        if cpu.idle or cpu.task is None or (cpu.stack.frames and cpu.stack.frames[0].user):
            continue
        since = _since_tick(kernel.prog, cpu.number, clock)
        if since is not None and since > max(threshold, 1):
            found.append(Tickless(cpu, since, threshold, interrupts_off(kernel, cpu)))
    return tuple(sorted(found, key=lambda item: -item.seconds))


def why_unknown(kernel: Kernel, now: float | None) -> str:
    """Return why it cannot be told of all busy CPUs whether they took ticks; empty where it can."""
    if not kernel.cpus:
        return kernel.problems.get("cpus", "no CPU is known")
    clock = _monotonic(kernel.prog, now)
    if clock is None:
        return "the kernel's clock cannot be read"
    for cpu in kernel.cpus:
        if cpu.idle:
            continue
        if cpu.task is None:
            return f"the task of CPU {cpu.number} cannot be read"
        try:
            due = _due(kernel.prog, cpu.number)
        except READ_ERRORS as error:
            return f"the clock of CPU {cpu.number} cannot be read: {error}"
        if due and clock - due / 1e9 > _NO_TICKS and interrupts_off(kernel, cpu) is None:
            return f"the registers of CPU {cpu.number} cannot be read"
    return ""


def went_on(kernel: Kernel, still: Tickless, now: float | None) -> Task | None:
    """Return a task that another CPU ran while one had no ticks; None where nothing shows that time went on.

    A virtual machine that was stopped has no ticks either, for as long: then no task came to a CPU in the middle of
    that time. The begin of the last time slice is the run queue's clock, which is the log's (kernel/sched/stats.h,
    sched_info_arrive(); kernel/sched/fair.c, update_curr()).
    """
    end = now if now is not None else _monotonic(kernel.prog, now)
    if end is None:
        return None
    begin, until = (int((end - still.seconds * part) * 1e9) for part in (0.8, 0.2))
    for task in islice(kernel.tasks(), _MOST_TASKS):
        with contextlib.suppress(*READ_ERRORS):
            made = kernel.task_object(task.address)
            ran = int(made.sched_info.last_arrival) or int(made.se.exec_start)
            if begin < ran < until and task.cpu != still.cpu.number:
                return task
    return None


def loops_with_interrupts(kernel: Kernel, cpu: Cpu, now: float | None) -> bool | None:
    """Tell whether a CPU that is stuck takes interrupts; None where the dump does not say.

    Its registers are of one moment, and a loop may turn interrupts off and on; its last tick tells of the time before.
    """
    if interrupts_off(kernel, cpu) is False:
        return True
    clock = _monotonic(kernel.prog, now)
    since = None if clock is None else _since_tick(kernel.prog, cpu.number, clock)
    return None if since is None else since <= _NO_TICKS


def _monotonic(prog: drgn.Program, now: float | None) -> float | None:
    """Return the monotonic clock at the end, or a little less: as the timekeeper had it last, or by the log.

    The timekeeper may have stood still itself. The log has the scheduler's clock: on x86-64 the same within a part of
    a second, on arm64 seconds behind, for it starts later; whatever it is, it is taken for fast.
    """
    from drgn.helpers.linux.timekeeping import ktime_get_seconds

    known = [] if now is None else [now - _CLOCKS_APART]
    with contextlib.suppress(*READ_ERRORS):
        known.append(float(ktime_get_seconds(prog).value_()))
    return max(known, default=None)


def _since_tick(prog: drgn.Program, cpu: int, now: float) -> float | None:
    """Every tick sets the timer of the next one, at most a hundredth of a second ahead.

    The run queue's clock would not do: whoever wakes a task for that CPU, and the panic itself, sets it.
    """
    try:
        due = _due(prog, cpu)
    except READ_ERRORS:
        return None
    return now - due / 1e9 if due > 0 else None     # 0: a kernel without high-resolution timers never set it


def _due(prog: drgn.Program, cpu: int) -> int:
    from drgn.helpers.linux.percpu import per_cpu

    return int(per_cpu(prog["tick_cpu_sched"], cpu).sched_timer.node.expires)


def interrupts_off(kernel: Kernel, cpu: Cpu) -> bool | None:
    """Tell whether a CPU's interrupts were off when it was stopped; None where its registers are not known.

    Asked are those of what an NMI interrupted there: they tell of the CPU's own work.
    """
    try:
        trace = kernel.prog.stack_trace(kernel.task_object(cpu.task.address)) if cpu.task else None
    except READ_ERRORS:
        return None
    for frame in trace or ():
        if frame.interrupted and not frame.is_inline and frame.name not in SAVERS:
            registers = frame.registers()
            flags = registers.get("rflags", registers.get("eflags"))
            return None if flags is None else not flags & _INTERRUPTS
    return None
