"""CPUs that spin until something on another CPU has come to its end: a timer's function, an interrupt's, a call.

del_timer_sync(), hrtimer_cancel(), synchronize_hardirq() and smp_call_function() turn in a loop and take no lock. Whom
they wait for stands in the CPUs' own structures: the timer whose function runs there, the handler on the stack, the
call that has not been answered.

Sources: kernel/time/timer.c (struct timer_base, running_timer), kernel/time/hrtimer.c (hrtimer_clock_base.running),
kernel/irq/manage.c, kernel/softirq.c, kernel/smp.c (call_single_queue).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.crashed.tickless import interrupts_off
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Cpu, Frame

TIMER, HRTIMER, INTERRUPT, TASKLET, CALL = "timer", "high-resolution timer", "interrupt", "tasklet", "call"
SYNCS = (TIMER, HRTIMER, INTERRUPT, TASKLET, CALL)
_WAITERS: Mapping[str, tuple[str, ...]] = {
    TIMER: ("del_timer_sync", "__timer_delete_sync", "timer_delete_sync", "timer_shutdown_sync",
            "try_to_del_timer_sync", "__try_to_del_timer_sync", "del_singleshot_timer_sync", "__del_timer_sync"),
    HRTIMER: ("hrtimer_cancel", "hrtimer_try_to_cancel", "hrtimer_active"),
    INTERRUPT: ("__synchronize_hardirq", "synchronize_hardirq", "__synchronize_irq"),
    TASKLET: ("tasklet_unlock_spin_wait", "tasklet_disable_in_atomic"),
    CALL: ("csd_lock_wait", "smp_call_function_single", "smp_call_function_many", "smp_call_function_any",
           "generic_exec_single", "__csd_lock_wait"),
}
"""Functions that turn until the end of what another CPU runs."""
_RUNNERS: Mapping[str, tuple[str, ...]] = {
    TIMER: ("call_timer_fn", "expire_timers", "__run_timers"), HRTIMER: ("__hrtimer_run_queues", "__run_hrtimer"),
    INTERRUPT: ("__handle_irq_event_percpu", "handle_irq_event_percpu", "handle_irq_event"),
    TASKLET: ("tasklet_action_common",),
}
"""Functions that call what is waited for."""
_MOST_BASES = 16
_TIMERS = {TIMER: "struct timer_list *", HRTIMER: "struct hrtimer *"}


class Sync(NamedTuple):
    """A place where a CPU turns until something has ended."""

    number: int
    """Of the frame that turns."""
    kind: str


class Runner(NamedTuple):
    """Who runs what is waited for."""

    cpu: Cpu
    frame: Frame
    """The function that has not ended."""
    frames: tuple[Frame, ...]
    """The stack of that context: from what it does now to that function and outwards."""


def syncing_at(frames: Sequence[Frame]) -> Sync | None:
    """Return where a stack turns until something has ended; None where it does not."""
    for number, frame in enumerate(frames):
        name = frame.function or ""
        kind = next((kind for kind, names in _WAITERS.items() if name.startswith(names) and not frame.module), None)
        if kind is not None:
            # The outermost of the functions that do it, for it has the argument.
            while number + 1 < len(frames) and (frames[number + 1].function or "").startswith(_WAITERS[kind]) \
                    and not frames[number + 1].module:
                number += 1
            return Sync(number, kind)
        if frame.module:
            return None
    return None


def runner_of(kernel: Kernel, kind: str, words: Sequence[int], cpu: Cpu, beyond: int) -> tuple[int, Runner | None]:
    """Return (address of what is waited for, who runs it); the address is 0 where it cannot be told.

    Args:
        kernel: the opened dump.
        kind: of the wait.
        words: values that the waiting function had: one of them is the timer's address.
        cpu: who waits.
        beyond: number of the frame that turns: what interrupted it is no runner of what it waits for.
    """
    if kind in (TIMER, HRTIMER):
        find = _running_timers if kind == TIMER else _running_hrtimers
        found = list(find(kernel, [item.number for item in kernel.cpus]))
        timer, number = next(((timer, number) for timer, number in found if timer in words), (0, None))
        if number is None:
            return 0, None
        function = _function_of(kernel, kind, timer)
        # Since 6.9 a CPU runs the timers of another one that is idle (timer_expire_remote()).
        near = sorted(kernel.cpus, key=lambda item: (not _shows(item, function), item.number != number))
        runner = next((ran for item in near
                       if (ran := _context(item, kind, beyond if item is cpu else -1)) is not None), None)
        # It may have ended in a jump (a tail call), so that it is on no stack; the timer has its name.
        return timer, runner._replace(frame=function) if runner and function else runner
    if kind == CALL:
        return 0, unanswering(kernel, cpu)
    for other in (cpu, *(item for item in kernel.cpus if item is not cpu)):
        runner = _context(other, kind, beyond if other is cpu else -1)
        if runner is not None:
            return 0, runner
    return 0, None


def _context(cpu: Cpu, kind: str, beyond: int) -> Runner | None:
    """Return what a CPU runs by a runner of a kind; of its own stack, outside of the frame that turns."""
    frames = cpu.stack.frames
    at = next((number for number, frame in enumerate(frames) if number > max(beyond, 0) and not frame.module
               and (frame.function or "").startswith(_RUNNERS[kind])), None)
    if at is None:
        return None
    # None between them: the function ended in a jump to the one that turns.
    called = next((number for number in range(at - 1, beyond, -1) if frames[number].symbol), at)
    return Runner(cpu, frames[called], frames[: at + 1])


def _shows(cpu: Cpu, function: Frame | None) -> bool:
    return function is not None and any(frame.symbol == function.symbol for frame in cpu.stack.frames)


def unanswering(kernel: Kernel, cpu: Cpu) -> Runner | None:
    """Return the CPU that has not run the function that another one asked it to, because its interrupts are off."""
    from drgn.helpers.linux.percpu import per_cpu

    with contextlib.suppress(*READ_ERRORS):
        queue = kernel.prog["call_single_queue"]        # what each CPU was asked for and has not done
        for other in kernel.cpus:
            frames = other.stack.frames
            if other.number != cpu.number and frames and per_cpu(queue, other.number).first \
                    and interrupts_off(kernel, other) is not False:
                return Runner(other, culprit.choose(culprit.watched(frames)).frame or frames[0], frames)
    return None


def _function_of(kernel: Kernel, kind: str, timer: int) -> Frame | None:
    """Return the function of a timer, where a module has it."""
    symbols = kernel.debuginfo.module_symbols
    with contextlib.suppress(*READ_ERRORS):
        function = int(drgn.Object(kernel.prog, _TIMERS[kind], timer).function.value_())
        module = symbols.module_at(function) if symbols else None
        return Frame(function, kernel.prog.symbol(function).name, None, module) if module else None
    return None


def _running_timers(kernel: Kernel, cpus: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (timer, CPU) of the timers whose functions run."""
    from drgn.helpers.linux.percpu import per_cpu

    with contextlib.suppress(*READ_ERRORS):
        own = kernel.prog["timer_bases"]
        for cpu in cpus:
            bases = per_cpu(own, cpu)
            for number in range(min(_MOST_BASES, len(bases))):
                timer = int(bases[number].running_timer.value_())
                if timer:
                    yield timer, cpu


def _running_hrtimers(kernel: Kernel, cpus: Sequence[int]) -> Iterator[tuple[int, int]]:
    from drgn.helpers.linux.percpu import per_cpu

    with contextlib.suppress(*READ_ERRORS):
        own = kernel.prog["hrtimer_bases"]
        for cpu in cpus:
            bases = per_cpu(own, cpu).clock_base
            for number in range(min(_MOST_BASES, len(bases))):
                timer = int(bases[number].running.value_())
                if timer:
                    yield timer, cpu
