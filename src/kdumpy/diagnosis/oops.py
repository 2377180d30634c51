"""The kernel's log as events: what it said went wrong, in its own words and in order.

An oops is several lines, and often several openings ("list_del corruption", then "kernel BUG at",
then "invalid opcode"): they are one event of several kinds. The closing "Kernel panic - not
syncing" is an event of its own, and need not be there: the dump may be taken before it is printed.

Wording of x86-64 from 5.10 to 7.x, and of arm64. Sources: arch/x86/mm/fault.c, arch/x86/kernel/traps.c,
arch/x86/kernel/dumpstack.c, arch/arm64/mm/fault.c, lib/bug.c, lib/list_debug.c, lib/refcount.c,
kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h, mm/oom_kill.c, kernel/panic.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

MOST_EVENT_LINES = 400
"""Lines that one event can have: a trace with registers has about 60, an out-of-memory report more."""


class Kind(StrEnum):
    """What an opening line tells of."""

    SYSRQ = "sysrq"
    NULL = "null"
    PAGE_FAULT = "page-fault"
    NX = "nx"
    USER_EXECUTE = "user-execute"
    USER_ACCESS = "user-access"
    READONLY = "readonly"
    PROTECTION = "protection"
    BUG = "bug"
    ATOMIC = "atomic"
    WARN = "warn"
    OPCODE = "opcode"
    DIVIDE = "divide"
    STACK_GUARD = "stack-guard"
    STACK_SMASHED = "stack-smashed"
    LIST = "list"
    REFCOUNT = "refcount"
    SLAB = "slab"
    SANITIZER = "sanitizer"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    RCU = "rcu"
    HUNG = "hung"
    OOM = "oom"
    OOM_PANIC = "oom-panic"
    INIT = "init"
    ROOT = "root"
    MACHINE_CHECK = "machine-check"
    NMI = "nmi"
    DIE = "die"
    PANIC = "panic"


FATAL = frozenset({Kind.NULL, Kind.PAGE_FAULT, Kind.NX, Kind.USER_EXECUTE, Kind.USER_ACCESS, Kind.READONLY,
                   Kind.PROTECTION, Kind.BUG, Kind.OPCODE, Kind.DIVIDE, Kind.STACK_GUARD, Kind.DIE})
"""Kinds that end the kernel or at least the task; the others need a panic to."""

# Every wording that opens an event, the more specific one first. `(?i:` only where kernels differ.
_HEADS: tuple[tuple[Kind, str], ...] = (
    (Kind.SYSRQ, r"sysrq: (?:SysRq : )?Trigger a crash|sysrq triggered crash"),
    (Kind.OOM_PANIC, r"Kernel panic - not syncing: (?:Out of memory|System is deadlocked on memory)"),
    (Kind.INIT, r"Kernel panic - not syncing: Attempted to kill init!"),
    (Kind.ROOT, r"VFS: Unable to mount root fs|Kernel panic - not syncing: (?:No working init found|"
                r"Requested init )|VFS: Cannot open root device"),
    (Kind.MACHINE_CHECK, r"Kernel panic - not syncing: (?:Fatal (?:local )?machine check|Machine check|"
                         r"Unknown machine check|Fatal [Hh]ardware [Ee]rror|"
                         r"Timeout: Not all CPUs entered broadcast|Uncorrected (?:hardware )?memory error)|"
                         r"\[Hardware Error\]: (?:CPU \d+: Machine Check|Machine check)|Disabling lock debugging due "
                         r"to hardware|mce: .*Uncorrected hardware memory error"),
    (Kind.STACK_SMASHED, r"stack-protector: Kernel stack is corrupted in|corrupted stack end detected"),
    (Kind.NMI, r"Uhhuh\. NMI received|NMI: (?:PCI system error|IOCK error)|Kernel panic - not syncing: NMI"),
    (Kind.HARD_LOCKUP, r"Watchdog detected hard LOCKUP|Kernel panic - not syncing: Hard LOCKUP"),
    (Kind.PANIC, r"Kernel panic - not syncing"),
    (Kind.NX, r"tried to execute NX-protected page|Unable to handle kernel execute from non-executable memory"),
    (Kind.USER_EXECUTE, r"unable to execute userspace code|Unable to handle kernel execution of user memory"),
    (Kind.USER_ACCESS, r"Unable to handle kernel access to user memory outside uaccess"),
    (Kind.READONLY, r"Unable to handle kernel write to read-only memory"),
    (Kind.NULL, r"BUG: kernel NULL pointer dereference|BUG: unable to handle kernel NULL pointer|"
                r"Unable to handle kernel NULL pointer dereference"),
    (Kind.PAGE_FAULT, r"BUG: unable to handle (?:kernel )?(?:page fault|paging request)|"
                      r"Unable to handle kernel (?:paging request|read from unreadable memory)"),
    (Kind.STACK_GUARD, r"BUG: (?:\w+ )?stack guard page was hit|kernel stack overflow \(|"
                       r"Insufficient stack space to handle exception|PANIC: double fault|(?:Oops: )?double fault: "),
    (Kind.SANITIZER, r"BUG: (?:KASAN|KFENCE|KMSAN): "),
    (Kind.SLAB, r"^BUG [\w.:-]+ \((?:Not tainted|Tainted)|SLUB: .*(?:double|Double) free|Object already free"),
    (Kind.LIST, r"list_(?:add|del)(?:_valid)? corruption|list_add double add: "),
    (Kind.REFCOUNT, r"refcount_t: "),
    (Kind.ATOMIC, r"BUG: scheduling while atomic: "),
    (Kind.BUG, r"kernel BUG at |Internal error: Oops - BUG"),
    # "traps: NAME[PID] general protection fault ip:" is a process's, not the kernel's.
    (Kind.PROTECTION, r"^(?:Oops: )?general protection fault[:,]"),
    (Kind.OPCODE, r"(?:^|Oops: )invalid opcode: |Oops - Undefined instruction"),
    (Kind.DIVIDE, r"(?:^|Oops: )divide error: "),
    (Kind.SOFT_LOCKUP, r"BUG: soft lockup"),
    (Kind.RCU, r"rcu: INFO: \w+ (?:self-)?detected (?:expedited )?stall|INFO: rcu_\w+ (?:self-)?detected stall"),
    (Kind.HUNG, r"INFO: task .* blocked (?:in I/O wait )?for more than"),
    (Kind.OOM, r" invoked oom-killer: "),
    (Kind.WARN, r"^WARNING: (?:CPU: \d+ PID: |.* at [\w.]+\+0x)"),
    (Kind.DIE, r"^Oops: |Internal error: |^[\w ]+: [0-9a-f]{4} \[#\d+\]"),
)
_COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in _HEADS)
_MAYBE = re.compile(r"BUG|WARNING|Oops|panic|sysrq|fault|rror|[Uu]nable|stall|LOCKUP|blocked|oom|corrupt|"
                    r"refcount_t|list_|NMI|[Hh]ardware|opcode|execut|VFS|\[#|stack|free")
"""One of these is in every opening; most lines have none, and are done with."""
_END = re.compile(r"---\[ end (?:trace|Kernel panic)")
_TRACE_BEGINS = re.compile(r"^\s*(?:Call [Tt]race:|RIP: 0010:|pc : |CPU: \d+ )")

_ADDRESS = re.compile(r"address:? (?:0x)?([0-9a-f]{8,16})\b")
_ACCESS = re.compile(r"#PF: (?:supervisor|user) (read access|write access|instruction fetch)")
_ERROR_CODE = re.compile(r"error_code\(0x([0-9a-f]+)\)")
_ESR = re.compile(r"^\s*ESR = 0x([0-9a-f]{8,16})\b")
_INSTRUCTION_ABORTS, _DATA_ABORTS = frozenset({0x20, 0x21}), frozenset({0x24, 0x25})
"""Exception classes of ESR_ELx, bits 31:26 (Arm ARM, D24.2.40)."""
_PLACE = r"([A-Za-z_][\w.$]*)\+0x([0-9a-f]+)(?:/0x[0-9a-f]+)?(?: \[([\w-]+)[^\]]*\])?"
_RIP = re.compile(rf"(?:RIP: (?:0010|e030):|pc : )(?:{_PLACE}|(0x[0-9a-f]+))")
_CPU = re.compile(r"(?:\bCPU: ?|CPU#|\bcpu )(\d+)")
_PID = re.compile(r"\bPID: (\d+) Comm: (.*?)(?: Kdump: loaded| Not tainted| Tainted: |$)")
_WORK = re.compile(r"^\s*Workqueue: (.+)$")
_TAINT = re.compile(r"Tainted: ([A-Z ]+?)\s+\d")
_BUG_AT = re.compile(r"(?:kernel BUG at|WARNING:.* at|WARNING:) ([\w./+-]+:\d+)\b")
_HUNG = re.compile(r"INFO: task (.*):(\d+) (?:is )?blocked (?:in I/O wait )?for more than (\d+)")
_STUCK = re.compile(r"CPU#(\d+) stuck for (\d+)s! \[(.*):(\d+)\]")
_REGISTER = re.compile(r"\b(R[A-Z0-9][A-Z0-9]?|CR[234]): ([0-9a-f]{16})\b")
_TRACE_LINE = re.compile(rf"^\s*(?:\? )?(?:\[<[0-9a-f]+>\] )?{_PLACE}\s*(?:\([A-Z]+\))?$")
_UNSURE = re.compile(r"^\s*\? ")


@dataclass(frozen=True)
class Place:
    """A place in code, as the log names it."""

    symbol: str
    offset: int
    module: str | None


@dataclass(frozen=True)
class Event:
    """Something that the kernel said went wrong, with the lines that belong to it."""

    kinds: frozenset[Kind]
    """All that its openings tell of."""
    text: str
    """The first opening line."""
    lines: tuple[str, ...]
    """Its lines, without their times, the opening line first."""
    position: int
    """Number of its first line within the log."""
    seconds: float | None
    """Seconds since boot; None where the log has no times."""
    inferred: str = ""
    """The log says nothing of it; it was inferred from the dump's `stack` or from the `fault`."""
    before: str = ""
    """The line before the opening one: a WARN's own words stand there."""

    @property
    def fatal(self) -> bool:
        """Whether it ends the task at least, without a panic being asked for."""
        return bool(self.kinds & FATAL)

    def _first(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((match for line in self.lines if (match := pattern.search(line))), None)

    @cached_property
    def address(self) -> int | None:
        """The address that could not be used."""
        match = self._first(_ADDRESS)
        return int(match[1], 16) if match else None

    @cached_property
    def access(self) -> str | None:
        """`read`, `write` or `execute`."""
        match = self._first(_ACCESS)
        if match:
            return "execute" if match[1] == "instruction fetch" else match[1].split()[0]
        code = self.error_code
        if code is not None:
            return "execute" if code & 0x10 else "write" if code & 2 else "read"
        kind = None if self.esr is None else self.esr >> 26 & 0x3F
        if kind in _DATA_ABORTS and self.esr is not None:   # bit 6: a write; 8: cache maintenance
            return "write" if self.esr & 0x140 == 0x40 else "read"
        return "execute" if kind in _INSTRUCTION_ABORTS else None

    @cached_property
    def error_code(self) -> int | None:
        """The processor's error code of a page fault (x86: bit 0 protection, 1 write, 2 user, 4 fetch)."""
        match = self._first(_ERROR_CODE)
        return int(match[1], 16) if match else None

    @property
    def no_page_there(self) -> bool | None:
        """Whether a fault came because no page was there, and not because its use was refused; None where unknown.

        x86: bit 0 of the error code. Arm: the status code of a data or instruction abort, 0b0001xx (a translation
        fault), or 0b1010xx, 0b101011 (levels -2 and -1).
        """
        if self.error_code is not None:
            return not self.error_code & 1
        if self.esr is not None and self.esr >> 26 & 0x3F in _INSTRUCTION_ABORTS | _DATA_ABORTS:
            status = self.esr & 0x3F
            return status & 0x3C == 0x04 or status in (0x2A, 0x2B)
        return None

    @cached_property
    def esr(self) -> int | None:
        """Arm's syndrome of the exception (ESR_EL1); None on other processors."""
        match = self._first(_ESR)
        return int(match[1], 16) if match else None

    @cached_property
    def place(self) -> Place | None:
        """Where the instruction pointer was; None when unknown or not in code."""
        match = self._first(_RIP)
        return Place(match[1], int(match[2], 16), match[3]) if match and match[1] else None

    @cached_property
    def nowhere(self) -> int | None:
        """The instruction pointer when it was not in code."""
        match = self._first(_RIP)
        return int(match[4], 16) if match and match[4] else None

    @cached_property
    def cpu(self) -> int | None:
        """CPU that it happened on."""
        match = self._first(_CPU)
        return int(match[1]) if match else None

    @cached_property
    def task(self) -> tuple[int, str] | None:
        """(pid, comm) of the task that it happened in, or that it tells of."""
        match = self._first(_HUNG)
        if match:
            return int(match[2]), match[1]
        match = self._first(_STUCK)
        if match:
            return int(match[4]), match[3]
        match = self._first(_PID)
        return (int(match[1]), match[2].strip()) if match else None

    @cached_property
    def work(self) -> str | None:
        """Work queue and work function, as `flaky flaky_poll_work [flaky]`."""
        match = self._first(_WORK)
        return match[1].strip() if match else None

    @cached_property
    def taint(self) -> str:
        """The letters of the taint, without blanks."""
        match = self._first(_TAINT)
        return match[1].replace(" ", "") if match else ""

    @cached_property
    def bug_at(self) -> str | None:
        """file:line of a BUG or WARNING."""
        match = self._first(_BUG_AT)
        return match[1] if match else None

    @cached_property
    def seconds_stuck(self) -> int | None:
        """Seconds for which a task hung or a CPU was stuck."""
        match = self._first(_HUNG)
        if match:
            return int(match[3])
        match = self._first(_STUCK)
        return int(match[2]) if match else None

    @cached_property
    def registers(self) -> dict[str, int]:
        """Registers as the log shows them, with drgn's names, and cr2."""
        found: dict[str, int] = {}
        for line in self.lines:
            if "RIP: 0033" in line:             # the registers of user space follow
                break
            for name, digits in _REGISTER.findall(line):
                found.setdefault(name.lower(), int(digits, 16))
        return found

    @cached_property
    def trace(self) -> tuple[Place, ...]:
        """The call trace, innermost first, without the frames that the kernel itself doubts (`?`)."""
        found: list[Place] = []
        begun = False
        for line in self.lines:
            if "Call trace:" in line or "Call Trace:" in line:
                if begun and found:
                    break
                begun = True
            elif begun and not _UNSURE.match(line):
                match = _TRACE_LINE.match(line)
                if match:
                    found.append(Place(match[1], int(match[2], 16), match[3]))
                elif found and not line.lstrip().startswith(("<", "RIP:", "RSP:", "Code:", "R", "?")):
                    break
        return tuple(found)


def read_events(lines: Iterable[str], seconds: Iterable[float | None] = ()) -> tuple[Event, ...]:
    """Return the events of a log, in order. Never raises, whatever the text.

    Args:
        lines: the log's lines, without their times.
        seconds: seconds since boot, by line; may be shorter than `lines`.
    """
    times = iter(seconds)
    return tuple(_events(list(lines), list(times)))


def _events(lines: Sequence[str], seconds: Sequence[float | None]) -> Iterator[Event]:
    kinds: set[Kind] = set()
    begin, traced = 0, False

    def event(end: int) -> Event:
        return Event(frozenset(kinds), lines[begin].strip(), tuple(lines[begin:end]), begin,
                     seconds[begin] if begin < len(seconds) else None, before=lines[begin - 1].strip() if begin else "")

    for number, line in enumerate(lines):
        kind = kind_of(line)
        if kind and (not kinds or traced or (kind == Kind.PANIC and Kind.SYSRQ not in kinds)
                     or number - begin > MOST_EVENT_LINES):
            if kinds:
                yield event(number)
            kinds, begin, traced = {kind}, number, False
        elif kind:
            kinds.add(kind)
        elif kinds and (_END.search(line) or number - begin > MOST_EVENT_LINES):
            yield event(number + 1)
            kinds, traced = set(), False
        if kinds and _TRACE_BEGINS.match(line):
            traced = True
    if kinds:
        yield event(len(lines))


def kind_of(line: str) -> Kind | None:
    """Return what a line opens; None for a line that opens nothing."""
    if not _MAYBE.search(line):
        return None
    return next((kind for kind, pattern in _COMPILED if pattern.search(line)), None)
