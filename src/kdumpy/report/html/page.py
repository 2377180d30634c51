"""What stands on the page, as plain values for the template: words and numbers are decided here, looks are not."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from kdumpy.diagnosis.culprit import contexts, name_list
from kdumpy.diagnosis.details import Details
from kdumpy.diagnosis.details.code import whole_register
from kdumpy.diagnosis.model import Confidence, CpuFacts, Diagnosis, FrameFacts, Health, TaskFacts, as_json
from kdumpy.report import bugreport, words
from kdumpy.report.families import families
from kdumpy.report.folding import folded
from kdumpy.report.html import timeline, waits
from kdumpy.units import human_bytes, human_seconds, human_time

CONFIDENCE = {Confidence.CERTAIN: (3, "certain", "The evidence excludes other causes."),
              Confidence.LIKELY: (2, "likely", "It fits best, but the evidence does not exclude other causes."),
              Confidence.POSSIBLE: (1, "possible", "The evidence is thin.")}
STATES = {"R": "running or ready", "S": "sleeping", "D": "blocked, cannot be interrupted", "I": "idle kernel thread",
          "T": "stopped", "t": "traced", "X": "dead", "Z": "zombie", "P": "parked", "?": "unknown"}
_ASLEEP = frozenset({"__switch_to", "__schedule", "schedule", "preempt_schedule", "preempt_schedule_common",
                     "schedule_timeout", "schedule_preempt_disabled", "io_schedule", "io_schedule_timeout",
                     "schedule_hrtimeout_range", "schedule_hrtimeout_range_clock", "schedule_timeout_interruptible",
                     "schedule_timeout_uninterruptible", "schedule_idle", "preempt_schedule_irq", "schedule_rtlock"})
"""Functions through which every sleeper goes: they do not tell for what it waits."""
_CPU_CARDS, _BLOCKED, _STACK_ROWS, _NAMED, _BARS = 64, 16, 40, 4, 12


@dataclass(frozen=True)
class TraceRow:
    """A frame of the trace, or a run of equal ones."""

    number: int
    name: str
    offset: str
    module: str | None
    source: str | None
    kind: str
    """culprit, module, plain, plumbing."""
    notes: tuple[str, ...]
    times: int


def context(diagnosis: Diagnosis, details: Details) -> dict[str, Any]:
    """Return everything that the template shows."""
    held = details.registers if _registers_tell(diagnosis) else ()
    return {
        "d": diagnosis, "x": details, "confidence": CONFIDENCE[diagnosis.verdict.confidence],
        "crashed": diagnosis.verdict.cause != "none", "glance": list(_glance(diagnosis, details)),
        "trust": list(_trust(diagnosis)), "evidence": list(_evidence(diagnosis)),
        "findings": [(item, item.command.replace(shlex.quote(diagnosis.dump.path), "$VMCORE"))
                     for item in diagnosis.findings], "reading": list(_reading(diagnosis)),
        "trace": list(_trace(diagnosis)), "trace_of": _trace_of(diagnosis),
        "jumped": words.TAIL_CALL if any(words.jumped(frame) for frame in diagnosis.trace) else "",
        "code": _code(diagnosis, details),
        "registers": [item for item in held if item.words],
        "used": _used(diagnosis, details),
        "other_registers": [item for item in held if not item.words],
        "graph": waits.draw(diagnosis.blocked), "blocked": families(diagnosis.blocked)[:_BLOCKED],
        "cpus": _cpus(diagnosis.cpus), "stack_groups": list(_stack_groups(details)), "memory": _memory(diagnosis),
        "modules": _modules(diagnosis, details), "timeline": timeline.draw(details.log),
        "log_tail": diagnosis.log_tail, "message": diagnosis.panic.message if diagnosis.panic else None,
        "facts": list(_facts(diagnosis)), "bug_report": bugreport.render(diagnosis), "states": STATES,
        "state_counts": Counter(task.state for task in details.tasks).most_common(),
        "missing": {**diagnosis.dump.missing, **details.missing},
    }


def data(diagnosis: Diagnosis, details: Details) -> dict[str, Any]:
    """Return what the page's script draws: tasks, stacks, log. Rows are lists, their columns as below."""
    names: dict[str, int] = {}
    stacks = [[names.setdefault(name, len(names)) for name in stack] for stack in details.stacks]
    panicked = {cpu.task.pid for cpu in diagnosis.cpus if cpu.panicked and cpu.task}
    culprit = diagnosis.verdict.culprit
    return {
        "frames": list(names),
        "stacks": stacks,
        "where": [next((place for place, name in zip(stack, words, strict=True) if name not in _ASLEEP), stack[0])
                  for stack, words in zip(stacks, details.stacks, strict=True)],
        "columns": ["pid", "tgid", "parent", "comm", "state", "cpu", "flags", "rss", "idle", "stack"],
        "tasks": [[task.pid, task.tgid, task.parent, task.comm, task.state, task.cpu,
                   int(task.on_cpu) | int(task.kernel_thread) << 1 | int(task.pid in panicked) << 2,
                   task.rss, task.idle_s, task.stack] for task in details.tasks],
        "states": STATES,
        "log": [[line.seconds, line.level, line.text] for line in details.log.lines],
        "events": [[event.line, event.end, event.words, int(event.cause)] for event in details.log.events],
        "culprit": {"function": culprit.function, "module": culprit.module} if culprit else None,
    }


