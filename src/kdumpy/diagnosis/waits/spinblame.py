"""Whom a CPU that spins for a lock waits for, in words: for lockups, stalls and deadlocks."""

from __future__ import annotations

from dataclasses import dataclass

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.origin import of_thread, origin_of
from kdumpy.diagnosis.crashed.tickless import loops_with_interrupts
from kdumpy.diagnosis.evidence import in_a_line
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.waits.left import leaver
from kdumpy.diagnosis.waits.spinning import Holder, Spin
from kdumpy.diagnosis.waits.syncs import CALL, HRTIMER, INTERRUPT, SYNCS, TASKLET, TIMER
from kdumpy.kernel.values import Cpu, Frame, Task

_STRUCTURES = {"spinlock": "struct spinlock", TIMER: "struct timer_list", HRTIMER: "struct hrtimer"}

_SHOWN = 12
"""Frames of a stack in a line: what was interrupted by what spins says nothing."""


@dataclass(frozen=True)
class Blame:
    """Who is to blame for a CPU that spins."""

    choice: culprit.Choice
    """The code to blame: of the holder where it is known, else what spins."""
    frames: tuple[Frame, ...]
    task: Task | None
    sentence: str
    evidence: tuple[Evidence, ...]
    certain: bool
    """The holder is known."""
    cpu: Cpu | None = None
    """The CPU that the holder runs on; None where it sleeps or is not known."""


def spins_of(crash: Crash) -> tuple[Spin, ...]:
    """Return the CPUs that spin; none where only the log could be read."""
    return crash.waits.spins.all if crash.waits else ()


def blame(crash: Crash, cpu: int | None) -> Blame | None:
    """Return who keeps a CPU spinning; None where it does not spin for a lock."""
    spin = next((spin for spin in spins_of(crash) if spin.cpu.number == cpu), None)
    if spin is None:
        return None
    waiting = culprit.choose(spin.frames)
    lock = f"the {spin.kind} {spin.name}".rstrip()
    evidence = spin_evidence(crash, spin)
    silent = _silent_other(crash, spin) if spin.holder is None else None
    if silent is not None:
        other, origin = silent
        task = other.task
        who = f"{task.comm} (pid {task.pid})" if task else "a task"
        shown = Evidence(f"what the thread on CPU {other.number} was set to do", f"{who} runs {origin.function}()",
                         crash.evidence.command(*of_thread(crash.kernel, task)))
        why = (f"chosen: {origin.function}, of the module that spins: what the one other CPU that took no interrupts "
               "was set to run")
        return Blame(culprit.Choice(origin, (*waiting.decisions, why)), (origin,), task,
                     f"It spins for {lock}. CPU {other.number} took no interrupts meanwhile, not even to give its "
                     f"registers: it runs {who}, whose function is {origin.function}(), and which most likely "
                     "has it.",
                     (*evidence, shown), False, other)
    if spin.holder is None:
        left = _left(crash, spin) if spin.alone else None
        if left is not None:
            chosen = f"chosen: {left.function} [{left.module}], which can return without giving the lock back"
            return Blame(culprit.Choice(left, (*waiting.decisions, chosen)), spin.frames,
                         spin.cpu.task, f"It spins for {lock}. No other CPU runs anything that could hold that, so it "
                         f"was not given back: {left.function}() takes it, and has a way out on which it does not give "
                         "it back.", evidence, False)
        why = (f"It spins for {lock}. No other CPU runs anything that could hold that, so it was not given back, or "
               "is no lock any more." if spin.alone else f"It spins for {lock}; who holds that cannot be told.")
        return Blame(waiting, spin.frames, spin.cpu.task, why, evidence, False)
    holder = spin.holder
    frames = tuple(culprit.watched(holder.frames))
    choice = culprit.choose(frames)
    if choice.frame is None or (choice.frame.module is None and holder.frame.module):
        did = "has not come to its end" if spin.kind in SYNCS else "took the lock"
        choice = culprit.Choice(holder.frame, (f"chosen: {holder.frame.function}, which {did}",))
    if spin.kind in SYNCS:
        return Blame(choice, frames, holder.task, f"It waits for the end of {awaited(spin)}"
                     + ("." if choice.frame == holder.frame or not choice.frame else
                        f"; that is in {choice.frame.function}() now."), evidence, True, holder.cpu)
    now = choice.frame.function if choice.frame and choice.frame.function != holder.frame.function else ""
    return Blame(choice, frames, holder.task, f"It spins for {lock}, which {_who(holder)} took in "
                 f"{holder.frame.function}() and has not given back" + (f"; it is in {now}() now." if now else "."),
                 evidence, True, holder.cpu)


