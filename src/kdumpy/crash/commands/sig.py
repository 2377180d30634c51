"""`sig`: how tasks handle signals, and which wait for them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import drgn
from drgn.helpers.linux.pid import for_each_task_in_group
from drgn.helpers.linux.signal import decode_sigaction_flags_value, sigpending_for_each

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.crash.taskviews import TaskName, line, named
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import UsageError

# Source: include/uapi/asm-generic/signal.h; the same numbers on x86 and arm64.
_NAMES = ("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT/IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
          "TERM", "STKFLT", "CHLD/CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM",
          "PROF", "WINCH", "IO/POLL", "PWR", "SYS/UNUSED")
_FIRST_REAL_TIME, _LAST = 32, 64
_HANDLERS = {0: "SIG_DFL", 1: "SIG_IGN"}
_MOST_QUEUED = 100_000


@dataclass(frozen=True)
class SignalName:
    """A signal."""

    number: int
    name: str


@dataclass(frozen=True)
class Handling:
    """What a task does with a signal."""

    number: int
    action: int
    """Address of its struct sigaction."""
    handler: int
    """0 SIG_DFL, 1 SIG_IGN, or the address of a function of user space."""
    mask: int
    """Signals that are blocked meanwhile: bit 0 is signal 1."""
    flags: int
    flag_names: str


@dataclass(frozen=True)
class Queued:
    """A signal that waits."""

    number: int
    queue: int
    """Address of its struct sigqueue."""


@dataclass(frozen=True)
class Pending:
    """What waits for a task, or for its group."""

    signal: int
    queued: tuple[Queued, ...]


@dataclass(frozen=True)
class ThreadSignals:
    """A thread's own signals."""

    thread: TaskName
    blocked: int
    private: Pending


@dataclass(frozen=True)
class SignalsRow:
    """A task and its signals."""

    pid: int
    task: int
    cpu: int
    command: str
    signal_struct: int
    threads: int
    handling: tuple[Handling, ...]
    blocked: int
    private: Pending
    shared: Pending
    group: tuple[ThreadSignals, ...]
    """With -g: each thread's."""
    problem: str
    """Why not all could be read; empty when all is there."""


