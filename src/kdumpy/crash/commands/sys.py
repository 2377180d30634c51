"""`sys`: the machine and its panic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import drgn

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.machine import memory_present, memory_size, processor_speed
from kdumpy.crash.panicline import fatal_line
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError, NotInDump
from kdumpy.kernel.system import TAINTS

_MOST_SYSCALLS = 1024


@dataclass(frozen=True)
class Fact:
    """One line of the answer."""

    name: str
    value: str


class Sys(Command[Fact]):
    """Show the machine that crashed, and why.

    Without an option: the dump, CPUs, times, load, names, memory, and the line of the log that says why.

    Example:
        crash> sys -t
        TAINTED_MASK: 3000  OE
               O: externally-built (out-of-tree) module was loaded
               E: unsigned module was loaded
    """

    names = ("sys",)
    example = "sys -t"
    row = Fact
    args = (
        Arg("what", nargs="*", choices=[[], "config"], metavar="config",
            help="'config': the kernel's build configuration, where the kernel holds it"),
        Arg("-t", dest="taint", action="store_true", help="the taint flags in words"),
        Arg("-c", dest="syscalls", nargs="?", const="", metavar="NAME|NUMBER",
            help="the table of system calls, or those with this text in their name, or one by number"),
        Arg("-panic", dest="live", action="store_true", help="crash a live system: not from here"),
        Arg("-i", dest="dmi", action="store_true", help="what the firmware says of the machine (DMI)"),
    )

    def for_engine(self, words: Sequence[str]) -> bool:
        """Hand `sys config` to drgn."""
        return "config" in words

    def rows(self, session: Session, options: Options) -> Iterator[Fact]:
        """Yield the facts."""
        if options.taint:
            return _taints(session)
        if options.live:
            raise NotInDump("a dump cannot be made to panic again",
                            mend="'kdumpy test' crashes this host, after asking")
        if options.syscalls is not None:
            return _system_calls(session, options.syscalls)
        if options.dmi:
            return _firmware(session)
        return facts(session)

    def render(self, rows: Iterable[Fact], session: Session, options: Options) -> Iterator[str]:
        """Yield `NAME: value`, the names flush right as in crash."""
        if options.syscalls is not None:
            yield "NUM  SYSTEM CALL                FILE AND LINE NUMBER"
            for fact in rows:
                yield f"{int(fact.name):{'3x' if session.radix == 16 else 3}}  {fact.value}"
            return
        found = list(rows)
        width = 12 if not options.dmi else max((len(fact.name) for fact in found), default=0)
        for fact in found:
            yield f"{fact.name:>{width}}: {fact.value}"


def facts(session: Session) -> Iterator[Fact]:
    """Yield what `sys` shows; what the dump does not tell is left out."""
    kernel = session.kernel
    system = kernel.system
    level = kernel.dump.dump_level
    yield Fact("KERNEL", ", ".join(kernel.debuginfo.dwarf[:1]) or f"{system.release}, from the dump itself")
    yield Fact("DUMPFILE", f"{kernel.path}{'  [PARTIAL DUMP]' if level else ''}")
    if system.cpus is not None:
        yield Fact("CPUS", str(system.cpus))
    if system.panic_time is not None:
        yield Fact("DATE", time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(system.panic_time)))
    if system.uptime_s is not None:
        days, rest = divmod(int(system.uptime_s), 86400)
        clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
        yield Fact("UPTIME", f"{days} days, {clock}" if days else clock)
    if system.load:
        yield Fact("LOAD AVERAGE", ", ".join(f"{value:.2f}" for value in system.load))
    tasks = sum(1 for _ in kernel.tasks()) + (system.cpus or 0)
    if "tasks" not in kernel.problems:
        yield Fact("TASKS", str(tasks))
    if system.hostname is not None:
        yield Fact("NODENAME", system.hostname)
    yield Fact("RELEASE", system.release)
    if system.version:
        yield Fact("VERSION", system.version)
    speed = _told(lambda: processor_speed(session))
    yield Fact("MACHINE", f"{system.machine}  ({speed})" if speed else system.machine)
    memory = _told(lambda: memory_size(memory_present(session)))
    if memory:
        yield Fact("MEMORY", memory)
    try:
        line = fatal_line((record.ts_ns / 1e9, record.text) for record in kernel.log)
    except KdumpyError:
        line = ""
    if line:
        yield Fact("PANIC", f'"{line}"')


def _told(read: Callable[[], str]) -> str:
    try:
        return read()
    except READ_ERRORS:
        return ""


def _taints(session: Session) -> Iterator[Fact]:
    mask = session.kernel.system.taint
    if mask is None:
        mask = session.prog["tainted_mask"].value_()
    letters = "".join(letter for bit, (letter, _) in TAINTS.items() if mask >> bit & 1)
    yield Fact("TAINTED_MASK", f"{mask:x}  {letters}".rstrip())
    for bit, (letter, words) in TAINTS.items():
        if mask >> bit & 1:
            yield Fact(letter, words)


def _system_calls(session: Session, wanted: str) -> Iterator[Fact]:
    one = int(wanted, 0) if wanted[:1].isdecimal() else None
    table = session.prog.symbol("sys_call_table").address
    for number in range(_MOST_SYSCALLS):
        symbol = session.symbol(session.prog.read_u64(table + 8 * number))
        if symbol is None or "sys_" not in symbol.name:
            return
        if number == one or (one is None and wanted in symbol.name):
            yield Fact(str(number), symbol.name)


def _firmware(session: Session) -> Iterator[Fact]:
    table = session.prog.symbol("dmi_ident").address
    # Source: include/linux/mod_devicetable.h, enum dmi_field.
    names = {value: name for name, value in session.prog.type("enum dmi_field").enumerators or ()}
    end = next(value for value, name in names.items() if name == "DMI_STRING_MAX")
    for value, name in sorted(names.items()):
        if 0 < value < end:
            at = session.prog.read_u64(table + 8 * value)
            if at:
                yield Fact(name, session.prog.read_c_string(at, max_size=256).decode("utf-8", "backslashreplace"))


def context_facts(session: Session, task: drgn.Object) -> Iterator[Fact]:
    """Yield what crash shows of the context: below the banner, and for `set`."""
    from drgn.helpers.linux.sched import get_task_state, task_cpu

    address = task.value_()
    panicked = session.kernel.panic
    yield Fact("PID", str(task.pid.value_()))
    yield Fact("COMMAND", f'"{task.comm.string_().decode("utf-8", "backslashreplace")}"')
    thread_info = address
    try:
        if not task.type_.type.has_member("thread_info"):
            thread_info = task.stack.value_()
    except (AttributeError, drgn.FaultError):
        pass
    yield Fact("TASK", f"{address:x}{_which(session, task)}  [THREAD_INFO: {thread_info:x}]")
    yield Fact("CPU", str(task_cpu(task)))
    state = get_task_state(task)
    mark = ""
    if panicked and panicked.task and panicked.task.address == address:
        mark = " (PANIC)"
    elif address in session.active():
        mark = " (ACTIVE)"
    yield Fact("STATE", f"{_STATES.get(state[:1], state)}{mark}")


_STATES = {"R": "TASK_RUNNING", "S": "TASK_INTERRUPTIBLE", "D": "TASK_UNINTERRUPTIBLE", "T": "TASK_STOPPED",
           "t": "TASK_TRACED", "X": "TASK_DEAD", "Z": "TASK_ZOMBIE", "P": "TASK_PARKED", "I": "TASK_IDLE"}
"""crash's words for a state (task.c, task_state_string())."""


def _which(session: Session, task: drgn.Object) -> str:
    """Return which of several tasks of one process id this is: the idle ones have 0, one for each CPU."""
    from drgn.helpers.linux.sched import idle_task

    from kdumpy.kernel.online import online_cpus

    if task.pid.value_():
        return ""
    same = sorted(idle_task(session.prog, cpu).value_() for cpu in online_cpus(session.prog))
    address = task.value_()
    return f"  ({same.index(address) + 1} of {len(same)})" if len(same) > 1 and address in same else ""


COMMAND = Sys()
