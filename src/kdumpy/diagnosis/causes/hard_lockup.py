"""A CPU did not even take interrupts."""

from __future__ import annotations

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Unjudged, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.origin import of_thread, origin_of
from kdumpy.diagnosis.crashed.tickless import Tickless, went_on, why_unknown
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.waits.spinblame import blame, kind_of_loop
from kdumpy.kernel.values import Cpu, Frame, Task


class HardLockup(Cause):
    """A CPU ran with interrupts off for many seconds."""

    kind = "hard-lockup"
    outranks = ("nmi", "soft-lockup", "rcu-stall")

    def match(self, crash: Crash) -> Finding | Unjudged | None:
        """Match the watchdog's report; without a watchdog, an NMI that came while a CPU took no interrupts."""
        told = crash.told(Kind.HARD_LOCKUP) and crash.event is not None
        still = None if told else self._found_by_nmi(crash)
        if not told and still is None:
            return self._unseen(crash)
        number = still.cpu.number if still else self._told_of(crash)
        frames = crash.below_fault
        stuck = next((cpu for cpu in crash.kernel.cpus if cpu.number == number), None) if crash.kernel else None
        origin = None
        if number is None and crash.in_stack("watchdog_buddy_check_hardlockup"):
            frames = ()                                             # it is another CPU, and not known which
        if stuck is not None and (still or not stuck.panicked):     # another CPU noticed (the buddy detector, 6.5)
            frames = tuple(culprit.watched(stuck.stack.frames))
            if not frames and crash.kernel and stuck.task:          # it did not even give its registers
                origin = origin_of(crash.kernel, stuck.task)
                frames = (origin,) if origin else ()
        witness = went_on(crash.kernel, still, crash.now) if still and crash.kernel else None
        paused = still is not None and witness is None
        spin = blame(crash, number)
        choice = spin.choice if spin else culprit.choose(frames)
        words = Words(crash, culprit.choose(frames).frame)
        who = "A CPU" if number is None else f"CPU {number}"
        sure = choice.frame and origin is None and not paused and (spin is None or spin.certain)
        return Finding(
            title=Words(crash, choice.frame).titled("Hard lockup: a CPU took no interrupts"),
            confidence=CERTAIN if sure else LIKELY,
            explanation=words.paragraph(
                self._told(who, words, still, silent=origin is not None or not frames),
                spin.sentence if spin else "It loops there, or waits for a spinlock that is never released."
                if frames else "",
                "Nothing shows that the other CPUs ran meanwhile: a virtual machine that was paused for so long would "
                "look the same." if paused else "", words.blame),
            evidence=[*crash.evidence.log(), *(self._clock(crash, still, witness) if still else ()),
                      *(spin.evidence if spin else self._stuck_in(crash, frames, stuck, origin))],
            culprit=choice.frame, decisions=choice.decisions, trace=spin.frames if spin else frames,
            trace_task=spin.task if spin else stuck.task if stuck else None,
            subtype=kind_of_loop(crash, spin, stuck, takes_interrupts=False),
            key=culprit.above_anchor(spin.frames if spin else frames).frame)

    @staticmethod
    def _told_of(crash: Crash) -> int | None:
        """Return the CPU that the report is about; without a log, whose clock stands still, or who is silent."""
        if crash.event is not None and crash.event.inferred and crash.in_stack("watchdog_buddy_check_hardlockup"):
            silent = [cpu.number for cpu in (crash.kernel.cpus if crash.kernel else ())
                      if not cpu.panicked and not cpu.idle and not cpu.stack.frames]
            found = [item.cpu.number for item in crash.tickless] or silent
            return found[0] if len(found) == 1 else None
        return crash.event.cpu if crash.event else None

    @staticmethod
    def _told(who: str, words: Words, still: Tickless | None, *, silent: bool) -> str:
        """Say what the CPU did; `silent`: it did not give its registers."""
        if still:
            return f"{who} ran in {words.name} with interrupts off for {still.seconds:.0f} seconds, until an NMI was " \
                   "sent to the machine, mostly by an operator who found that it hung."
        if silent:
            where = f": {words.name}." if words.frame else "; the dump does not show that."
            return f"{who} took no interrupts for so long that the watchdog took it for dead. It did not even give " \
                   f"its registers, so what it runs can only be told by what its thread was set to do{where}"
        return f"{who} ran in {words.name} with interrupts off for so long that the watchdog took it for dead."

    @staticmethod
    def _found_by_nmi(crash: Crash) -> Tickless | None:
        """Return the CPU whose clock stood still with interrupts off, where an NMI of unknown origin ended it all."""
        if not (crash.told(Kind.NMI) or crash.in_stack("unknown_nmi_error")):
            return None
        return next((item for item in crash.tickless if item.interrupts_off), None)

    @staticmethod
    def _unseen(crash: Crash) -> Unjudged | None:
        """Tell an NMI that came to a machine of which no CPU was stuck from one where that cannot be seen."""
        if not crash.told(Kind.NMI) or crash.told(Kind.MACHINE_CHECK):
            return None
        if crash.kernel is None:
            return Unjudged("only the log could be read, and what the CPUs did before the NMI stands in the dump")
        unknown = why_unknown(crash.kernel, crash.now)
        return Unjudged(f"whether all CPUs took interrupts before the NMI: {unknown}") if unknown else None

    @staticmethod
    def _stuck_in(crash: Crash, frames: tuple[Frame, ...], stuck: Cpu | None, origin: Frame | None) -> list[Evidence]:
        if not frames:
            return []
        task = stuck.task if stuck else None
        if origin is not None and task is not None:
            return [Evidence("what its thread was set to do", f"{task.comm} (pid {task.pid}) runs {origin.function}()",
                             crash.evidence.command(*of_thread(crash.kernel, task)))]
        return crash.evidence.stack("where the CPU was", frames, stuck)

    @staticmethod
    def _clock(crash: Crash, still: Tickless, witness: Task | None) -> list[Evidence]:
        number = still.cpu.number
        meanwhile = f"; meanwhile CPU {witness.cpu} ran {witness.comm} (pid {witness.pid})" if witness else ""
        return [Evidence(f"the clock of CPU {number}",
                         f"its last tick was {still.seconds:.1f} s before the end, and its interrupts were off; the "
                         f"kernel allows {still.threshold} s (kernel.watchdog_thresh){meanwhile}",
                         crash.evidence.command(f"p tick_cpu_sched:{number}"))]
