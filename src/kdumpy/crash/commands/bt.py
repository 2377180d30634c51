"""`bt`: stack traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.sched import cpu_curr, idle_task

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.exceptionframes import ExceptionFrame, cpu_stacks, exception_frames
from kdumpy.crash.session import Session
from kdumpy.crash.stack import REGISTER_SAVERS, RawStack, StackFrame, frames_of, register_lines
from kdumpy.crash.stackdata import StackWord, frame_words, lines
from kdumpy.crash.stacktext import StackText, in_order, stack_text
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError, NotInDump, UsageError
from kdumpy.kernel.taskreader import task_value

_STACKS = {"EXCEPTION": "exception"} | {name: f"{name} exception" for name in ("NMI", "DF", "DB", "MCE", "VC")}
"""What crash calls them."""


@dataclass(frozen=True)
class Backtrace:
    """The stack of one task."""

    pid: int
    task: int
    """Address of its task_struct."""
    cpu: int
    command: str
    frames: tuple[StackFrame, ...]
    """Innermost first."""
    problem: str
    """Why the stack is not whole; empty when it is."""
    data: tuple[tuple[StackWord, ...], ...] = ()
    """The words of each frame, with -f and -F."""
    found: tuple[ExceptionFrame, ...] = ()
    """Registers found on the stack, with -e and -E."""
    stack: str = ""
    """The CPU's stack that -E searched: IRQ, NMI, DF, DB, MCE; empty for the task's."""
    text: tuple[StackText, ...] = ()
    """The words that point into code, with -t, -T and -o."""


class Bt(Command[Backtrace]):
    """Show the stack of a task: the one that panicked, if no other is named.

    A frame that an exception interrupted is shown with its registers. Unwound by the kernel's own tables,
    so every frame is a real one. With DWARF at hand, inlined calls stand as frames of their own.

    Example:
        crash> bt
        PID: 29       TASK: ff29ecb51903c180  CPU: 0    COMMAND: "kworker/u4:1"
            [exception RIP: flaky_poll_channel+15]
            RIP: ffffffffc055902f  RSP: ff5d6f31400ffe60  RFLAGS: 00010246
            ...
         #0 [ff5d6f31400ffe60] flaky_poll_channel at ffffffffc055902f [flaky]
         #1 [ff5d6f31400ffe60] flaky_poll_work at ffffffffc05594c2 [flaky]
         #2 [ff5d6f31400ffe90] process_one_work at ffffffffa9ab8437
    """

    names = ("bt",)
    example = "bt"
    row = Backtrace
    args = (
        Arg("tasks", nargs="*", metavar="PID|TASK", help="process ids, or addresses of task_structs"),
        Arg("-a", dest="active", action="store_true", help="the running task of every CPU"),
        Arg("-A", dest="active", action="store_true", help="the same"),
        Arg("-c", dest="cpus", metavar="CPUS", help="the running task of these CPUs: 1, 0,3-5, a"),
        Arg("-p", dest="panic", action="store_true", help="the task that panicked"),
        Arg("-n", dest="without", choices=["idle"], help="'-n idle': leave idle CPUs out"),
        Arg("-g", dest="group", action="store_true", help="all threads of the task's group"),
        Arg("-l", dest="lines", action="store_true", help="file and line of each frame, where DWARF is at hand"),
        Arg("-s", dest="offsets", action="store_true", help="symbols with their offset"),
        Arg("-x", dest="radix", action="store_const", const=16, help="offsets in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="offsets in decimal"),
        Arg("-r", dest="raw", action="store_true", help="the raw words of the stack"),
        Arg("-t", dest="text", action="store_true", help="every return address on the stack from its pointer up"),
        Arg("-T", dest="all_text", action="store_true", help="every return address on the whole stack"),
        Arg("-e", dest="exceptions", action="store_true", help="saved registers found anywhere on the stack"),
        Arg("-E", dest="cpu_stacks", action="store_true",
            help="saved registers found on the CPUs' interrupt and exception stacks; with -c of some CPUs"),
        Arg("-o", dest="stale", action="store_true",
            help="by the words that look like return addresses, stale ones too, as crash's old method does"),
        Arg("-O", dest="toggle", action="store_true", help="make -o the way of this session, or no more"),
        Arg("-I", dest="start_ip", metavar="ADDRESS", help="begin at this instruction"),
        Arg("-S", dest="start_sp", metavar="ADDRESS", help="begin with this stack pointer"),
        Arg("-R", dest="reference", metavar="SYMBOL|ADDRESS", help="only stacks in which this function stands"),
        Arg("-v", dest="overflow", action="store_true", help="check every task for a stack that has overflowed"),
        Arg("-f", dest="data", action="store_true", help="the data of each frame"),
        Arg("-F", dest="symbolic", action="count", default=0,
            help="the same with symbols and slab caches; -FF: with addresses too, and which task or file it is"),
        Arg("-V", engine=True, help="local variables, with DWARF (drgn)"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Backtrace]:
        """Yield a backtrace a task."""
        if session.kernel.debuginfo.types is None and not session.kernel.debuginfo.dwarf:
            yield panic_alone(session)
            return
        if options.toggle:
            session.stale_traces = not session.stale_traces
            return
        if options.cpu_stacks:
            yield from _on_cpu_stacks(session, options)
            return
        unchecked: list[int] = []
        for task in self._tasks(session, options):
            idle = task.pid.value_() == 0
            if options.without and idle:
                continue
            trace = _started(session, task, options) if options.start_ip or options.start_sp else \
                backtrace(session, task)
            if options.overflow and not _overflowed(session, task, unchecked):
                continue
            if options.exceptions:
                stack = RawStack(session, task)
                trace = dataclasses.replace(trace, found=tuple(exception_frames(session, stack.base, stack.size)))
            if options.data or options.symbolic:
                trace = dataclasses.replace(trace, data=tuple(
                    frame_words(session, trace.frames, number, symbolic=bool(options.symbolic))
                    for number in range(len(trace.frames))))
            if options.text or options.all_text or options.stale or session.stale_traces:
                trace = dataclasses.replace(trace, text=stack_text(
                    session, task, trace.cpu, trace.frames, whole=options.all_text,
                    returns=not options.text and not options.all_text))
            if options.reference and not _refers(session, trace, options.reference):
                continue
            yield trace
        if unchecked:
            raise NotInDump(f"{len(unchecked)} stack{'s' if len(unchecked) > 1 else ''} could not be checked",
                            why="no memory is there", where="task " + ", ".join(f"{at:x}" for at in unchecked[:4]))
        if options.lines and all(isinstance(task, str) for task in options.tasks):      # `foreach` says it once
            session.check_lines()

    def _tasks(self, session: Session, options: Options) -> Iterable[drgn.Object]:
        prog = session.prog
        if options.overflow:
            from kdumpy.kernel.tasks import task_objects

            return task_objects(prog)
        if options.active:
            return list(session.tasks_running())
        if options.cpus:
            return [cpu_curr(prog, cpu) for cpu in session.cpus(options.cpus)]
        if options.panic:
            return [prog.crashed_thread().object]
        tasks = session.tasks_of(options.tasks)
        if options.tasks == ["0"]:                    # every CPU has its own task 0
            tasks = [idle_task(prog, cpu) for cpu in session.cpus("a")]
        if options.group:
            from drgn.helpers.linux.pid import for_each_task_in_group

            return [thread for task in tasks for thread in for_each_task_in_group(task, include_self=True)]
        return tasks

    def render(self, rows: Iterable[Backtrace], session: Session, options: Options) -> Iterator[str]:
        """Lay the traces out as crash does."""
        if options.toggle:
            list(rows)
            yield f"bt: use {'old' if session.stale_traces else 'new'} bt method by default"
            return
        number = -1
        for number, trace in enumerate(rows):
            if number:
                yield ""
            if trace.stack:
                kind = "" if trace.stack in ("IRQ", "OVERFLOW") else " EXCEPTION"
                yield f"CPU {trace.cpu} {trace.stack}{kind} STACK:"
                yield from _found(session, trace)
                continue
            yield header(trace.pid, trace.task, trace.cpu, trace.command)
            if options.exceptions:
                yield from _found(session, trace)
            elif options.raw:
                yield from _raw(session, trace)
            elif trace.text:
                yield from _text(session, trace, options)
            else:
                yield from _frames(session, trace, options)
                if trace.problem:
                    yield f"    ({trace.problem})"
        if options.overflow and number < 0:
            yield "No stack overflows detected"


def _overflowed(session: Session, task: drgn.Object, unchecked: list[int]) -> bool:
    try:
        return RawStack(session, task).overflowed()
    except READ_ERRORS:
        unchecked.append(task.value_())
        return False


def header(pid: int, task: int, cpu: int, command: str) -> str:
    """Return the line that stands above what a command says of a task; a pid below 0 is one that cannot be read."""
    if pid < 0:
        return f'PID: {"?":<8} TASK: {"?"}  CPU: {cpu:<4} COMMAND: "{command}"'
    return f'PID: {pid:<8} TASK: {task:x}  CPU: {cpu:<4} COMMAND: "{command}"'


def backtrace(session: Session, task: drgn.Object) -> Backtrace:
    """Read the stack of a task; where it cannot be unwound, the reason stands in `problem`."""
    frames: tuple[StackFrame, ...] = ()
    try:
        frames, problem = frames_of(session, task)
    except (ValueError, LookupError, drgn.FaultError, KdumpyError) as error:
        problem = f"the stack cannot be unwound: {error}"
    of = task_value(task)
    return Backtrace(of.pid, of.address, of.cpu, of.comm, frames, problem)


def panic_alone(session: Session) -> Backtrace:
    """Return the panic's stack of a dump that has lost its types, so that no task can be read.

    Raises:
        NotInDump: there is none.
    """
    panic = session.kernel.panic
    if panic is None or not panic.stack.frames:
        raise NotInDump("no stack can be read", why=session.kernel.problems.get("panic", ""))
    frames = tuple(StackFrame(frame.pc, 0, frame.symbol, frame.offset, frame.module, frame.source, frame.inline, "TASK",
                              dict(panic.registers) if frame is panic.stack.frames[0] else {})
                   for frame in panic.stack.frames)
    return Backtrace(-1, 0, panic.cpu, "?", frames, panic.stack.problem)


def _started(session: Session, task: drgn.Object, options: Options) -> Backtrace:
    """Unwind a task's stack from an instruction or a stack pointer that the user gives.

    Raises:
        UsageError: the stack pointer lies on no stack of the task, or no return address stands at or above it.
    """
    stack = RawStack(session, task)
    whole = backtrace(session, task)
    sp = session.address(options.start_sp) if options.start_sp else whole.frames[0].sp if whole.frames else stack.base
    if not stack.base <= sp < stack.base + stack.size:
        raise UsageError(f"{sp:016x} does not lie on the stack of this task",
                         why=f"that is {stack.base:016x} to {stack.base + stack.size:016x}")
    if options.start_ip:
        ip = session.address(options.start_ip)
        if not options.start_sp:        # an instruction of the trace itself has its own stack pointer
            sp = next((frame.sp for frame in whole.frames if frame.pc == ip and not frame.inline), sp)
    else:
        found = next(stack.text_words(sp), None)
        if found is None:
            raise UsageError(f"no return address stands at or above {sp:016x}")
        sp, ip = found[0] + 8, found[1]
    registers = dict(whole.frames[0].registers) if whole.frames else {}
    registers |= {"rip": ip, "rsp": sp}
    frames = []
    values = session.kernel.stacks.frames(session.kernel.stacks.from_registers(registers))
    walked = session.kernel.stacks.walk(session.kernel.stacks.from_registers(registers))
    for number, (frame, value) in enumerate(zip(walked, values.frames, strict=False)):
        try:
            at = int(frame.sp)
        except LookupError:
            at = 0
        frames.append(StackFrame(value.pc, at, value.symbol, value.offset, value.module, value.source, value.inline,
                                 "TASK", {}, at if not number else max(at - 8, 0)))
    return dataclasses.replace(whole, frames=tuple(frames), problem=values.problem)


def _on_cpu_stacks(session: Session, options: Options) -> Iterator[Backtrace]:
    """Yield what is found on the stacks of the CPUs."""
    cpus = session.cpus(options.cpus) if options.cpus else session.cpus("a")
    for stack in cpu_stacks(session, cpus):
        task = cpu_curr(session.prog, stack.cpu)
        yield Backtrace(task.pid.value_(), task.value_(), stack.cpu,
                        task.comm.string_().decode("utf-8", "backslashreplace"), (), "",
                        found=tuple(exception_frames(session, stack.base, stack.size)), stack=stack.name)


def _found(session: Session, trace: Backtrace) -> Iterator[str]:
    if not trace.found:
        yield "(none found)"
    for frame in trace.found:
        yield ""
        yield f"  {'USER' if frame.user else 'KERNEL'}-MODE EXCEPTION FRAME AT: {frame.address:016x}"
        if not frame.user:
            yield f"    [exception RIP: {session.place(_pc(frame)) or 'unknown or invalid address'}]"
        yield from register_lines(session.prog, frame.registers)


def _pc(frame: ExceptionFrame) -> int:
    return frame.registers["rip"] if "rip" in frame.registers else frame.registers["pc"]


def _text(session: Session, trace: Backtrace, options: Options) -> Iterator[str]:
    """Lay out the words that point into code: as words with -t and -T, else as frames of crash's old method."""
    radix, number = options.radix or session.radix, 0
    as_frames = not options.text and not options.all_text
    first = None if options.all_text else next((frame for frame in trace.frames if not frame.inline), None)
    if first is not None:
        if _was_hit(trace, first):
            yield from _registers(session, first, radix)
        if first.stack == "USER":
            return
        if as_frames:
            yield _line(session, first, number, options.offsets, radix)
            number += 1
        else:
            yield f"{'START: ':>21}{_named(session, first, options.offsets, radix)} at {first.pc:x}"
    for place, text in enumerate(trace.text):
        if place:
            yield _mark(trace.text[place - 1].stack)
        for word in in_order(text, trace.frames):
            if isinstance(word, StackFrame):
                if word is not first and _was_hit(trace, word):
                    yield from _registers(session, word, radix)
            elif as_frames:
                frame = StackFrame(word.value, word.address + 8, word.symbol, None, word.module, None, False,
                                   text.stack, slot=word.address)
                yield _line(session, frame, number, options.offsets, radix)
                number += 1
            else:
                name = session.place(word.value, radix=radix) if options.offsets else word.symbol
                module = f" [{word.module}]" if word.module else ""
                yield f"  [{word.address:016x}] {name} at {word.value:x}{module}"
        yield from _missing(text.missing)


