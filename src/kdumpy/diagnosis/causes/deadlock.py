"""Tasks wait for each other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Unjudged, Words
from kdumpy.diagnosis.crash import Crash, words_of
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.waits.graph import lock_orders
from kdumpy.diagnosis.waits.locks import BlockedTask
from kdumpy.diagnosis.waits.spinblame import awaited, spin_evidence
from kdumpy.diagnosis.waits.spinning import Spin
from kdumpy.diagnosis.waits.syncs import SYNCS
from kdumpy.diagnosis.waits.waiting import FILE_IN_USE
from kdumpy.diagnosis.waits.waitwords import holds, wait_evidence, waited_for
from kdumpy.kernel.values import Frame

_ENDLESS = ("Do not wait for the end of a timer, a handler or a tasklet (del_timer_sync() and the like) in it, or "
            "while holding a lock that it takes")
_SPINLOCKS = ("spinlock", "rwlock")
_OWN = {FILE_IN_USE: "A task removes a file, and waits until nobody is in it; it is in it itself",
        "RCU": "A task waits until all readers of RCU are gone; it is one of them itself",
        "SRCU": "A task waits until all readers of an SRCU domain are gone; it is one of them itself",
        "work": "A work waits for its own end, or for one that can only begin after it"}
"""What it is to wait for oneself, where it is no lock."""
_INSTEAD = {FILE_IN_USE: "Let a file that removes itself do so by sysfs_remove_file_self() "
                         "(device_remove_file_self()), or leave it to a work",
            "RCU": "Do not wait for a grace period (synchronize_rcu()) between rcu_read_lock() and rcu_read_unlock()",
            "SRCU": "Do not wait for a grace period (synchronize_srcu()) between srcu_read_lock() and "
                    "srcu_read_unlock()",
            "work": "Do not flush or cancel a work from within itself"}
_LOCKDEP = "; lockdep (CONFIG_PROVE_LOCKING) finds this before it happens."
_UNKNOWN_TO_LOCKDEP = ("completion", "wait queue", "thread", "interrupt thread", "variable", "bit lock", "page lock")
_BROUGHT_ABOUT = ("completion", "wait queue", "thread", "interrupt thread", "variable", "RCU", "SRCU")
"""What nobody holds: somebody is to bring it about."""
_COUNTS = {2: "Two", 3: "Three", 4: "Four"}


class Deadlock(Cause):
    """Tasks or CPUs hold locks that each other waits for: none can ever go on."""

    kind = "deadlock"
    outranks = ("hung-task", "soft-lockup", "hard-lockup", "rcu-stall", "nmi")

    def match(self, crash: Crash) -> Finding | Unjudged | None:
        """Match a circle among the locks that blocked tasks wait for, or among the spinlocks of CPUs."""
        spinning = _of_spinlocks(crash) if crash.told(Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.RCU,
                                                           Kind.NMI) else None
        if spinning is not None or not crash.told(Kind.HUNG):
            return spinning or self._of_rcu(crash)
        if crash.waits is None:
            return Unjudged("only the log could be read, and who waits for whom stands in the dump")
        circle = next(iter(crash.waits.circles), None)
        if circle is None:
            problem = crash.waits.problem
            return Unjudged(f"not every task could be looked at: {problem}") if problem else None
        return self._of_tasks(crash, circle, "when tasks hang (kernel.hung_task_panic)")

    def _of_rcu(self, crash: Crash) -> Finding | None:
        """Return the deadlock of tasks that hold up a grace period, each of which sleeps within rcu_read_lock()."""
        circles = crash.waits.circles if crash.waits is not None and crash.told(Kind.RCU) else ()
        circle = next((circle for circle in circles if _holds_rcu(crash, circle)), None)
        return self._of_tasks(crash, circle, "when a grace period does not end (kernel.panic_on_rcu_stall), which the "
                              "one that holds RCU keeps from its end") if circle else None

    def _of_tasks(self, crash: Crash, circle: tuple[BlockedTask, ...], panics: str) -> Finding:
        # Turned so that the same deadlock is told the same way, whichever task was noticed first.
        circle = _turned(circle)
        choices = [culprit.choose(_wanting(crash, item.waits_for.kind if item.waits_for else "",
                                           crash.with_tail_calls(item.stack.frames))) for item in circle]
        words = [Words(crash, choice.frame) for choice in choices]
        first = circle[0]
        told = "; ".join(
            f"{item.task.comm} (pid {item.task.pid}), in {word.name}, waits for the "
            f"{waited_for(item.waits_for)} that "
            f"{item.waits_for.owner.comm} {holds(item.waits_for)}"
            for item, word in zip(circle, words, strict=True) if item.waits_for and item.waits_for.owner)
        title = _listed(list(dict.fromkeys(word.short for word in words if word.short)))
        return Finding(
            title=f"Deadlock between {title}" if len(circle) > 1 else f"Deadlock of {title} with itself",
            confidence=CERTAIN,
            explanation=" ".join((
                f"{_COUNTS.get(len(circle), str(len(circle)))} tasks wait for each other in a circle, and none "
                f"can ever go on: {told}."
                if len(circle) > 1 else
                f"{_OWN.get(_kinds(circle)[0], 'A task waits for a lock that it holds itself')}: {told}.",
                _why(circle),
                f"The kernel would have gone on without {'them' if len(circle) > 1 else 'it'}, but it is set to panic "
                f"{panics}.",
                words[0].blame)).replace("  ", " "),
            evidence=[Evidence("the order in which they take the locks", lock_orders(circle),
                               crash.evidence.command(" ".join(["foreach", *(str(item.task.pid) for item in circle),
                                                                "bt"]))),
                      *_circle_evidence(crash, circle), *crash.evidence.log()],
            next=[_instead(circle) + ("." if set(_kinds(circle)) & set(_UNKNOWN_TO_LOCKDEP) else _LOCKDEP)],
            culprit=choices[0].frame, decisions=choices[0].decisions, trace=crash.with_tail_calls(first.stack.frames),
            trace_task=first.task,
            key=choices[0].frame,
            # With PREEMPT_RT it is tasks that wait for spinlocks, and not CPUs; it is the same bug.
            subtype=f"spin-{len(circle)}" if all(item.waits_for is not None and item.waits_for.kind in _SPINLOCKS
                                                 for item in circle) else str(len(circle)))


def _of_spinlocks(crash: Crash) -> Finding | None:
    """Return the deadlock of CPUs that spin for each other's locks, or of one for a lock that it has."""
    circle = next(iter(crash.waits.spins.circles), None) if crash.waits else None
    if circle is None:
        return None
    choices = [_chosen(crash, spin) for spin in circle]
    names = [str(choice.frame and choice.frame.function) for choice in choices]
    start = names.index(min(names))
    circle, choices = circle[start:] + circle[:start], choices[start:] + choices[:start]
    words = [Words(crash, choice.frame) for choice in choices]
    taken = [spin.holder.frame for spin in circle if spin.holder]
    told = "; ".join(
        f"CPU {spin.cpu.number}, in {word.name}, "
        + (f"waits for the end of {awaited(spin)}" if spin.kind in SYNCS else
           f"spins for the {spin.kind} {spin.name} that it took itself in {frame.function}()" if len(circle) == 1 else
           f"spins for the {spin.kind} {spin.name} that CPU {spin.holder.cpu.number} took in {frame.function}()")
        for spin, word, frame in zip(circle, words, taken, strict=True) if spin.holder and spin.holder.cpu)
    title = _listed(list(dict.fromkeys(word.short for word in words if word.short)))
    task = circle[0].cpu.task
    alone, ends = len(circle) == 1, any(spin.kind in SYNCS for spin in circle)
    return Finding(
        title=f"Deadlock of {title} with itself" if alone else f"Deadlock between {title}",
        confidence=CERTAIN,
        explanation=words[0].paragraph(
            f"{'A CPU waits' if alone else f'{_COUNTS.get(len(circle), str(len(circle)))} CPUs wait'} for "
            + ("what can never come to its end" if ends else "a spinlock that can never become free") + f": {told}.",
            words[0].where_in(circle[0].frames, words_of(task) if task else "") if alone else "", words[0].blame),
        evidence=[*(item for spin in circle for item in spin_evidence(crash, spin)), *crash.evidence.log()],
        next=[(_ENDLESS if ends else
               "Do not take a spinlock again in a function that is called with it held; where an interrupt takes it, "
               "take it with interrupts off (spin_lock_irqsave)" if alone else "Let all code take these locks in one "
               "order") + _LOCKDEP],
        culprit=choices[0].frame, decisions=choices[0].decisions, trace=circle[0].frames,
        trace_task=circle[0].cpu.task, key=choices[0].frame, subtype=f"spin-{len(circle)}")