class Sig(Command[Any]):
    """Show how a task handles signals, and which wait for it: of the context, if no other is named.

    Example:
        crash> sig -s fffc000a000a0000
        SIGCONT SIGTSTP SIGRTMIN+2 SIGRTMIN+4 SIGRTMAX-13 SIGRTMAX-12 SIGRTMAX-11
        ...
    """

    names = ("sig",)
    example = "sig 1"
    row = SignalsRow
    args = (
        Arg("tasks", nargs="*", metavar="PID|TASK", help="process ids, or addresses of task_structs"),
        Arg("-l", dest="list", action="store_true", help="the signals by number"),
        Arg("-s", dest="set", metavar="SIGSET", help="the signals of a set (hexadecimal)"),
        Arg("-g", dest="group", action="store_true", help="of the whole thread group"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield the signals of each task, or names."""
        if options.list:
            yield from (SignalName(number, name_of(number)) for number in range(1, _LAST + 1))
            return
        if options.set:
            try:
                value = int(options.set, 16)
            except ValueError:
                raise UsageError(f"{options.set!r} is no hexadecimal set of signals", where="sig") from None
            yield from (SignalName(number, name_of(number)) for number in _members(value))
            return
        for task in session.tasks_of(options.tasks):
            yield _row(session, task.group_leader.read_() if options.group else task, group=options.group)

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay the signals out as crash does."""
        if options.list:
            yield from (f"{f'[{row.number}]':>4} {row.name}" for row in rows)
            return
        if options.set:
            yield from textwrap.wrap(" ".join(row.name.split("/")[0] for row in rows), 79) or ["(none)"]
            return
        for number, row in enumerate(rows):
            if number:
                yield ""
            yield from _lines(row)


def name_of(number: int) -> str:
    """Return a signal's name: SIGHUP, SIGRTMIN+3."""
    if number <= len(_NAMES):
        return "/".join(f"SIG{name}" for name in _NAMES[number - 1].split("/"))
    middle = _FIRST_REAL_TIME + (_LAST - _FIRST_REAL_TIME) // 2
    if number < middle + 1:
        return f"SIGRTMIN+{number - _FIRST_REAL_TIME}".removesuffix("+0")
    return f"SIGRTMAX-{_LAST - number}".removesuffix("-0")


def _members(value: int) -> Iterator[int]:
    return (number for number in range(1, _LAST + 1) if value >> number - 1 & 1)


def _set(value: drgn.Object) -> int:
    words = value.sig
    found = sum(int(words[number]) << 64 * number for number in range(len(words)))
    return int(found & (1 << _LAST) - 1)


def _row(session: Session, task: drgn.Object, *, group: bool) -> SignalsRow:
    name = named(task)
    signals = task.signal.read_()
    handling: list[Handling] = []
    threads: list[ThreadSignals] = []
    private = shared = Pending(0, ())
    blocked, problem = 0, ""
    try:
        blocked, private, shared = _set(task.blocked), _pending(task.pending), _pending(signals.shared_pending)
        for number, entry in enumerate(task.sighand.action, 1):
            action, flags = entry.sa, entry.sa.sa_flags.value_()
            handling.append(Handling(number, action.address_ or 0, action.sa_handler.value_(), _set(action.sa_mask),
                                     flags, decode_sigaction_flags_value(session.prog, flags) if flags else ""))
        if group:
            threads += (ThreadSignals(named(thread), _set(thread.blocked), _pending(thread.pending))
                        for thread in for_each_task_in_group(task, include_self=True))
    except READ_ERRORS as error:
        problem = f"not all can be read: {error}"
    return SignalsRow(name.pid, name.task, name.cpu, name.command, signals.value_(), signals.nr_threads.value_(),
                      tuple(handling), blocked, private, shared, tuple(threads), problem)


def _pending(pending: drgn.Object) -> Pending:
    queued = []
    for entry in sigpending_for_each(pending):
        queued.append(Queued(entry.info.si_signo.value_(), entry.value_()))
        if len(queued) >= _MOST_QUEUED:
            break
    return Pending(_set(pending.signal), tuple(queued))


def _lines(row: SignalsRow) -> Iterator[str]:
    yield line(row)
    yield f"SIGNAL_STRUCT: {row.signal_struct:x}  NR_THREADS: {row.threads}"
    yield " SIG    SIGACTION        HANDLER       MASK       FLAGS"
    for one in row.handling:
        handler = _HANDLERS.get(one.handler, f"{one.handler:x}")
        flags = f"{one.flags:x} ({one.flag_names})" if one.flags else "0"
        yield f"{f'[{one.number}]':>4} {one.action:016x} {handler:>10} {one.mask:016x} {flags}"
    if row.problem:
        yield f"({row.problem})"
    waits = [one for pending in (row.private, row.shared) for one in (pending.signal & ~row.blocked,) if one]
    yield f"SIGPENDING: {'yes' if waits else 'no'}"
    if not row.group:
        yield f"   BLOCKED: {row.blocked:016x}"
        yield "PRIVATE_PENDING"
        yield from _queue(row.private)
    yield "SHARED_PENDING"
    yield from _queue(row.shared)
    for thread in row.group:
        yield ""
        yield f"  {line(thread.thread)}"
        yield f"     BLOCKED: {thread.blocked:016x}"
        yield "  PRIVATE_PENDING"
        yield from (f"  {text}" for text in _queue(thread.private))


def _queue(pending: Pending) -> Iterator[str]:
    yield f"    SIGNAL: {pending.signal:016x}"
    if not pending.queued:
        yield "  SIGQUEUE: (empty)"
        return
    yield "  SIGQUEUE:  SIG  SIGINFO"
    yield from (f"             {one.number:>3}  {one.queue:x}  {name_of(one.number)}" for one in pending.queued)


COMMAND = Sig()
