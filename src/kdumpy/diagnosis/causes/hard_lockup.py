"""A CPU did not even take interrupts."""

from __future__ import annotations

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.spinblame import blame


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
        spin = blame(crash, number)
        choice = spin.choice if spin else culprit.choose(frames)
        words = Words(crash, culprit.choose(frames).frame)
        return Finding(
            title=Words(crash, choice.frame).titled("Hard lockup: a CPU took no interrupts"),
            confidence=CERTAIN if choice.frame and (spin is None or spin.certain) else LIKELY,
            explanation=words.paragraph(
                ("A CPU" if number is None else f"CPU {number}")
                + f" ran in {words.name} with interrupts off for so long that the watchdog took it for dead.",
                spin.sentence if spin else "It loops there, or waits for a spinlock that is never released.",
                words.blame),
            evidence=[*crash.evidence.log(), *(spin.evidence if spin else
                                                crash.evidence.stack("where the CPU was", frames, stuck))],
            culprit=choice.frame, decisions=choice.decisions, trace=spin.frames if spin else frames,
            trace_task=spin.task if spin else stuck.task if stuck else None,
            key=culprit.above_anchor(spin.frames if spin else frames).frame)