def _missing(parts: Iterable[tuple[int, int]]) -> Iterator[str]:
    for address, size in parts:
        yield f"    ({size} bytes at {address:016x} are not in the dump)"


def _was_hit(trace: Backtrace, frame: StackFrame) -> bool:
    """Whether an exception interrupted a frame: its registers are those of that moment."""
    return bool(frame.registers) and not (frame is trace.frames[0] and frame.function in REGISTER_SAVERS)


def _registers(session: Session, frame: StackFrame, radix: int) -> Iterator[str]:
    if frame.stack != "USER":
        place = session.place(frame.pc, radix=radix) or frame.function or "unknown or invalid address"
        yield f"    [exception RIP: {place}]"
    yield from register_lines(session.prog, frame.registers)


def _mark(stack: str) -> str:
    """Return the line that stands where a trace leaves a stack."""
    return f"--- <{_STACKS.get(stack, stack)} stack> ---"


def _frames(session: Session, trace: Backtrace, options: Options) -> Iterator[str]:
    radix = options.radix or session.radix
    kind, number = "", 0
    for at, frame in enumerate(trace.frames):
        leaves = bool(kind) and frame.stack != kind and kind not in ("TASK", "USER", "UNKNOWN")
        mark = _mark(kind)
        if leaves and kind not in _STACKS:
            yield mark
        if _was_hit(trace, frame):
            yield from _registers(session, frame, radix)
        if leaves and kind in _STACKS:
            yield mark              # the registers lie on the exception's stack, and are shown with it
        kind = frame.stack
        if frame.stack == "USER":
            continue
        yield _line(session, frame, number, options.offsets, radix)
        number += 1
        if options.lines and frame.source:
            yield f"    {frame.source.replace(':', ': ')}"
        if trace.data:
            yield from lines(trace.data[at], min(options.symbolic, 2))


