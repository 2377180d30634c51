"""A CPU did not even take interrupts."""

from __future__ import annotations

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.tickless import Tickless
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.spinblame import blame


class HardLockup(Cause):
    """A CPU ran with interrupts off for many seconds."""

    kind = "hard-lockup"
    outranks = ("nmi", "soft-lockup", "rcu-stall")

    def match(self, crash: Crash) -> Finding | None:
        """Match the watchdog's report; without a watchdog, an NMI that came while a CPU took no interrupts."""
        told = crash.told(Kind.HARD_LOCKUP) and crash.event is not None
        still = None if told else self._found_by_nmi(crash)
        if not told and still is None:
            return None
        number = still.cpu.number if still else crash.event.cpu if crash.event else None
        frames = crash.below_fault
        stuck = next((cpu for cpu in crash.kernel.cpus if cpu.number == number), None) if crash.kernel else None
        if stuck is not None and stuck.stack.frames and (still or not stuck.panicked):
            frames = tuple(culprit.watched(stuck.stack.frames))     # another CPU noticed (the buddy detector, 6.5)
        spin = blame(crash, number)
        choice = spin.choice if spin else culprit.choose(frames)
        words = Words(crash, culprit.choose(frames).frame)
        who = "A CPU" if number is None else f"CPU {number}"
        return Finding(
            title=Words(crash, choice.frame).titled("Hard lockup: a CPU took no interrupts"),
            confidence=CERTAIN if choice.frame and (spin is None or spin.certain) else LIKELY,
            explanation=words.paragraph(
                f"{who} ran in {words.name} with interrupts off for {still.seconds:.0f} seconds, until an NMI was sent "
                "to the machine, mostly by an operator who found that it hung." if still else
                f"{who} ran in {words.name} with interrupts off for so long that the watchdog took it for dead.",
                spin.sentence if spin else "It loops there, or waits for a spinlock that is never released.",
                words.blame),
            evidence=[*crash.evidence.log(), *(self._clock(crash, still) if still else ()),
                      *(spin.evidence if spin else crash.evidence.stack("where the CPU was", frames, stuck))],
            culprit=choice.frame, decisions=choice.decisions, trace=spin.frames if spin else frames,
            trace_task=spin.task if spin else stuck.task if stuck else None,
            key=culprit.above_anchor(spin.frames if spin else frames).frame)

    @staticmethod
    def _found_by_nmi(crash: Crash) -> Tickless | None:
        """Return the CPU whose clock stood still with interrupts off, where an NMI of unknown origin ended it all."""
        if not (crash.told(Kind.NMI) or crash.in_stack("unknown_nmi_error")):
            return None
        return next((item for item in crash.tickless if item.interrupts_off), None)

    @staticmethod
    def _clock(crash: Crash, still: Tickless) -> list[Evidence]:
        number = still.cpu.number
        return [Evidence(f"the clock of CPU {number}",
                         f"its last tick was {still.seconds:.1f} s before the end, and its interrupts were off; the "
                         f"kernel allows {still.threshold} s (kernel.watchdog_thresh)",
                         crash.evidence.command(f"p tick_cpu_sched:{number}"))]
