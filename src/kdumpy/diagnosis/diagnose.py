"""From an opened dump, or from its log alone, to a `Diagnosis`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kdumpy.debuginfo.reading import READ_ERRORS, says_damage
from kdumpy.diagnosis.advice import general_advice
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.reading import Reading
from kdumpy.diagnosis.findings import look_around
from kdumpy.diagnosis.memoryuse.account import memory_account
from kdumpy.diagnosis.memoryuse.usage import memory_usage
from kdumpy.diagnosis.model import (
    SCHEMA,
    Blocked,
    BlockedFacts,
    Confidence,
    CpuFacts,
    Culprit,
    Diagnosis,
    DumpFacts,
    FrameFacts,
    Health,
    MemoryFacts,
    ModuleFacts,
    PanicFacts,
    Signature,
    SystemFacts,
    TaskFacts,
    Verdict,
    Wait,
)
from kdumpy.diagnosis.signature import sign
from kdumpy.diagnosis.steps import EACH, Steps
from kdumpy.diagnosis.verdict import Judgement, judge
from kdumpy.diagnosis.waits.graph import wait_graph
from kdumpy.diagnosis.waits.locks import BlockedTask
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.logrecord import LogRecord
from kdumpy.errors import KdumpyError
from kdumpy.kernel.kernel import Kernel
from kdumpy.kernel.values import Frame, Stack, Task

_TAIL_BEFORE, _TAIL_LINES = 10, 80
"""Lines of the log before the first sign of the crash, and in all."""
_MOST_FRAMES = 100
_LATER = (" The kernel survived that and went on for a while, with a task missing that may have held locks; what ended "
          "it came later, and is probably a consequence.")


def diagnose(kernel: Kernel, *, seconds: float = EACH) -> Diagnosis:
    """Return why a kernel crashed. Whatever the dump lacks is left out and named; nothing is raised for it.

    Args:
        kernel: the dump.
        seconds: CPU time that each step may take, 0 for no bound; one that takes longer is left out and named.
    """
    steps = Steps(kernel.problems, seconds)
    log: tuple[LogRecord, ...] = steps.get("log", lambda: kernel.log, ())
    crash = steps.get("the story of the log", lambda: Crash(kernel.path, kernel, log), None) or \
        Crash(kernel.path, kernel, ())
    missing_log = {"log": kernel.problems["log"]} if "log" in kernel.problems else {}
    judgement = judge(crash, steps)
    frames: tuple[Frame, ...] = steps.get("the stack", lambda: _trace(crash, judgement), ())
    memory = steps.get("memory", lambda: _memory(crash, kernel), MemoryFacts(None, None, None, None, None, None))
    findings, unchecked = look_around(crash, memory.account, steps, judgement)
    reading = steps.get("the faulting instruction", lambda: _reading(crash), None)
    return Diagnosis(
        schema=SCHEMA, system=steps.get("the system", lambda: _system(kernel), _system_of(kernel.dump)),
        panic=steps.get("panic", lambda: _panic(crash, reading), None),
        verdict=steps.get("what to do next", lambda: _verdict(crash, judgement, kernel.dump, missing_log),
                          _bare_verdict(crash, judgement)),
        signature=_signature(crash, judgement, frames), trace=_frames(frames, judgement),
        trace_source=("dump" if any(frame.pc for frame in frames) else "log") if frames else "",
        trace_task=steps.get("the task of the stack", lambda: _trace_task(crash, judgement), None),
        cpus=steps.get("cpus", lambda: _cpus(kernel), ()),
        blocked=steps.get("blocked tasks", lambda: _blocked(crash), Blocked(0, (), ())), memory=memory,
        modules=steps.get("modules", lambda: _modules(kernel), ()),
        log_tail=steps.get("the end of the log", lambda: _log_tail(crash, log), ()), findings=findings,
        unchecked=unchecked, trace_of=judgement.finding.trace_of if judgement else "",
        # The last one: reading all the above is what finds out what is missing.
        dump=_dump(kernel.path, kernel.dump, {**kernel.debuginfo.missing, **kernel.problems, **missing_log},
                   tuple(kernel.debuginfo.dwarf)))


def diagnose_log(path: Path, dump: Dump, reason: str) -> Diagnosis:
    """Return what the kernel's log alone can say; for a dump that cannot be opened further.

    Raises:
        KdumpyError: the log cannot be read either.
    """
    from kdumpy.dumpfile.dmesg import read_log

    log = read_log(dump)
    crash = Crash(path, None, log.records)
    judgement = judge(crash)
    frames = _trace(crash, judgement)
    missing = {"everything but the log": reason} | ({"log": log.why} if log.why else {})
    system = replace(_system_of(dump), uptime_s=max((at for at in crash.seconds if at is not None), default=None))
    return Diagnosis(
        schema=SCHEMA, dump=_dump(path, dump, missing, ()), system=system, panic=_panic(crash, None),
        verdict=_verdict(crash, judgement, dump, missing), signature=_signature(crash, judgement, frames),
        trace=_frames(frames, judgement), trace_source="log" if frames else "",
        trace_task=_trace_task(crash, judgement), cpus=(), blocked=Blocked(0, (), ()),
        memory=MemoryFacts(None, None, None, None, None, None), modules=(), log_tail=_log_tail(crash, log.records),
        findings=look_around(crash, None, judgement=judgement)[0])


def _dump(path: Path, dump: Dump, missing: dict[str, str], debug_files: tuple[str, ...]) -> DumpFacts:
    state, details = Health.COMPLETE, tuple[str, ...]()
    try:
        from kdumpy.dumpfile.health import health

        found = health(dump)
        state = Health(found.state.value)
        details = tuple(f"{reason.what} (at {reason.where})" if reason.where else reason.what
                        for reason in found.reasons)
    except KdumpyError as error:
        state, details = Health.DAMAGED, (str(error),)
    if state is Health.COMPLETE and any(map(says_damage, missing.values())):
        state, details = Health.DAMAGED, ("pages that were wanted cannot be read",)     # by drgn, which counts none
    return DumpFacts(path=str(path), format=dump.format, size=path.stat().st_size, dump_level=dump.dump_level,
                     health=state, health_details=details, missing=missing, debug_files=debug_files)


def _system(kernel: Kernel) -> SystemFacts:
    system = kernel.system
    return SystemFacts(
        release=system.release, version=system.version, machine=system.machine, hostname=system.hostname,
        cpus=system.cpus, memory_bytes=system.memory_bytes, uptime_s=system.uptime_s, boot_time=system.boot_time,
        panic_time=system.panic_time, cmdline=system.cmdline, taints=system.taints, load=tuple(system.load or ()))


def _system_of(dump: Dump) -> SystemFacts:
    """Return what the headers of the file say."""
    names = dump.utsname
    return SystemFacts(
        release=dump.vmcoreinfo.osrelease or (names.release if names else None),
        version=names.version if names else None, machine=names.machine if names else None,
        hostname=names.nodename if names else None, cpus=None, memory_bytes=None, uptime_s=None, boot_time=None,
        panic_time=dump.crash_time, cmdline=None, taints=(), load=())


def _cpus(kernel: Kernel) -> tuple[CpuFacts, ...]:
    return tuple(CpuFacts(cpu.number, _task(cpu.task), cpu.panicked, cpu.doing, _words(cpu.stack))
                 for cpu in kernel.cpus)


def _modules(kernel: Kernel) -> tuple[ModuleFacts, ...]:
    return tuple(ModuleFacts(item.name, item.size, item.taints, item.version, item.source_version)
                 for item in kernel.modules)


def _panic(crash: Crash, reading: Reading | None) -> PanicFacts | None:
    if not crash.happened:
        return None
    panic, event = crash.panic, crash.event
    instruction = crash.instruction if crash.faulted else None
    return PanicFacts(
        message=crash.message, cpu=panic.cpu if panic else event.cpu if event else None, task=_crashed_task(crash),
        context=crash.context, registers=dict(crash.registers),
        instruction=instruction.text if instruction else None,
        instruction_address=crash.fault.pc or None if crash.faulted and crash.fault else None,
        fault_address=crash.address if crash.faulted else None, reading=reading)


def _memory(crash: Crash, kernel: Kernel) -> MemoryFacts:
    account = None
    try:
        account = memory_account(kernel, crash.lines, crash.seconds)
    except READ_ERRORS as error:
        kernel.problems["the account of memory"] = str(error)
    return replace(memory_usage(kernel), account=account)


def _reading(crash: Crash) -> Reading | None:
    """Return what the faulting instruction wanted; None where there is none."""
    return crash.reader.reading() if crash.reader is not None and crash.faulted else None


def _crashed_task(crash: Crash) -> TaskFacts | None:
    if crash.task is None and crash.event and crash.event.task:
        return TaskFacts(crash.event.task[0], crash.event.task[1], 0)
    return _task(crash.task)


def _trace_task(crash: Crash, judgement: Judgement | None) -> TaskFacts | None:
    if judgement is None:
        return None
    finding = judgement.finding
    return _task(finding.trace_task) if finding.trace else _crashed_task(crash)


def _verdict(crash: Crash, judgement: Judgement | None, dump: Dump, missing: Mapping[str, str]) -> Verdict:
    if judgement is None and ("log" in missing or dump.vmcoreinfo.crash_time is not None):
        return _untold(crash.path, crashed=dump.vmcoreinfo.crash_time is not None)  # only one that panics writes it
    if judgement is None:
        return Verdict(
            cause="none", title="The kernel did not crash", confidence=Confidence.CERTAIN, culprit=None,
            explanation="This dump is of a running kernel: no CPU had panicked and the log tells of no fault. It was "
                        "taken from outside, of a virtual machine or by a tool.",
            evidence=(), symptoms=(), next=(crash_look(crash),), not_judged=())
    finding = judgement.finding
    frame = finding.culprit
    culprit = _culprit(frame) if frame and (frame.function or frame.module) else None
    return Verdict(
        cause=judgement.cause, title=finding.title, confidence=finding.confidence, culprit=culprit,
        explanation=finding.explanation + (_LATER if crash.ended_later else ""),
        evidence=(*finding.evidence, *crash.evidence.ending()), symptoms=judgement.symptoms,
        next=(*finding.next, *general_advice(crash, culprit)), not_judged=judgement.not_judged,
        decisions=judgement.decisions)


def _bare_verdict(crash: Crash, judgement: Judgement | None) -> Verdict:
    """Return the verdict without what else there is to say of it."""
    if judgement is None:
        return _untold(crash.path, crashed=False)
    finding = judgement.finding
    frame = finding.culprit
    culprit = _culprit(frame) if frame and (frame.function or frame.module) else None
    return Verdict(judgement.cause, finding.title, finding.confidence, culprit, finding.explanation,
                   tuple(finding.evidence), judgement.symptoms, tuple(finding.next), judgement.not_judged,
                   judgement.decisions)


def _culprit(frame: Frame) -> Culprit:
    if frame.data:
        return Culprit("", frame.module, None, variable=frame.symbol)
    return Culprit(frame.function or "", frame.module, frame.source)


def _untold(path: Path, *, crashed: bool) -> Verdict:
    """Return the verdict on a dump that shows no crash but has lost what would show one. `crashed`: it noted a time."""
    return Verdict(
        cause="unknown", title="The kernel crashed, but this dump has lost what would tell why" if crashed else
        "This dump has lost what would tell whether the kernel crashed", confidence=Confidence.POSSIBLE, culprit=None,
        explanation="Neither a panicked CPU nor the line of the log that tells of a fault can be read from it."
                    + (" That it crashed is certain: it noted the time of its crash." if crashed else ""),
        evidence=(), symptoms=(), not_judged=(),
        next=("Compare the file's size with the one where it was captured, and copy it again.",
              f"See what is there: kdumpy info --deep {shlex.quote(str(path))}",
              "Look for the kernel's last words elsewhere: in a vmcore-dmesg.txt or dmesg.* beside the dump, on a "
              "serial console, in /sys/fs/pstore or /var/lib/systemd/pstore."))


def crash_look(crash: Crash) -> str:
    """Return the advice to look into the dump by hand."""
    return f"Look into it: {crash.evidence.command('ps')}"


def _signature(crash: Crash, judgement: Judgement | None, frames: Sequence[Frame]) -> Signature:
    if judgement is None:
        return Signature("", "", (), {}, ())
    return sign(judgement.cause, judgement.finding, frames)


def _trace(crash: Crash, judgement: Judgement | None) -> tuple[Frame, ...]:
    if judgement and judgement.finding.trace:
        return tuple(judgement.finding.trace)[:_MOST_FRAMES]
    frames = crash.below_fault if crash.faulted else crash.stack
    return tuple(frames[:_MOST_FRAMES]) if judgement else ()


def _frames(frames: Sequence[Frame], judgement: Judgement | None) -> tuple[FrameFacts, ...]:
    culprit = judgement.finding.culprit if judgement else None
    marked = False
    found = []
    # What called the kernel stands below all of it; above, it is an address that was jumped to, and nobody's code.
    kernel = max((number for number, frame in enumerate(frames) if not frame.user), default=-1)
    for number, frame in enumerate(frames):
        is_culprit = not marked and culprit is not None and frame == culprit
        marked = marked or is_culprit
        symbol = frame.symbol or ("(user space)" if frame.user and number > kernel else None)
        found.append(FrameFacts(frame.pc, symbol, frame.offset, frame.module, frame.source, frame.inline, is_culprit))
    return tuple(found)


def _task(task: Task | None) -> TaskFacts | None:
    return TaskFacts(task.pid, task.comm, task.address) if task else None


def _words(stack: Stack) -> tuple[str, ...]:
    frames = tuple(str(frame) for frame in stack.frames[:_MOST_FRAMES] if not frame.user)
    return (*frames, f"({stack.problem})") if stack.problem else frames


def _blocked(crash: Crash) -> Blocked:
    waits = crash.waits
    if waits is None:
        return Blocked(0, (), ())
    tasks = tuple(map(_blocked_task, waits.blocked))
    return Blocked(waits.count, tasks, tuple(tuple(item.task.pid for item in circle) for circle in waits.circles),
                   wait_graph(waits))


def _blocked_task(item: BlockedTask) -> BlockedFacts:
    lock = item.waits_for
    wait = Wait(lock.name, lock.address, lock.kind, _task(lock.owner), lock.note) if lock else None
    seconds = round(item.seconds, 1) if item.seconds is not None else None
    return BlockedFacts(TaskFacts(item.task.pid, item.task.comm, item.task.address), seconds, wait, _words(item.stack))


def _log_tail(crash: Crash, log: Sequence[LogRecord]) -> tuple[str, ...]:
    """Return the log from just before the crash; its last lines where it tells of none."""
    lines = [line for record in log for line in record.lines()]
    if crash.event is None:
        return tuple(lines[-_TAIL_LINES:])
    begin = max(0, crash.event.position - _TAIL_BEFORE)
    return tuple(lines[begin : begin + _TAIL_LINES])
