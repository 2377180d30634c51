"""What a report shows beside the diagnosis: every task, every stack, the whole log, the code around the fault.

Sizes are bytes, times seconds since boot, addresses int. Text is as it lies in the dump: not to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task."""

    pid: int
    tgid: int
    parent: int
    comm: str
    state: str
    """The letter that ps shows."""
    cpu: int
    on_cpu: bool
    kernel_thread: bool
    rss: int | None
    """Memory of its process, in bytes; None for kernel threads, and where it cannot be read."""
    idle_s: float | None
    """Seconds since it last got a CPU; None where unknown."""
    stack: int | None
    """Place of its stack in `Details.stacks`; None where it has none, or was not unwound."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the kernel's log."""

    seconds: float | None
    level: int
    """0 emergency to 7 debug; -1 where unknown."""
    text: str
    """Without the time."""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A report of trouble in the log: a warning, an oops, a stall, the closing panic."""

    line: int
    """Place of its first line in `Log.lines`."""
    end: int
    """The place behind its last line."""
    words: str
    """Its opening line."""
    cause: bool
    """The verdict is about this one."""


@dataclass(frozen=True)
class Log:
    """The kernel's log, and what stands out in it."""

    lines: tuple[LogLine, ...] = ()
    events: tuple[LogEvent, ...] = ()
    left_out: int = 0
    """Older lines that were left out."""


@dataclass(frozen=True, slots=True)
class CodeLine:
    """An instruction."""

    address: int
    offset: int
    """Bytes from the function's begin."""
    data: str
    """Its bytes, in hexadecimal."""
    text: str
    """In the syntax of the GNU assembler, as the kernel's people read it."""
    target: str
    """Where a call or jump goes, as function+offset; empty where it goes nowhere or out of reach."""
    marked: bool
    """The fault is here, or the call that had not returned."""
    note: str = ""
    """What its operands were; for the faulting instruction only."""


@dataclass(frozen=True)
class Code:
    """The code around one frame of the trace."""

    frame: int
    """Place of the frame in the trace."""
    symbol: str
    module: str | None
    lines: tuple[CodeLine, ...]
    before: int
    """Instructions of the function before these."""
    after: int
    """And behind them."""
    fault: bool
    """An exception hit here, and the registers are those of that moment."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register at the fault."""

    name: str
    value: int
    words: str
    """What the value is; empty where it says nothing."""
    kind: str
    """A word of `memory.Meaning`: null, freed, user, kernel, ..."""


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """A loaded module."""

    name: str
    base: int
    """Where its code begins; 0 where unknown."""
    size: int
    taints: str
    version: str
    used_by: tuple[str, ...]
    state: str


@dataclass(frozen=True)
class Details:
    """All of it. What could not be read is empty, and stands in `missing` with the reason."""

    tasks: tuple[TaskRow, ...] = ()
    stacks: tuple[tuple[str, ...], ...] = ()
    """Every different stack, innermost first: `function`, or `function [module]`."""
    log: Log = field(default_factory=Log)
    code: tuple[Code, ...] = ()
    registers: tuple[Register, ...] = ()
    modules: tuple[ModuleRow, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