def _left(crash: Crash, spin: Spin) -> Frame | None:
    """Return the one function of the spinning module that can return with its lock."""
    module = next((frame.module for frame in spin.frames if frame.module), None)
    if crash.waits is None or module is None or not spin.address:
        return None
    return leaver(crash.waits, module, "spinlock", spin.address, spin.frames).frame


def awaited(spin: Spin) -> str:
    """Return what a CPU waits for the end of: `the timer's function vent_tick(), on CPU 1`."""
    holder = spin.holder
    name, where = (f"{holder.frame.function}()", f", on CPU {holder.cpu.number}" if holder.cpu else "") \
        if holder else ("", "")
    if spin.kind == CALL:
        return f"a call to another CPU, which cannot answer: its interrupts are off{where}, in {name}"
    return {INTERRUPT: "an interrupt's handler", TASKLET: "a tasklet's function"}.get(
        spin.kind, f"a {spin.kind}'s function") + f", {name}{where}"


def _silent_other(crash: Crash, spin: Spin) -> tuple[Cpu, Frame] | None:
    """Return the one other CPU that took no interrupts and gave no registers, where it runs a thread of one module."""
    if crash.kernel is None:
        return None
    module = next((frame.module for frame in spin.frames if frame.module), None)
    others = [item.cpu for item in crash.tickless if item.cpu.number != spin.cpu.number
              and not any(frame.symbol for frame in item.cpu.stack.frames)]
    found = [(cpu, origin) for cpu in others if cpu.task and (origin := origin_of(crash.kernel, cpu.task)) is not None]
    return found[0] if len(found) == len(others) == 1 and module and found[0][1].module == module else None


def kind_of_loop(crash: Crash, spin: Blame | None, cpu: Cpu | None, *, takes_interrupts: bool | None = None) -> str:
    """Return what tells two endless loops of one caller apart in a signature: whether they let interrupts in.

    Who spins for a lock does not matter, nor how: what the holder does is the bug.

    Args:
        crash: the crash.
        spin: whom the CPU waits for; None where it loops by itself.
        cpu: the CPU that is stuck.
        takes_interrupts: by what noticed it, where that leaves no doubt.
    """
    if spin is not None:
        cpu, takes_interrupts = spin.cpu, None
    if takes_interrupts is None and cpu is not None and crash.kernel is not None:
        takes_interrupts = loops_with_interrupts(crash.kernel, cpu, crash.now)
    return "" if takes_interrupts is None else f"interrupts {'on' if takes_interrupts else 'off'}"


def spin_evidence(crash: Crash, spin: Spin) -> tuple[Evidence, ...]:
    """Return what a CPU spins for, and what the one does that holds it."""
    names = in_a_line(spin.frames[:_SHOWN])
    bt = "bt" if spin.cpu.panicked else f"bt -c {spin.cpu.number}"
    found = [Evidence(f"where CPU {spin.cpu.number} spins", names, crash.evidence.command(bt))]
    if spin.address:
        said = "its holder is not known"
        if spin.holder:
            said = f"taken by {_who(spin.holder)} in {spin.holder.frame}"
        if spin.kind in SYNCS and spin.holder:
            said = f"its function is run by {_who(spin.holder)}"
        made = _STRUCTURES.get(spin.kind, "struct qrwlock")
        lines = [f"{made} {spin.address:x}", *([_bt(spin.holder)] if spin.holder else [])]
        found.append(Evidence("what it waits for" if spin.kind in SYNCS else "the lock",
                              f"{spin.kind} {spin.name}, {said}", crash.evidence.command(*lines)))
    holder = spin.holder
    if holder and (holder.cpu is None or holder.cpu.number != spin.cpu.number):
        frames = culprit.watched(holder.frames)
        names = in_a_line(frames)
        found.append(Evidence(f"what {_who(holder)} does", names, crash.evidence.command(_bt(holder))))
    return tuple(found)


def _bt(holder: Holder) -> str:
    """Return the shell's line that shows the stack of who holds it."""
    return f"bt -c {holder.cpu.number}" if holder.cpu and not holder.cpu.panicked else \
        f"bt {holder.task.pid}" if holder.task else "bt"


def _who(holder: Holder) -> str:
    if holder.cpu is not None:
        return f"CPU {holder.cpu.number}"
    task = holder.task
    return f"{task.comm} (pid {task.pid}), which sleeps," if task else "a task"