def _wanting(crash: Crash, kind: str, frames: Sequence[Frame]) -> Sequence[Frame]:
    return crash.waits.holders.wanting(frames, kind) if crash.waits else frames


def _chosen(crash: Crash, spin: Spin) -> culprit.Choice:
    """Choose who is to blame of a CPU: where what it waits for has left no frame of its own, that."""
    choice = culprit.choose(_wanting(crash, spin.kind, spin.frames))
    own = spin.holder if spin.holder and spin.holder.cpu and spin.holder.cpu.number == spin.cpu.number else None
    if own is not None and own.frame.module and (choice.frame is None or not choice.frame.module):
        return culprit.Choice(own.frame, (*choice.decisions, f"chosen: {own.frame.function}, which waits for its own "
                                                             "end"))
    return choice


def _holds_rcu(crash: Crash, circle: tuple[BlockedTask, ...]) -> bool:
    """Tell whether a task sleeps within rcu_read_lock(), as with PREEMPT_RT all do that have a spinlock.

    Source: include/linux/sched.h, rcu_read_lock_nesting (CONFIG_PREEMPT_RCU).
    """
    with contextlib.suppress(AttributeError, *READ_ERRORS):
        return crash.kernel is not None and any(
            crash.kernel.task_object(item.task.address).rcu_read_lock_nesting.value_() > 0 for item in circle)
    return False


