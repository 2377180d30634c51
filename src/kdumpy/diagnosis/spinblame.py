"""Whom a CPU that spins for a lock waits for, in words: for lockups, stalls and deadlocks."""

from __future__ import annotations

from dataclasses import dataclass

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.origin import origin_of
from kdumpy.diagnosis.crashed.tickless import loops_with_interrupts
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.spinning import Holder, Spin
from kdumpy.kernel.values import Cpu, Frame, Task


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
                         crash.evidence.command(f"task {task.pid}" if task else "runq"))
        why = (f"chosen: {origin.function}, of the module that spins: what the one other CPU that took no interrupts "
               "was set to run")
        return Blame(culprit.Choice(origin, (*waiting.decisions, why)), (origin,), task,
                     f"It spins for {lock}. CPU {other.number} took no interrupts meanwhile, not even to give its "
                     f"registers: it runs {who}, whose function is {origin.function}(), and which most likely "
                     "has it.",
                     (*evidence, shown), False, other)
    if spin.holder is None:
        why = (f"It spins for {lock}. No other CPU runs anything that could hold that, so it was not given back, or "
               "is no lock any more." if spin.alone else f"It spins for {lock}; who holds that cannot be told.")
        return Blame(waiting, spin.frames, spin.cpu.task, why, evidence, False)
    holder = spin.holder
    frames = tuple(culprit.watched(holder.frames))
    choice = culprit.choose(frames)
    if choice.frame is None:
        choice = culprit.Choice(holder.frame, (f"chosen: {holder.frame.function}, which took the lock",))
    now = choice.frame.function if choice.frame and choice.frame.function != holder.frame.function else ""
    return Blame(choice, frames, holder.task, f"It spins for {lock}, which {_who(holder)} took in "
                 f"{holder.frame.function}() and has not given back" + (f"; it is in {now}() now." if now else "."),
                 evidence, True, holder.cpu)


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
    names = " ← ".join(str(frame.function) for frame in spin.frames if frame.symbol and not frame.user)
    bt = "bt" if spin.cpu.panicked else f"bt -c {spin.cpu.number}"
    found = [Evidence(f"where CPU {spin.cpu.number} spins", names, crash.evidence.command(bt))]
    if spin.address:
        said = "its holder is not known"
        if spin.holder:
            said = f"taken by {_who(spin.holder)} in {spin.holder.frame}"
        made = "struct spinlock" if spin.kind == "spinlock" else "struct qrwlock"
        found.append(Evidence("the lock", f"{spin.kind} {spin.name}, {said}",
                              crash.evidence.command(f"{made} {spin.address:x}")))
    holder = spin.holder
    if holder and (holder.cpu is None or holder.cpu.number != spin.cpu.number):
        frames = culprit.watched(holder.frames)
        names = " ← ".join(str(frame.function) for frame in frames if frame.symbol and not frame.user)
        command = f"bt -c {holder.cpu.number}" if holder.cpu and not holder.cpu.panicked else \
            f"bt {holder.task.pid}" if holder.task else "bt"
        found.append(Evidence(f"what {_who(holder)} does", names, crash.evidence.command(command)))
    return tuple(found)


def _who(holder: Holder) -> str:
    if holder.cpu is not None:
        return f"CPU {holder.cpu.number}"
    task = holder.task
    return f"{task.comm} (pid {task.pid}), which sleeps," if task else "a task"
