"""An assertion of the kernel failed."""

from __future__ import annotations

import re

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.checkwords import told_by_check
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.waits.imbalance import over_giver, suspect

_COUNT = re.compile(r"scheduling while atomic: .*/0x([0-9a-f]{8})$")
_CONTEXTS = ((0xF00000, "an NMI"), (0x0F0000, "a hard interrupt"),
             (0x000100, "a softirq (a timer, a tasklet, the network)"),
             (0x00FE00, "code that keeps softirqs off (spin_lock_bh, local_bh_disable)"),
             (0x0000FF, "code that keeps preemption off (a spinlock, preempt_disable)"))
"""Bits of the preempt count, the outermost context first. Source: include/linux/preempt.h."""
_EVIDENT = 0xFF0100
"""Those that a stack ends with. The others may have been left set by code that has returned since."""


class Bug(Cause):
    """A BUG() or BUG_ON(): the programmer stated what must hold, and it did not; or a sleep in atomic context."""

    kind = "bug"
    outranks = ("invalid-opcode",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the assertion's line in the log, or its instruction; and the scheduler's own assertion."""
        if crash.told(Kind.ATOMIC) or crash.in_stack("__schedule_bug"):
            return _atomic(crash)
        told = crash.told(Kind.BUG)
        silent = crash.event is None and crash.faulted and bool(crash.instruction) \
            and str(crash.instruction and crash.instruction.text).startswith("ud2")
        if not (told or silent):
            return None
        words = Words(crash, crash.own_frame)
        own = crash.own_frame
        # An assertion in code that serves many is a check of theirs: what it found wrong may have a name of its own.
        checked = crash.fault.function if own and crash.fault and own.function != crash.fault.function else None
        place = crash.event.bug_at if crash.event else None
        # The path of a module that was built elsewhere is one of the machine that built it.
        foreign = own is not None and crash.is_foreign(own.module) if own and own.module else False
        said = told_by_check(crash)
        if said is not None:
            what = f"{words.name} {said.sentence}; a check of the kernel noticed it, and stopped the kernel before " \
                   "more was overwritten or read."
        else:
            what = (f"{words.name} called {checked}(), and a check there failed" if checked else
                    f"{words.name} found something that its author had declared impossible") \
                + (f" (the BUG at {place})" if place else "") \
                + f", {'which' if checked else 'and'} stopped the kernel so as to do no more damage."
        return Finding(
            title=words.titled(said.title if said else "Failed assertion (BUG)"),
            confidence=CERTAIN if told and not checked else LIKELY,
            explanation=words.paragraph(what, words.where, words.blame),
            evidence=[*(Evidence("what the check found", said.line.strip(), item.command)
                        for item in crash.evidence.log()[:1] if said), *crash.evidence.log(), *crash.evidence.stack()],
            next=[f"Look at the call of {said.function} in {words.name}: how long may what it copies be?"] if said else
            [f"Read the condition in the source: {place}."] if place and not foreign else
            [f"The condition stands in the module's own source, which its vendor has: {place.rpartition('/')[2]}."]
            if place else [],
            culprit=crash.own_frame, decisions=crash.own.decisions)


def _atomic(crash: Crash) -> Finding:
    """Return the sleep of code that must not sleep (__schedule_bug(), kernel/sched/core.c)."""
    match = _COUNT.search(crash.event.text) if crash.event else None
    count = int(match[1], 16) if match else 0
    # schedule() itself has counted one up: what is left of it is one too few.
    below = match is not None and not count
    left = None if count & _EVIDENT else over_giver(crash) if below else suspect(crash, count)
    frame = left.frame if left else crash.own_frame
    words, slept = Words(crash, frame), Words(crash, crash.own_frame)
    held = next((name for bits, name in _CONTEXTS if count & bits), "an interrupt, or code that holds a spinlock")
    who = slept.name if crash.own_frame and not left else "The task"
    return Finding(
        title=words.titled("Sleep in atomic context" if not (left or below) else
                           "Something was unlocked that was not locked" if below else
                           "A spinlock was not given back" if left and left.spinlock else "Preemption was left off"),
        confidence=CERTAIN if count & _EVIDENT and frame else LIKELY,
        explanation=words.paragraph(
            f"{who} went to sleep, and the scheduler found the count of what keeps preemption off below 0 "
            "(\"scheduling while atomic\"): something was given back once more often than it was taken." if below else
            f"{who} went to sleep (it waited for a mutex, for memory, or for time to pass) in {held}, where "
            "nothing may sleep: the scheduler found that (\"scheduling while atomic\").",
            f"No code on the stack keeps preemption off: who did has returned. {left.why}"
            if left and not below else left.why if left else "",
            "The kernel would have gone on, but it is set to panic on warnings (kernel.panic_on_warn)."
            if "panic_on_warn" in crash.closing_words else "", words.where, words.blame),
        evidence=[*crash.evidence.log(), *crash.evidence.stack()],
        next=["CONFIG_DEBUG_ATOMIC_SLEEP finds such code where it could sleep, not only when it does."],
        culprit=frame, decisions=(*crash.own.decisions, *((left.why,) if left else ())), subtype="atomic")