def _kinds(circle: tuple[BlockedTask, ...]) -> list[str]:
    return [item.waits_for.kind for item in circle if item.waits_for is not None]


def _instead(circle: tuple[BlockedTask, ...]) -> str:
    """Say what the code should do instead."""
    kinds = _kinds(circle)
    if len(circle) == 1:
        return _INSTEAD.get(kinds[0], "Do not take a lock again in a function that is called with it held")
    if "work" in kinds:
        return "Do not wait for the end of work while holding a lock that the work takes"
    if FILE_IN_USE in kinds:
        return "Do not remove a file while holding a lock that its show() or store() takes (its read or write)"
    if any(kind in _BROUGHT_ABOUT for kind in kinds):
        return "Do not wait for another one while holding a lock that it takes before"
    return "Let all code take these locks in one order"


def _why(circle: tuple[BlockedTask, ...]) -> str:
    kinds = _kinds(circle)
    if len(circle) == 1:
        return ""
    if "work" in kinds:
        return "One of them waits for the end of work that cannot end before it lets go of its lock."
    if FILE_IN_USE in kinds:
        return ("One of them removes a file, and waits until nobody is in it, with a lock held that one who is in it "
                "wants.")
    if any(kind in _BROUGHT_ABOUT for kind in kinds):
        return "One of them waits, with a lock held, for one who wants that lock before he can bring that about."
    return "They take the same locks in different order."


def _listed(names: list[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _turned(circle: tuple[BlockedTask, ...]) -> tuple[BlockedTask, ...]:
    names = [str(getattr(culprit.choose(item.stack.frames).frame, "function", "")) or item.task.comm for item in circle]
    start = names.index(min(names))
    return circle[start:] + circle[:start]


def _circle_evidence(crash: Crash, circle: tuple[BlockedTask, ...]) -> list[Evidence]:
    found = []
    for item in circle:
        found += wait_evidence(crash, item)
    return found
