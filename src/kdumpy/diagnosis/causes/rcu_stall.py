"""A CPU held up RCU."""

from __future__ import annotations

import contextlib
import re
from itertools import islice

from drgn.helpers.linux.percpu import per_cpu

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.held import RCU
from kdumpy.diagnosis.crashed.origin import origin_of
from kdumpy.diagnosis.crashed.tickless import loops_with_interrupts
from kdumpy.diagnosis.evidence import in_a_line
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Event, Kind
from kdumpy.diagnosis.waits.spinblame import blame, kind_of_loop
from kdumpy.diagnosis.waits.syncs import syncing_at
from kdumpy.diagnosis.waits.waiting import Waiters
from kdumpy.kernel.tasks import task_value
from kdumpy.kernel.values import Cpu, Frame, Task

_STALLED_CPU = re.compile(r"^rcu:?\s+(\d+)-[.!O]|^\s*(\d+)-[.!O]")
_HASTENED_CPU = re.compile(r"[{ ](\d+)-[.!OoNDr]")
"""`stalls on CPUs/tasks: { 1-...D P164 }` (kernel/rcu/tree_exp.h)."""
_STALLED_TASK = re.compile(r"\bP(\d+)\b")
_MOST_READERS = 1024
_ASKS = ("smp_call_function", "csd_lock_wait")
"""Where a CPU waits until others have run a function (kernel/smp.c)."""
_JIFFIES = re.compile(r"\(t=(\d+) jiffies|, t=(\d+) jiffies")