def _line(session: Session, frame: StackFrame, number: int, offsets: bool, radix: int) -> str:
    name = _named(session, frame, offsets, radix)
    module = f" [{frame.module}]" if frame.module else ""
    index = f"#{number}"
    if frame.inline:
        return f"{index:>3} {'(inline)':18} {name}{module}"
    return f"{index:>3} [{frame.slot:016x}] {name} at {frame.pc:x}{module}"


def _named(session: Session, frame: StackFrame, offsets: bool, radix: int) -> str:
    return (offsets and not frame.inline and session.place(frame.pc, radix=radix)) or frame.function or "(unknown)"


def _raw(session: Session, trace: Backtrace) -> Iterator[str]:
    stack = RawStack(session, session.kernel.task_object(trace.task))
    for address, first, second in stack.pairs():
        words = (session.place(word, radix=10) or f"{word:016x}" for word in (first, second))
        yield f"{address:016x}:  {' '.join(f'{word:<16}' for word in words)}".rstrip()
    yield from _missing(stack.missing)


def _refers(session: Session, trace: Backtrace, reference: str) -> bool:
    try:
        symbol = session.symbol(session.address(reference))
    except KdumpyError:
        symbol = None
    name = symbol.name if symbol else reference
    return any(frame.function == name for frame in trace.frames)


COMMAND = Bt()
