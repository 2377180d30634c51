"""`search`: find values or text in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

import drgn
from drgn.helpers.linux.mm import for_each_vma
from drgn.helpers.linux.sched import task_cpu

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.bt import header
from kdumpy.crash.expression import address_of, evaluate
from kdumpy.crash.kmem.vmalloc import all_areas
from kdumpy.crash.memory.finding import FoundRow, Range, Seen, Value, texts_in, values_in
from kdumpy.crash.numbers import number
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, NotInDump, UsageError

_WORD = 1 << 64
_MOST_CONTEXT = 1024
_MOST_STRING = 4096


class Search(Command[FoundRow]):
    """Search memory for values, or for text (-c): of the kernel, if nothing else is said.

    Whole arrays are compared at a time. What the dump left out is passed over.

    Example:
        crash> search -t 57ac6e9d
        PID: 1        TASK: ff29ecb5011f0000  CPU: 1    COMMAND: "init"
        ff7bdbf040010000: 57ac6e9d
    """

    names = ("search",)
    example = "search -T 57ac6e9d"
    row = FoundRow
    args = (
        Arg("values", nargs="+", metavar="VALUE|(EXPRESSION)|SYMBOL|TEXT", help="hexadecimal numbers; text with -c"),
        Arg("-s", dest="start", metavar="ADDRESS|SYMBOL", help="begin here"),
        Arg("-e", dest="end", metavar="ADDRESS|SYMBOL", help="end here"),
        Arg("-l", dest="length", metavar="BYTES", help="go this far"),
        Arg("-k", dest="kernel", action="store_true", help="the kernel's memory: the default"),
        Arg("-K", dest="mapped", action="store_true", help="the kernel's without vmalloc's, modules', struct pages"),
        Arg("-V", dest="virtual", action="store_true", help="the kernel's, without the direct map and the image"),
        Arg("-u", dest="user", action="store_true", help="the context task's user space"),
        Arg("-p", dest="physical", action="store_true", help="physical memory"),
        Arg("-t", dest="stacks", action="store_true", help="the kernel stacks of all tasks"),
        Arg("-T", dest="active", action="store_true", help="the kernel stacks of the tasks on the CPUs"),
        Arg("-m", dest="mask", metavar="MASK", help="ignore the bits that are set in this (hexadecimal)"),
        Arg("-w", dest="bits", action="store_const", const=32, help="values of 32 bits"),
        Arg("-h", dest="bits", action="store_const", const=16, help="values of 16 bits"),
        Arg("-c", dest="text", action="store_true", help="text; quotes hold spaces"),
        Arg("-x", dest="context", metavar="COUNT", help="show this many values before and behind"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[FoundRow]:
        """Yield the places in rising order."""
        unit = (options.bits or 64) // 8
        problems: list[str] = []
        ranges = list(_ranges(session, options, problems))
        if options.text:
            texts = [value.encode() for value in options.values]
            if any(not 0 < len(text) <= _MOST_STRING for text in texts):
                raise UsageError("a text to search for has between 1 and 4096 bytes")
            for area in ranges:
                yield from texts_in(session, area, texts)
        else:
            values = [_value(session, text, unit) for text in options.values]
            mask = int(options.mask, 16) if options.mask else 0
            context = int(options.context, 0) if options.context else 0
            if not 0 <= context <= _MOST_CONTEXT:
                raise UsageError(f"at most {_MOST_CONTEXT} values can stand around one", where="-x")
            seen = Seen()
            for area in ranges:
                yield from values_in(session, area, values, mask, unit, context, seen)
        if problems:
            raise DamagedDump("not all areas of vmalloc's were found, and so not searched", why="; ".join(problems))
        if session.arrays.damaged:
            raise DamagedDump(f"{len(session.arrays.damaged)} pages could not be searched",
                              why=str(session.arrays.damaged[0]))

    def render(self, rows: Iterable[FoundRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the places out as crash does."""
        digits = (options.bits or 64) // 4
        task = None
        for row in rows:
            if row.task != task and row.task is not None:
                if task is not None:
                    yield ""
                task = row.task
                value = session.kernel.task_object(task)
                yield header(value.pid.value_(), task, task_cpu(value),
                             value.comm.string_().decode("utf-8", "backslashreplace"))
            if options.text:
                yield f"{row.address:x}: {row.text}"
                continue
            name = f" ({row.wanted})" if row.wanted else ""
            if row.before or row.after:
                before, after = (" ".join(f"{value:0{digits}x}" for value in part) for part in (row.before, row.after))
                yield f"{row.address:x}: {before} {row.value:x}{name} {after}"
            else:
                yield f"{row.address:x}: {row.value:x}{name}"


