"""The diagnosis: one frozen value from which text, JSON and every other report is made.

Schema 1; `schema.py` derives the JSON Schema and its documentation from these classes, so the
words under each field are what users read. Sizes are bytes, times are seconds (since boot or since
1970, as said), addresses are int here and text ("0x" and hexadecimal digits) in JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any

from kdumpy.diagnosis.facts.base import HEX
from kdumpy.diagnosis.facts.findings import MachineFinding, Unchecked
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.diagnosis.facts.reading import Reading
from kdumpy.diagnosis.facts.waits import WaitGraph

SCHEMA = 1
"""Raised when a field is removed or changes its meaning; a new field does not raise it."""

OWNED = ("mutex", "rwsem", "semaphore", "rt_mutex", "spinlock", "rwlock", "socket lock")
"""Kinds of wait for what has a holder: it is worth to say that he is not known."""


class Confidence(StrEnum):
    """How sure a verdict is."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Health(StrEnum):
    """What state the dump's file is in."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class DumpFacts:
    """The file."""

    path: str
    """Path of the dump, as it was given."""
    format: str
    """Format of the file: elf, kdump, or either with " flattened" behind."""
    size: int
    """Bytes of the file."""
    dump_level: int | None
    """makedumpfile's -d: which kinds of pages were left out; null where the format does not tell."""
    health: Health
    """complete; incomplete (writing it was not finished); damaged (parts contradict each other or cannot be read)."""
    health_details: tuple[str, ...]
    """How it is incomplete or damaged, in words."""
    missing: dict[str, str]
    """What could not be read from it, with the reason, by what: symbols, types, log, tasks, ..."""
    debug_files: tuple[str, ...]
    """Files with DWARF in use; empty when the dump's own information was enough."""


@dataclass(frozen=True)
class SystemFacts:
    """The machine that crashed; null is what the dump does not hold."""

    release: str | None
    """Kernel release, as uname -r."""
    version: str | None
    """Kernel build, as uname -v."""
    machine: str | None
    """Architecture, as uname -m."""
    hostname: str | None
    """Name of the host."""
    cpus: int | None
    """CPUs online."""
    memory_bytes: int | None
    """Memory that the kernel managed, in bytes."""
    uptime_s: float | None
    """Seconds from boot to the crash."""
    boot_time: int | None
    """When it was booted: seconds since 1970, UTC."""
    panic_time: int | None
    """When it crashed: seconds since 1970, UTC."""
    cmdline: str | None
    """Kernel command line."""
    taints: tuple[str, ...]
    """The taint flags that were set, letter and words."""
    load: tuple[float, ...]
    """Load averages over 1, 5 and 15 minutes; empty where unknown."""


@dataclass(frozen=True)
class TaskFacts:
    """A task."""

    pid: int
    """Thread id."""
    comm: str
    """Name of the thread."""
    address: int = field(metadata=HEX)
    """Address of its task_struct; 0 where it is known from the log only."""


@dataclass(frozen=True)
class FrameFacts:
    """One frame of a kernel stack, innermost first."""

    pc: int = field(metadata=HEX)
    """Program counter; 0 where the frame is known from the log only."""
    symbol: str | None
    """Function, with the compiler's suffixes; null where there is no code."""
    offset: int | None
    """Bytes from the begin of the function."""
    module: str | None
    """Module of the function; null for the kernel itself."""
    source: str | None
    """file:line, where DWARF is at hand."""
    inline: bool
    """An inlined call."""
    culprit: bool
    """The verdict names this frame."""


