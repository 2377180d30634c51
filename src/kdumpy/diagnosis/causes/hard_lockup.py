"""A CPU did not even take interrupts."""

from __future__ import annotations

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind


class HardLockup(Cause):
    """A CPU ran with interrupts off for many seconds."""

    kind = "hard-lockup"
    outranks = ("nmi", "soft-lockup", "rcu-stall")

    def match(self, crash: Crash) -> Finding | None:
        """Match the NMI watchdog's report."""
        if not crash.told(Kind.HARD_LOCKUP) or crash.event is None:
            return None
        number = crash.event.cpu
        frames = crash.below_fault
        stuck = next((cpu for cpu in crash.kernel.cpus if cpu.number == number), None) if crash.kernel else None
        if stuck is not None and not stuck.panicked and stuck.stack.frames:
            frames = tuple(culprit.watched(stuck.stack.frames))     # another CPU noticed (the buddy detector, 6.5)
        choice = culprit.choose(frames)
        words = Words(crash, choice.frame)
        return Finding(
            title=words.titled("Hard lockup: a CPU took no interrupts"),
            confidence=CERTAIN if choice.frame else LIKELY,
            explanation=words.paragraph(
                ("A CPU" if number is None else f"CPU {number}")
                + f" ran in {words.name} with interrupts off for so long that the watchdog took it for dead.",
                "It loops there, or waits for a spinlock that is never released.", words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.stack("where the CPU was", frames, stuck)],
            culprit=choice.frame, decisions=choice.decisions, trace=frames,
            trace_task=stuck.task if stuck else None, key=culprit.above_anchor(frames).frame)