def raw(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as JSON; the page carries it for programs."""
    return as_json(diagnosis)


def uptime(diagnosis: Diagnosis) -> str:
    """Return how long the machine had been up, in words; the kernel's own count is of whole seconds."""
    seconds = diagnosis.system.uptime_s
    return human_seconds(seconds).replace(".0 s", " s") if seconds is not None else ""


def task_words(task: TaskFacts | None) -> str:
    """Return a task as name and number; empty where there is none."""
    return words.task_words(task) if task else ""


def _glance(diagnosis: Diagnosis, details: Details) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, small print) of the verdict's card."""
    verdict, system, panic = diagnosis.verdict, diagnosis.system, diagnosis.panic
    if verdict.culprit:
        module = verdict.culprit.module
        taints = next((item.taints for item in diagnosis.modules if item.name == module), "")
        kind = ", not part of the kernel" if "O" in taints else ""
        yield ("Culprit", verdict.culprit.words,
               verdict.culprit.source or (f"module {module}{kind}" if module else "the kernel itself"))
    if panic and (panic.task or panic.cpu is not None):
        place = [f"CPU {panic.cpu}" if panic.cpu is not None else "", f"in {panic.context}" if panic.context else ""]
        # A watchdog's task panics for others: it is not the one whose stack is shown.
        whose = diagnosis.trace_task
        noticed = panic.task and panic.task.pid and whose and whose.pid != panic.task.pid
        yield ("Noticed by" if noticed else "Ran in", task_words(panic.task) or "unknown",
               ", ".join(part for part in place if part))
    up = uptime(diagnosis)
    if system.panic_time or up:
        yield ("Crashed" if verdict.cause != "none" else "Taken", human_time(system.panic_time) or "unknown",
               f"after {up} of uptime" if up else "")
    if system.release:
        size = ", ".join(part for part in (
            system.machine or "", f"{system.cpus} CPUs" if system.cpus else "",
            words.memory_words(diagnosis)) if part)
        yield "Kernel", system.release, size