@dataclass(frozen=True)
class PanicFacts:
    """What happened, as the kernel and the processor saw it."""

    message: str | None
    """The line of the log that tells of it."""
    cpu: int | None
    """CPU that took the kernel down."""
    task: TaskFacts | None
    """Task that ran on it."""
    context: str | None
    """What the task was doing, in words: a system call, a work queue, a timer, ..."""
    registers: dict[str, int] = field(metadata=HEX)
    """Registers at the fault, or at the call of panic()."""
    instruction: str | None
    """The faulting instruction, disassembled."""
    instruction_address: int | None = field(metadata=HEX)
    """Where it lies."""
    fault_address: int | None = field(metadata=HEX)
    """The address that it could not use."""
    reading: Reading | None = None
    """What the faulting instruction wanted and got; null where no instruction is at fault."""


@dataclass(frozen=True)
class Culprit:
    """The code that the verdict names."""

    function: str
    """Function, without the compiler's suffixes; empty for a module that was unloaded, and where `variable` stands."""
    module: str | None
    """Its module; null for the kernel itself."""
    source: str | None
    """file:line, where DWARF is at hand."""
    variable: str | None = None
    """The module's variable that the crash worked on, where no function can be named."""

    @property
    def words(self) -> str:
        """`flaky_poll_channel()`, or `the variable flaky`."""
        if not self.function and not self.variable:
            return "unloaded code"
        return f"the variable {self.variable}" if self.variable else f"{self.function}()"


@dataclass(frozen=True)
class Evidence:
    """One observation that the verdict rests on."""

    what: str
    """What it is, in a few words."""
    detail: str
    """The observation."""
    command: str
    """The shell command that shows it; may be empty."""


@dataclass(frozen=True)
class NotJudged:
    """A cause that could be neither found nor excluded."""

    cause: str
    """The cause."""
    why: str
    """What the dump does not hold."""


@dataclass(frozen=True)
class Verdict:
    """Why the kernel crashed."""

    cause: str
    """One of the list of causes; "unknown"; "none" for a kernel that did not crash."""
    title: str
    """The cause in one line."""
    confidence: Confidence
    """certain: the evidence excludes other causes; likely; possible."""
    culprit: Culprit | None
    """The code that is to blame; null where no code is."""
    explanation: str
    """Plain words for an administrator."""
    evidence: tuple[Evidence, ...]
    """What the verdict rests on, the strongest first."""
    symptoms: tuple[str, ...]
    """Less specific causes that also fit, which this one explains."""
    next: tuple[str, ...]
    """What to do now."""
    not_judged: tuple[NotJudged, ...]
    """Causes that the dump did not allow to judge."""
    decisions: tuple[str, ...] = ()
    """How the cause was chosen among those that fit, step by step."""


@dataclass(frozen=True)
class Signature:
    """What groups crashes of the same bug: nothing in it depends on host, boot or addresses."""

    id: str
    """Short hash of the parts, with the version of the rules in front; empty when nothing can be grouped by it."""
    title: str
    """The parts, readable."""
    parts: tuple[str, ...]
    """Version, cause, subtype, module, key function."""
    alternates: dict[str, str]
    """Other ids: "top3" and "top16" over the frames, for finer and finest grouping."""
    decisions: tuple[str, ...]
    """How the key function was chosen, step by step."""


@dataclass(frozen=True)
class CpuFacts:
    """A CPU when the kernel died."""

    number: int
    """Its number."""
    task: TaskFacts | None
    """Task that ran on it."""
    panicked: bool
    """It took the kernel down."""
    doing: str
    """What it was doing, in words."""
    trace: tuple[str, ...]
    """The stack of that task, innermost first."""


@dataclass(frozen=True)
class Wait:
    """A task that waits for a lock."""

    lock: str
    """The lock by name where it has one, else by address; empty where it is not known."""
    lock_address: int = field(metadata=HEX)
    """Where the lock lies."""
    kind: str
    """mutex, rwsem, percpu rwsem, semaphore, completion, wait queue, variable, page lock, buffer lock, bit lock, socket
    lock, RCU, SRCU, work, thread (its end), interrupt thread (the end of its interrupt), file in use, or I/O; rt_mutex,
    and with PREEMPT_RT spinlock and rwlock."""
    owner: TaskFacts | None
    """Task that holds it, or is to bring it about; null where that cannot be told."""
    note: str = ""
    """What else is known: how many hold it, since when a disk has not answered; may be empty."""


