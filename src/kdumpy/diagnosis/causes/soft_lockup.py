"""A CPU let nobody else run."""

from __future__ import annotations

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.waits.spinblame import blame, kind_of_loop
from kdumpy.diagnosis.waits.syncs import syncing_at


class SoftLockup(Cause):
    """Code ran in the kernel for many seconds without letting another task run."""

    kind = "soft-lockup"

    def match(self, crash: Crash) -> Finding | None:
        """Match the watchdog's report."""
        if not crash.told(Kind.SOFT_LOCKUP) or crash.event is None:
            return None
        cpu = crash.event.cpu
        if crash.panic and crash.in_stack("watchdog_timer_fn"):     # of several that report at once, the one that died
            cpu = crash.panic.cpu
        spin = blame(crash, cpu)
        choice = spin.choice if spin else culprit.choose(crash.below_fault)
        words = Words(crash, choice.frame)
        stuck = Words(crash, culprit.choose(crash.below_fault).frame)
        # Who waits for another one, of whom nothing is found, is not the one to blame for certain.
        sure = crash.from_dump and choice.frame and (spin.certain if spin else syncing_at(crash.below_fault) is None)
        return Finding(
            title=words.titled("Soft lockup: a CPU was not given back"),
            confidence=CERTAIN if sure else LIKELY,
            explanation=words.paragraph(
                f"{stuck.name} kept CPU {cpu} busy "
                + (f"for {crash.event.seconds_stuck} seconds" if crash.event.seconds_stuck else "for long")
                + ", so that no other task could run there.",
                spin.sentence if spin else
                "It loops, waits for something without sleeping, or holds a spinlock that others spin for.",
                words.where,
                "The kernel is set to panic then (kernel.softlockup_panic)." if "softlockup" in crash.closing_words
                else "", words.blame),
            evidence=[*crash.evidence.log(), *(spin.evidence if spin else crash.evidence.stack("where the CPU was"))],
            culprit=choice.frame, decisions=choice.decisions, trace=spin.frames if spin and spin.certain else (),
            trace_task=spin.task if spin and spin.certain else None,
            # The watchdog's timer is an interrupt of the CPU that is stuck.
            subtype=kind_of_loop(crash, spin, None, takes_interrupts=True),
            key=culprit.above_anchor(spin.frames if spin else crash.below_fault).frame)