def _value(session: Session, text: str, unit: int) -> Value:
    name = ""
    try:
        wanted = int(text, 16)
    except ValueError:
        name = text
        wanted = _expression(session, text) if text.startswith("(") else session.address(text)
    if wanted % _WORD >> 8 * unit and not (wanted < 0 and wanted >= -(1 << 8 * unit - 1)):
        raise UsageError(f"{text!r} does not fit into {8 * unit} bits")
    return Value(wanted % (1 << 8 * unit), name)


def _expression(session: Session, text: str) -> int:
    """Return the value of `(EXPRESSION)`; a symbol's is its address, as crash has it."""
    symbol = re.fullmatch(r"\(\s*([A-Za-z_]\w*)\s*(\+\s*\w+\s*)?\)", text)
    if symbol and session.prog.symbols(symbol[1]):
        return session.address(text)
    value = evaluate(session, text)
    try:
        return int(value)
    except TypeError:
        return address_of(value)


def _ranges(session: Session, options: Options, problems: list[str]) -> Iterator[Range]:
    """Yield the memory to go through; what keeps some of it from being found goes into `problems`."""
    kinds = [name for name in ("kernel", "mapped", "virtual", "user", "physical", "stacks", "active")
             if getattr(options, name)]
    if len(kinds) > 1:
        raise UsageError("only one kind of memory can be searched at a time", why=" and ".join(kinds))
    kind = kinds[0] if kinds else "kernel"
    if kind in ("stacks", "active"):
        yield from _stacks(session, active=kind == "active")
        return
    start, stop = _limits(session, options)
    if kind == "physical":
        yield Range(start or 0, min(stop, session.kernel.dump.max_pfn * session.kernel.dump.page_size), physical=True)
        return
    if kind == "user" or (start is not None and not start >> 63):
        yield from _user(session, start or 0, stop)
        return
    ranges = [(max(low, start or 0), min(high, stop)) for low, high in kernel_ranges(session, kind, problems)]
    ranges = [(low, high) for low, high in ranges if low < high]
    for direct, some in groupby(ranges, lambda bounds: session.arrays.is_direct(*bounds)):
        parts = tuple(some)
        yield Range(parts[0][0], parts[-1][1], parts=() if direct else parts)


def _limits(session: Session, options: Options) -> tuple[int | None, int]:
    start = session.address(options.start) if options.start else None
    stop = _WORD
    if options.end:
        stop = session.address(options.end)
    if options.length:
        if options.end:
            raise UsageError("-e and -l say the same")
        stop = (start or 0) + number(options.length)
    if start is not None and start % 8:
        raise UsageError("the begin must be aligned to 8 bytes", where=f"{start:x}")
    if start is not None and stop <= start:
        raise UsageError("the end lies before the begin")
    return start, stop


def kernel_ranges(session: Session, kind: str, problems: list[str]) -> list[tuple[int, int]]:
    """Return the kernel's memory in rising order: the direct map, vmalloc's areas, struct pages, the image.

    What keeps areas of vmalloc's from being found goes into `problems`.
    Source: crash, x86_64.c, x86_64_get_kvaddr_ranges().
    """
    arrays, prog = session.arrays, session.prog
    size = arrays.dump.max_pfn * arrays.dump.page_size
    found = []
    if kind in ("kernel", "mapped"):
        if arrays.direct is not None:
            found.append((arrays.direct, arrays.direct + size))
        try:
            start, stop = (prog.symbol(name).address for name in ("_text", "_end"))
        except LookupError:     # a symbol table without variables; the image lies in an area of vmalloc then
            start, stop = (prog.symbol(name).address for name in ("_stext", "_etext"))
        found.append((start & -arrays.page_size, stop))
    if kind in ("kernel", "virtual"):
        areas, torn = all_areas(prog)
        found += [(area.start, area.end) for area in areas]
        problems += torn
        vmemmap = int(prog["vmemmap"])
        page = drgn.sizeof(prog.type("struct page"))
        found.append((vmemmap, vmemmap + size // arrays.page_size * page))
    apart: list[tuple[int, int]] = []
    for low, high in sorted(found):
        if apart and low < apart[-1][1]:        # the image is an area of vmalloc on arm64
            low, end = apart.pop()
            high = max(high, end)
        apart.append((low, high))
    return apart


def _stacks(session: Session, *, active: bool) -> Iterator[Range]:
    from kdumpy.crash.commands.ps import all_tasks

    size = int(session.prog["THREAD_SIZE"])
    tasks = session.tasks_running() if active else all_tasks(session)
    for task in tasks:
        try:
            base = task.stack.value_()
        except READ_ERRORS:
            continue
        if base:
            yield Range(base, base + size, task=task)


def _user(session: Session, start: int, stop: int) -> Iterator[Range]:
    task = session.context
    if not task.mm:
        raise NotInDump("the context task has no user space", mend="set another: set PID")
    for vma in for_each_vma(task.mm):
        low, high = max(vma.vm_start.value_(), start), min(vma.vm_end.value_(), stop)
        if low < high:
            yield Range(low, high, user=task.mm)


COMMAND = Search()