@dataclass(frozen=True)
class BlockedFacts:
    """A task in uninterruptible sleep (state D)."""

    task: TaskFacts
    """The task."""
    seconds: float | None
    """Seconds since it last ran; null where unknown."""
    waits_for: Wait | None
    """What it waits for; null where its stack does not show it."""
    trace: tuple[str, ...]
    """Its stack, innermost first."""


@dataclass(frozen=True)
class Blocked:
    """Tasks that wait and cannot be interrupted."""

    count: int
    """How many there are."""
    tasks: tuple[BlockedFacts, ...]
    """The ones that were looked at, the longest wait first."""
    circles: tuple[tuple[int, ...], ...]
    """Thread ids of tasks that wait for each other in a circle."""
    graph: WaitGraph | None = None
    """Who waits for whom, by kind of wait; null where the dump does not tell."""


@dataclass(frozen=True)
class MemoryFacts:
    """Memory at the crash, in bytes; null is what the dump does not hold."""

    total: int | None
    """Memory that the kernel managed."""
    free: int | None
    """Free memory."""
    file: int | None
    """Cached file contents."""
    anonymous: int | None
    """Memory of processes."""
    slab: int | None
    """The kernel's own objects (slab)."""
    slab_unreclaimable: int | None
    """The part of it that cannot be given back."""
    account: MemoryAccount | None = None
    """Where all of it went; null where the dump does not tell."""


@dataclass(frozen=True)
class ModuleFacts:
    """A loaded module."""

    name: str
    """Its name."""
    size: int
    """Bytes of memory that it takes."""
    taints: str
    """Taint letters: O out-of-tree, E unsigned, P proprietary, ...; empty when in-tree."""
    version: str
    """The version that it states."""
    source_version: str = ""
    """The checksum of its source (modinfo's srcversion), where the kernel keeps it."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a kernel crashed, and what that rests on."""

    schema: int
    """Version of this schema."""
    dump: DumpFacts
    """The file."""
    system: SystemFacts
    """The machine."""
    panic: PanicFacts | None
    """What happened; null when the kernel did not crash."""
    verdict: Verdict
    """Why."""
    signature: Signature
    """What groups crashes of the same bug."""
    trace: tuple[FrameFacts, ...]
    """The stack that crashed, innermost first."""
    trace_source: str
    """Where the trace is from: dump or log; empty when there is none."""
    trace_task: TaskFacts | None
    """The task whose stack it is; null where unknown, and where it is no task's."""
    cpus: tuple[CpuFacts, ...]
    """Every CPU online."""
    blocked: Blocked
    """Tasks that wait uninterruptibly, and for whom."""
    memory: MemoryFacts
    """Memory at the crash."""
    modules: tuple[ModuleFacts, ...]
    """Loaded modules, newest first."""
    log_tail: tuple[str, ...]
    """The end of the kernel's log, from just before the first sign of the crash."""
    findings: tuple[MachineFinding, ...] = ()
    """What else is wrong with the machine or worth to know, the worst first."""
    unchecked: tuple[Unchecked, ...] = ()
    """Checks of the machine that the dump did not allow to make."""
    trace_of: str = ""
    """What the trace is of where it is no task's stack at the crash: the allocation of the objects that leaked."""


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as plain JSON values, addresses as hexadecimal text."""
    value: dict[str, Any] = _plain(diagnosis)
    return value


def _plain(value: Any, *, as_hex: bool = False) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name), as_hex=item.metadata.get("hex", False))
                for item in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item, as_hex=as_hex) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, as_hex=as_hex) for item in value]
    if as_hex and isinstance(value, int):
        return f"{value:#x}"
    return str(value) if isinstance(value, StrEnum) else value