class RcuStall(Cause):
    """A CPU did not pass through a quiet state, so that freed objects could not be released."""

    kind = "rcu-stall"

    def match(self, crash: Crash) -> Finding | None:
        """Match the stall's report; the culprit ran on the CPU that it names."""
        event = crash.event
        if not crash.told(Kind.RCU) or event is None:
            return None
        stalled = self._cpus(event)
        reader = self._reader(crash, event) if not stalled else None
        if reader is not None:
            return self._of_reader(crash, *reader)
        noticed = self._stalled(crash, stalled)
        silent = self._unanswering(crash, noticed)
        cpu = silent or noticed
        frames: tuple[Frame, ...] = cpu.stack.frames if cpu else self._unseen(crash, stalled)
        frames = tuple(culprit.watched(frames))
        number = cpu.number if cpu else next(iter(stalled), None)
        spin = blame(crash, number)
        choice = spin.choice if spin else culprit.choose(frames)
        words = Words(crash, culprit.choose(frames).frame if spin else choice.frame)
        where = f"CPU {number}" if number is not None else "A CPU"
        task = self._ran_by(cpu) if cpu and cpu.task else ""
        return Finding(
            title=Words(crash, choice.frame).titled("RCU stall: a CPU held everything up"),
            confidence=CERTAIN if choice.frame and cpu and (spin.certain if spin else syncing_at(frames) is None)
            else LIKELY,
            explanation=words.paragraph(
                f"{where} ran in {words.name}{task} for so long without a pause that the kernel could not release "
                "memory that nobody uses any more (RCU).",
                spin.sentence if spin else
                self._how(crash, cpu),
                f"CPU {noticed.number}, of which the kernel complains, only waits for it to answer a call."
                if silent and noticed else "",
                "The kernel is set to panic then (kernel.panic_on_rcu_stall)." if "RCU" in crash.closing_words else "",
                words.blame),
            evidence=[*crash.evidence.log(), *(spin.evidence if spin else
                                                crash.evidence.stack("where the CPU was", frames, cpu))],
            culprit=choice.frame, decisions=choice.decisions, trace=spin.frames if spin else frames,
            trace_task=spin.task if spin else cpu.task if cpu else None,
            # Who noticed its own stall did so in the interrupt of its tick.
            subtype=kind_of_loop(crash, spin, cpu, takes_interrupts=True if cpu and cpu.panicked else None),
            key=culprit.above_anchor(spin.frames if spin else frames).frame)

    @staticmethod
    def _of_reader(crash: Crash, task: Task, others: int) -> Finding:
        """Return the stall that a task makes which is off its CPU within rcu_read_lock()."""
        assert crash.kernel is not None
        frames = crash.with_tail_calls(crash.kernel.stack(task).frames)
        starved = task.state == "R"
        hog = next((cpu for cpu in crash.kernel.cpus if cpu.number == task.cpu and cpu.task
                    and not cpu.idle and cpu.task.pid != task.pid), None) if starved else None
        told = tuple(culprit.watched(hog.stack.frames)) if hog else frames
        choice = culprit.choose(told)
        holders = crash.waits.holders if crash.waits else None
        inside = holders.within(frames, RCU) if holders else None
        left = holders.leavers([name for name in crash.modules if crash.is_foreign(name)], RCU) \
            if holders and inside is None and not hog else []
        if len(left) == 1:
            why = f"chosen: {left[0].function} [{left[0].module}], which can return without rcu_read_unlock()"
            choice = culprit.Choice(left[0], (why,))
        words, own = Words(crash, choice.frame), Words(crash, culprit.choose(frames).frame)
        more = f"; {others} more task{'s do' if others > 1 else ' does'} so, too" if others else ""
        who = hog.task if hog and hog.task else task
        return Finding(
            title=words.titled("RCU stall: a task held everything up"),
            confidence=CERTAIN if choice.frame and inside and not others else LIKELY,
            explanation=words.paragraph(
                f"{task.comm} (pid {task.pid}), in {own.name}, is off its CPU within rcu_read_lock(){more}: until it "
                "leaves that section the kernel cannot release memory that nobody uses any more (RCU).",
                f"It could run, but {who.comm} (pid {who.pid}), in {words.name}, does not let it." if hog else
                "It sleeps there, which a reader must not do." if inside else
                "No code on its stack is in such a section: it was left without rcu_read_unlock()"
                + (f", which {words.name} has a way out for." if left else "."),
                "The kernel is set to panic then (kernel.panic_on_rcu_stall)." if "RCU" in crash.closing_words else "",
                words.blame),
            evidence=[*crash.evidence.log(), Evidence(
                f"where {task.comm} is", in_a_line(frames),
                crash.evidence.command(f"bt {task.pid}")), *(crash.evidence.stack("who runs on its CPU", told, hog)
                                                             if hog else ())],
            culprit=choice.frame, decisions=choice.decisions, trace=told, trace_task=who, subtype="reader",
            key=choice.frame)

    @staticmethod
    def _reader(crash: Crash, event: Event) -> tuple[Task, int] | None:
        """Return (a task that is off its CPU within rcu_read_lock(), how many more are), where no CPU is complained of.

        They are told by the lists of RCU itself; what the log names (`P164`) comes first.
        """
        if crash.kernel is None:
            return None
        named = [int(match[1]) for line in event.lines[:40] if "locked on" in line or "CPUs/tasks" in line
                 for match in _STALLED_TASK.finditer(line)]
        with contextlib.suppress(*READ_ERRORS):
            found = [task_value(task) for task in islice(Waiters(crash.kernel).blocked_readers(), _MOST_READERS)]
            found = [task for task in found if not task.on_cpu]
            first = next((task for task in found if task.pid in named), next(iter(found), None))
            return (first, len(found) - 1) if first is not None else None
        return None

    @staticmethod
    def _ran_by(cpu: Cpu) -> str:
        """Say what ran there: the task, or the interrupt that had interrupted it."""
        task = cpu.task
        who = "" if task is None else "the idle task" if task.pid == 0 else f"the task {task.comm} (pid {task.pid})"
        frames = culprit.watched(cpu.stack.frames)
        return f", in {culprit.context_of(frames)}, which had interrupted {who}," if culprit.had_interrupted(frames) \
            else f", in {who},"

    @staticmethod
    def _how(crash: Crash, cpu: Cpu | None) -> str:
        """Say whether it took interrupts meanwhile, and whether it read under RCU."""
        takes = loops_with_interrupts(crash.kernel, cpu, crash.now) if crash.kernel and cpu else None
        if takes is None or cpu is None or crash.kernel is None:
            return "It loops there, with interrupts or preemption off, or was starved by something else."
        if not takes:
            late = next((item.seconds for item in crash.tickless if item.cpu.number == cpu.number), None)
            return "It loops there with interrupts off" + (f": its clock did not tick for {late:.0f} seconds."
                                                           if late is not None else ".")
        reading = False
        with contextlib.suppress(AttributeError, *READ_ERRORS):     # CONFIG_PREEMPT_RCU
            reading = cpu.task is not None and \
                crash.kernel.task_object(cpu.task.address).rcu_read_lock_nesting.value_() > 0
        return ("It takes interrupts, but stays within rcu_read_lock()." if reading else
                "It takes interrupts, but did not let another task run: preemption is off there, or the kernel does "
                "not preempt its own code.")

    @staticmethod
    def _cpus(event: Event) -> list[int]:
        matches = (match for line in event.lines[:40] if (match := _STALLED_CPU.match(line)))
        expedited = (match for line in event.lines[:4] if "expedited" in line for match in _HASTENED_CPU.finditer(line))
        return [*(int(match[1] or match[2]) for match in matches), *(int(match[1]) for match in expedited)]

    @staticmethod
    def _unseen(crash: Crash, numbers: list[int]) -> tuple[Frame, ...]:
        """Return what is known of a CPU that gave no registers; the panic's own stack where that may be the one."""
        if crash.kernel is None or crash.panic is None or not numbers or crash.panic.cpu in numbers:
            return crash.below_fault
        task = next((cpu.task for cpu in crash.kernel.cpus if cpu.number in numbers and cpu.task), None)
        origin = origin_of(crash.kernel, task) if task else None
        return (origin,) if origin else ()

    @staticmethod
    def _unanswering(crash: Crash, cpu: Cpu | None) -> Cpu | None:
        """Return the CPU that takes no interrupts, where the stalled one waits for it to run a function."""
        if cpu is None or crash.kernel is None or not any(
                (frame.function or "").startswith(_ASKS) for frame in culprit.watched(cpu.stack.frames)):
            return None
        with contextlib.suppress(*READ_ERRORS):
            queue = crash.kernel.prog["call_single_queue"]      # what each CPU was asked for and has not done
            return next((other for other in crash.kernel.cpus
                         if other.number != cpu.number and other.stack.frames and per_cpu(queue, other.number).first
                         and loops_with_interrupts(crash.kernel, other, crash.now) is False), None)
        return None

    @staticmethod
    def _stalled(crash: Crash, numbers: list[int]) -> Cpu | None:
        cpus = crash.kernel.cpus if crash.kernel else ()
        if not numbers:                         # the log is silent: another CPU that was busy
            return next((cpu for cpu in cpus if not cpu.panicked and not cpu.idle and cpu.stack.frames), None)
        return next((cpu for cpu in cpus if cpu.number in numbers and cpu.stack.frames), None)
