"""`timer`: what the kernel meant to do later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import drgn
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.timekeeping import ktime_get_coarse_ns, ktime_to_ns
from drgn.helpers.linux.timer import hrtimer_clock_base_for_each, timer_base_for_each, timer_base_names

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError

_MOST = 1 << 20


@dataclass(frozen=True)
class TimerRow:
    """A timer; or, with `timer` 0, a base without one."""

    cpu: int
    base: str
    """BASE_STD, BASE_DEF …; with -r the clock's number."""
    base_address: int
    clock: str
    """With -r: the function that reads the clock, where the kernel keeps it."""
    now: int
    """jiffies; with -r nanoseconds of the base's clock."""
    expires: int
    soft_expires: int | None
    """With -r: from when on it may fire."""
    left: int
    """From now to expires; below zero where it is late."""
    timer: int
    """Address of its struct timer_list or hrtimer."""
    function: int
    symbol: str
    problem: str
    """Why the base cannot be read; empty when it can."""


class Timer(Command[TimerRow]):
    """List the timers, CPU by CPU, in the order in which they expire.

    Example:
        crash> timer |: sort left |: head 3 |: columns cpu left symbol
    """

    names = ("timer",)
    example = "timer"
    row = TimerRow
    args = (
        Arg("-r", dest="high", action="store_true", help="the high-resolution timers (hrtimers)"),
        Arg("-C", dest="cpus", metavar="CPUS", help="these CPUs only: 1, 0,3-5, a"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[TimerRow]:
        """Yield the timers of every base, or a row that says that it has none."""
        from kdumpy.kernel.online import online_cpus

        cpus = session.cpus(options.cpus) if options.cpus else list(online_cpus(session.prog))
        for cpu in cpus:
            yield from _high_resolution(session, cpu) if options.high else _wheel(session, cpu)

    def render(self, rows: Iterable[TimerRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the timers out as crash does."""
        last, jiffies = None, None
        for (cpu, base), group in groupby(rows, key=lambda row: (row.cpu, row.base)):
            found = list(group)
            if not options.high and jiffies is None:
                jiffies = found[0].now
                yield "JIFFIES"
                yield str(jiffies)
            if options.high:
                if last is not None:
                    yield ""
                if last != cpu:
                    yield f"CPU: {cpu}  HRTIMER_CPU_BASE: {_cpu_base(session, cpu):x}"
                clock = f"  [{found[0].clock}]" if found[0].clock else ""
                yield f"  CLOCK: {base}  HRTIMER_CLOCK_BASE: {found[0].base_address:x}{clock}"
            else:
                if last != cpu:
                    yield ""
                yield f"TIMER_BASES[{cpu}][{base}]: {found[0].base_address:x}"
            last = cpu
            yield from _table(found, high=options.high)


def _table(found: list[TimerRow], *, high: bool) -> Iterator[str]:
    if found[0].problem:
        yield f"  ({found[0].problem})"
        return
    if not found[0].timer:
        yield "  (empty)" if high else "  (none)"
        return
    width = max(*(len(str(row.expires)) for row in found), 7)
    left = max(*(len(str(row.left)) for row in found), 3)
    if high:
        yield f"  {'CURRENT':^{width}}".rstrip()
        yield f"  {found[0].now:>{width}}"
        yield (f"  {'SOFTEXPIRES':>{width}}  {'EXPIRES':>{width}}  {'TTE':>{left}}  {'HRTIMER':^16}  FUNCTION")
        for row in found:
            yield (f"  {row.soft_expires:>{max(width, 11)}}  {row.expires:>{width}}  {row.left:>{left}}  "
                   f"{row.timer:016x}  {row.function:x}  <{row.symbol}>")
        return
    yield f"  {'EXPIRES':<{width}}  {'TTE':>{left}}  {'TIMER_LIST':^16}      FUNCTION"
    for row in found:
        yield (f"  {row.expires:<{width}}  {row.left:>{left}}  {row.timer:016x}  {row.function:016x}  "
               f"<{row.symbol}>")


def _wheel(session: Session, cpu: int) -> Iterator[TimerRow]:
    jiffies = session.prog["jiffies"].value_()
    for name, base in zip(timer_base_names(session.prog), per_cpu(session.prog["timer_bases"], cpu), strict=False):
        timers, problem = _read(timer_base_for_each(base))
        entries = sorted(((timer.expires.value_(), timer) for timer in timers), key=lambda entry: entry[0])
        yield from (_row(session, cpu, name, base.address_ or 0, "", jiffies, expires, None, timer)
                    for expires, timer in entries)
        if not entries:
            yield TimerRow(cpu, name, base.address_ or 0, "", jiffies, 0, None, 0, 0, 0, "", problem)


def _high_resolution(session: Session, cpu: int) -> Iterator[TimerRow]:
    now = ktime_get_coarse_ns(session.prog)
    for base in per_cpu(session.prog["hrtimer_bases"], cpu).clock_base:
        number, address = str(base.index.value_()), base.address_ or 0
        # Commit 009eb5da29a9 ("hrtimer: Remove hrtimer_clock_base::Get_time") (v6.18): the clock has no name any more.
        clock = session.place(base.get_time.value_()) if hasattr(base, "get_time") else ""
        current = (now + ktime_to_ns(base.offset)).value_()
        timers, problem = _read(hrtimer_clock_base_for_each(base))
        for timer in timers:
            yield _row(session, cpu, number, address, clock, current, ktime_to_ns(timer.node.expires).value_(),
                       ktime_to_ns(timer.member_("_softexpires")).value_(), timer)
        if not timers:
            yield TimerRow(cpu, number, address, clock, current, 0, None, 0, 0, 0, "", problem)


def _read(timers: Iterator[drgn.Object]) -> tuple[list[drgn.Object], str]:
    found: list[drgn.Object] = []
    try:
        for timer in timers:
            if len(found) >= _MOST:
                return found, f"cut after {_MOST} timers"
            found.append(timer)
    except READ_ERRORS as error:
        return found, f"corrupted: {error if isinstance(error, KdumpyError) else type(error).__name__}"
    return found, ""


def _row(session: Session, cpu: int, base: str, address: int, clock: str, now: int, expires: int,
         soft: int | None, timer: drgn.Object) -> TimerRow:
    function = timer.function.value_()
    return TimerRow(cpu, base, address, clock, now, expires, soft, expires - now, timer.value_(), function,
                    session.place(function) or "?", "")


def _cpu_base(session: Session, cpu: int) -> int:
    return int(per_cpu(session.prog["hrtimer_bases"], cpu).address_ or 0)


COMMAND = Timer()