def _trust(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield what the dump does not tell, so that nobody takes an absent answer for a good one."""
    dump = diagnosis.dump
    if dump.health != Health.COMPLETE:
        yield f"The dump is {dump.health}: " + ("; ".join(dump.health_details) or "no reason is known")
    lost = next((what for what in ("symbols", "types") if what in dump.missing), "")
    nameless = [what for what, why in dump.missing.items() if lost and what != lost and "could not find " in why]
    for what, why in dump.missing.items():
        if what != "engine" and what not in nameless and not (diagnosis.verdict.cause == "none" and what == "panic"):
            yield f"{what}: {why}"
    if nameless:
        yield f"Without {lost} these cannot be found: " + ", ".join(nameless)
    for item in diagnosis.verdict.not_judged:
        yield f"Not judged, whether it is {item.cause}: {item.why}"


def _evidence(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str]]:
    """Yield (what, detail, command); the dump's path is said as $VMCORE."""
    path = shlex.quote(diagnosis.dump.path)
    for item in diagnosis.verdict.evidence:
        yield item.what, item.detail, item.command.replace(path, "$VMCORE")


def _trace(diagnosis: Diagnosis) -> Iterator[TraceRow]:
    plumbing, anchors, told = name_list("plumbing"), contexts(), set[str]()
    fault = diagnosis.panic.instruction_address if diagnosis.panic else None
    rows = []
    number = 0
    for fold in folded(diagnosis.trace):
        rows += [(number + place, frame, fold) for place, frame in enumerate(fold.frames)]
        number += len(fold.frames) * fold.times
    for number, frame, fold in rows:
        notes = ["the culprit"] if frame.culprit else []
        if frame.pc and frame.pc == fault and not frame.inline:
            notes.append("the fault is here")
        where = anchors.get(_plain(frame), "")
        if where and where not in told:
            told.add(where)
            notes.append(f"in {where}")
        if words.jumped(frame):
            notes.append("tail call")
        elif frame.inline and frame.offset is None:
            notes.append("inlined")
        kind = "culprit" if frame.culprit else "module" if frame.module else \
            "plumbing" if _plain(frame) in plumbing or where else "plain"
        yield TraceRow(number, frame.symbol or f"{frame.pc:#x}",
                       f"+{frame.offset:#x}" if frame.symbol and frame.offset is not None and not frame.inline else "",
                       frame.module, frame.source, kind,
                       (*notes, *(() if frame.symbol else ("no code there",))), fold.times)


def _plain(frame: FrameFacts) -> str:
    return frame.symbol.split(".", 1)[0] if frame.symbol else ""


def _trace_of(diagnosis: Diagnosis) -> str:
    whose = f"of {diagnosis.trace_of}" if diagnosis.trace_of else \
        f"of {task_words(diagnosis.trace_task)}" if diagnosis.trace_task else ""
    return whose + (", as the log has it" if diagnosis.trace_source == "log" else "")


def _registers_tell(diagnosis: Diagnosis) -> bool:
    """Whether the registers are those of a fault; those of a call of panic() say nothing."""
    return bool(diagnosis.panic and diagnosis.panic.registers and (
        diagnosis.panic.instruction_address or diagnosis.panic.fault_address is not None))


def _reading(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of what the faulting instruction wanted and got."""
    reading = diagnosis.panic.reading if diagnosis.panic else None
    if reading is None:
        return
    pointer = reading.pointer
    rows = [("exception", ", ".join(part for part in (reading.trap, reading.error_code) if part))]
    if pointer:
        origin = pointer.loaded_from
        rows += [("pointer", (f"{pointer.register}: " if pointer.register else "") + pointer.words),
                 ("in the source", f"{pointer.expression} in {pointer.function}()" if pointer.expression else ""),
                 ("type", pointer.type or ""), ("member", pointer.member or ""),
                 ("loaded by", pointer.loaded_by or ""),
                 ("loaded from", f"{origin.address:#x}: {origin.words}" if origin else ""),
                 ("points at", pointer.target.words if pointer.target.words != pointer.words else "")]
        for track in (*(origin.tracks if origin else ()), *pointer.target.tracks):
            ago = f" {human_seconds(track.seconds_before)} before" if track.seconds_before is not None else ""
            rows.append((track.event, f"by process {track.pid} on CPU {track.cpu}{ago}: " + " ← ".join(track.trace)))
    rows += [("log and dump" if check.agrees else "log and dump differ", f"{check.what}: {check.detail}")
             for check in reading.checks]
    yield from ((name, value) for name, value in rows if value)


def _code(diagnosis: Diagnosis, details: Details) -> list[dict[str, Any]]:
    """Return the blocks, each line's text cut where a register is named."""
    import re

    held = {register.name: register for register in details.registers}
    pattern = re.compile(r"\b(r[a-d]x|r[sd]i|r[sb]p|r\d{1,2}[dwb]?|e[a-d]x|e[sd]i|e[sb]p|[a-d][xlh]|[sd]il?|[sb]pl?|"
                         r"[xw]\d{1,2})\b")
    blocks = []
    for block in details.code:
        lines = []
        for line in block.lines:
            mnemonic, _, operands = line.text.partition(" ")
            pieces = [(part, whole_register(part) if number % 2 and whole_register(part) in held else "")
                      for number, part in enumerate(pattern.split(operands))]
            lines.append((line, mnemonic, pieces))
        blocks.append({"code": block, "lines": lines})
    return blocks


def _used(diagnosis: Diagnosis, details: Details) -> set[str]:
    """Return the registers that the faulting instruction names."""
    return {register for block in _code(diagnosis, details) if block["code"].fault
            for line, _, pieces in block["lines"] if line.marked for _, register in pieces if register}


def _cpus(cpus: Sequence[CpuFacts]) -> dict[str, Any]:
    kinds = {cpu.number: _cpu_kind(cpu) for cpu in cpus}
    busy = [cpu for cpu in cpus if kinds[cpu.number] != "idle"]
    busy.sort(key=lambda cpu: not cpu.panicked)
    return {"all": cpus, "kinds": kinds, "cards": busy[:_CPU_CARDS], "left_out": max(0, len(busy) - _CPU_CARDS),
            "idle": ranges([cpu.number for cpu in cpus if kinds[cpu.number] == "idle"]),
            "counts": Counter(kinds.values())}


def _cpu_kind(cpu: CpuFacts) -> str:
    if cpu.panicked:
        return "panicked"
    for kind in ("idle", "user", "kernel"):
        if kind in cpu.doing.split(":")[0]:
            return kind
    return "unknown"


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: `0-3, 7`."""
    parts = []
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ", ".join(parts)


def _stack_groups(details: Details) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield (tasks, their names, stack), the largest groups first."""
    by_stack: dict[int, list[str]] = {}
    for task in details.tasks:
        if task.stack is not None:
            by_stack.setdefault(task.stack, []).append(task.comm)
    ordered = sorted(by_stack.items(), key=lambda item: -len(item[1]))[:_STACK_ROWS]
    for stack, comms in ordered:
        names = list(dict.fromkeys(comms))
        more = f" and {len(names) - _NAMED} other names" if len(names) > _NAMED else ""
        yield len(comms), ", ".join(names[:_NAMED]) + more, details.stacks[stack]


def _memory(diagnosis: Diagnosis) -> dict[str, Any] | None:
    account = diagnosis.memory.account
    if account is None or not account.ram:
        return None
    rows: list[dict[str, Any]] = []
    before = 0.0
    for share in sorted(account.shares, key=lambda share: share.name in ("free", "other")):
        if share.size <= 0:
            continue
        part = 100 * share.size / account.ram
        rows.append({"name": share.name, "words": share.words, "size": human_bytes(share.size), "begin": before,
                     "part": part, "colour": share.name if share.name in ("free", "other") else str(len(rows) % 9)})
        before += part
    processes = [(f"{item.comm} ({item.pid})", item.anonymous + item.file + item.shared) for item in account.processes]
    return {"total": human_bytes(account.ram), "rows": rows, "error": account.error, "missing": account.missing,
            "slabs": _bars([(item.name, item.size) for item in account.caches[:_BARS]]),
            "processes": _bars(sorted(processes, key=lambda row: -row[1])[:_BARS]),
            "kills": account.oom_kills, "cgroups": _bars([(item.path, item.used) for item in account.cgroups[:_BARS]])}


def _bars(rows: Sequence[tuple[str, int]]) -> list[tuple[str, str, float]]:
    """Return (name, size in words, per cent of the largest)."""
    largest = max((size for _, size in rows), default=0)
    return [(name, human_bytes(size), 100 * size / largest) for name, size in rows if size > 0]


def _modules(diagnosis: Diagnosis, details: Details) -> list[dict[str, Any]]:
    culprit = diagnosis.verdict.culprit.module if diagnosis.verdict.culprit else None
    if details.modules:
        rows = [{"name": item.name, "size": item.size, "taints": item.taints, "version": item.version,
                 "base": f"{item.base:016x}" if item.base else "", "used_by": item.used_by, "state": item.state}
                for item in details.modules]
    else:
        rows = [{"name": item.name, "size": item.size, "taints": item.taints, "version": item.version, "base": "",
                 "used_by": (), "state": ""} for item in diagnosis.modules]
    for row in rows:
        row["culprit"] = culprit is not None and row["name"] == culprit
    return sorted(rows, key=lambda row: (not row["culprit"], not row["taints"]))


def _facts(diagnosis: Diagnosis) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield (heading, rows) of everything that is worth a line."""
    system, dump, panic, signature = diagnosis.system, diagnosis.dump, diagnosis.panic, diagnosis.signature
    yield "System", [(name, value) for name, value in (
        ("host", system.hostname or ""), ("release", system.release or ""), ("build", system.version or ""),
        ("machine", system.machine or ""), ("booted", human_time(system.boot_time)),
        ("crashed", human_time(system.panic_time)), ("uptime", uptime(diagnosis)),
        ("CPUs online", str(system.cpus or "")),
        ("memory", words.memory_words(diagnosis, noun="")),
        ("load", ", ".join(f"{value:.2f}" for value in system.load)), ("taint", "; ".join(system.taints)),
        ("command line", system.cmdline or "")) if value]
    if panic:
        yield "Panic", [(name, value) for name, value in (
            ("message", panic.message or ""), ("CPU", "" if panic.cpu is None else str(panic.cpu)),
            ("task", task_words(panic.task)),
            ("task_struct", f"{panic.task.address:016x}" if panic.task and panic.task.address else ""),
            ("context", panic.context or ""), ("instruction", panic.instruction or ""),
            ("at", f"{panic.instruction_address:016x}" if panic.instruction_address else ""),
            ("fault address", f"{panic.fault_address:016x}" if panic.fault_address is not None else "")) if value]
    yield "Dump", [(name, value) for name, value in (
        ("path", dump.path), ("format", dump.format), ("size", human_bytes(dump.size)),
        ("dump level", "" if dump.dump_level is None else str(dump.dump_level)),
        ("health", "; ".join((str(dump.health), *dump.health_details))),
        ("engine", dump.missing.get("engine", "")), ("debug symbols", ", ".join(dump.debug_files) or "none needed: "
         "symbols and types came from the dump itself" if "symbols" not in dump.missing else "none")) if value]
    if signature.id:
        yield "Signature", [("id", signature.id), ("title", signature.title),
                            *((f"alternate, {name}", value) for name, value in signature.alternates.items()),
                            *((f"step {number}", words) for number, words in enumerate(signature.decisions, 1))]
