"""What `ps` shows of tasks besides their line: parents, children, times, arguments, threads, limits, policies.

Source: crash's help page of ps, and its output: scripts know the layout.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import drgn
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import cmdline, environ
from drgn.helpers.linux.pid import for_each_task_in_group
from drgn.helpers.linux.resource import task_rlimits
from drgn.helpers.linux.sched import cpu_rq, task_cpu
from drgn.helpers.linux.timekeeping import ktime_get_coarse_ns

from kdumpy.crash.command import Options
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import UsageError

MOST_PARENTS = 1000
# Source: include/uapi/linux/sched.h (4 was SCHED_ISO, that no kernel has).
POLICIES = {0: "NORMAL", 1: "FIFO", 2: "RR", 3: "BATCH", 4: "ISO", 5: "IDLE", 6: "DEADLINE", 7: "EXT"}
"""Scheduling policies by their number."""


@dataclass(frozen=True)
class TaskName:
    """A task in a few words."""

    pid: int
    task: int
    """Address of its task_struct."""
    cpu: int
    command: str


@dataclass(frozen=True)
class RelatedRow:
    """A task and those that belong to it: parents (outermost first), children, or threads."""

    pid: int
    task: int
    cpu: int
    command: str
    relation: str
    """parents, children, threads."""
    related: tuple[TaskName, ...]


@dataclass(frozen=True)
class TimesRow:
    """How long a task has run."""

    pid: int
    task: int
    cpu: int
    command: str
    run_ns: int
    """Since its start."""
    start_ns: int
    """Since the boot."""
    user_ns: int
    system_ns: int


@dataclass(frozen=True)
class LastRunRow:
    """When a task last came on a CPU."""

    pid: int
    task: int
    cpu: int
    command: str
    state: str
    """crash's two letters."""
    last_run_ns: int
    """Of its CPU's clock."""
    ago_ns: int


@dataclass(frozen=True)
class ArgumentsRow:
    """What a process was called with."""

    pid: int
    task: int
    cpu: int
    command: str
    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    problem: str
    """Why they cannot be told; empty when they are."""


@dataclass(frozen=True)
class Limit:
    """A resource limit; None: unlimited."""

    name: str
    current: int | None
    maximum: int | None


@dataclass(frozen=True)
class LimitsRow:
    """The resource limits of a task."""

    pid: int
    task: int
    cpu: int
    command: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class StateCount:
    """How many tasks are in a state."""

    state: str
    tasks: int


@dataclass(frozen=True)
class PolicyRow:
    """How a task is scheduled."""

    pid: int
    ppid: int
    cpu: int
    task: int
    policy: str
    priority: int
    """The kernel's: 0 to 99 real time, 120 is nice 0."""
    command: str
    active: bool
    kernel_thread: bool


def named(task: drgn.Object) -> TaskName:
    """Read a task's name."""
    return TaskName(task.pid.value_(), task.value_(), task_cpu(task),
                    task.comm.string_().decode("utf-8", "backslashreplace"))


def line(task: Any) -> str:
    """Return the line that names a task."""
    return f'PID: {task.pid:<8} TASK: {task.task:x}  CPU: {task.cpu:<4} COMMAND: "{task.command}"'


def policies_of(text: str) -> frozenset[int]:
    """Return the numbers of a list of policies: names or numbers.

    Raises:
        UsageError: there is no such policy.
    """
    numbers = {name: number for number, name in POLICIES.items()} | {"OTHER": 0}
    found = set()
    for part in text.split(","):
        number = int(part) if part.isdecimal() else numbers.get(part.upper())
        if number is None:
            raise UsageError(f"there is no scheduling policy {part!r}",
                             mend=f"there are {', '.join(POLICIES.values())}, or their numbers")
        found.add(number)
    return frozenset(found)


Task = tuple[drgn.Object, Any]
"""A `struct task_struct *` and the TaskRow of it."""


def _name(task: drgn.Object) -> tuple[int, int, int, str]:
    name = named(task)
    return name.pid, name.task, name.cpu, name.command


def _parents(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[RelatedRow]:
    for task, _ in tasks:
        found: list[TaskName] = []
        at, seen = task, {task.value_()}
        while len(found) < MOST_PARENTS:
            above = at.parent.read_()
            if not above or above.value_() in seen:
                break
            seen.add(above.value_())
            found.append(named(above))
            at = above
        yield RelatedRow(*_name(task), "parents", tuple(reversed(found)))


def _children(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[RelatedRow]:
    for task, _ in tasks:
        children = list_for_each_entry("struct task_struct", task.children.address_of_(), "sibling")
        yield RelatedRow(*_name(task), "children", tuple(named(child) for child in children))


def _threads(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[RelatedRow]:
    seen = set()
    for task, _ in tasks:
        leader = task.group_leader.read_()
        if leader.value_() in seen:
            continue
        seen.add(leader.value_())
        threads = () if leader.pid.value_() == 0 else tuple(named(one) for one in for_each_task_in_group(leader))
        yield RelatedRow(*_name(leader), "threads", threads)


def _times(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[TimesRow]:
    now = ktime_get_coarse_ns(session.prog).value_()
    for task, _ in tasks:
        start = task.start_time.value_()
        yield TimesRow(*_name(task), max(now - start, 0), start, task.utime.value_(), task.stime.value_())


def _last_run(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[LastRunRow]:
    clocks: dict[int, int] = {}
    found = []
    wanted = set(session.cpus(options.cpus)) if options.cpus else None
    for task, row in tasks:
        if wanted is not None and row.cpu not in wanted:
            continue
        if row.cpu not in clocks:
            try:
                clocks[row.cpu] = cpu_rq(session.prog, row.cpu).clock.value_()
            except READ_ERRORS:
                clocks[row.cpu] = 0
        last = task.sched_info.last_arrival.value_()
        found.append(LastRunRow(row.pid, row.task, row.cpu, row.command, row.state, last,
                                max(clocks[row.cpu] - last, 0)))
    key = (lambda row: (row.cpu, -row.last_run_ns)) if wanted is not None else (lambda row: -row.last_run_ns)
    yield from sorted(found, key=key)


def _arguments(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[ArgumentsRow]:
    for task, _ in tasks:
        words: list[tuple[str, ...]] = [(), ()]
        problem = "" if task.mm else "no user stack"
        if task.mm:
            try:
                for number, read in enumerate((cmdline, environ)):
                    words[number] = tuple(word.decode("utf-8", "backslashreplace") for word in read(task) or ())
            except drgn.FaultError as error:
                problem = f"not in the dump: the page at {error.address:x}"
        yield ArgumentsRow(*_name(task), words[0], words[1], problem)


def _limits(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[LimitsRow]:
    for task, _ in tasks:
        yield LimitsRow(*_name(task), tuple(Limit(name, limit.cur, limit.max)
                                            for name, limit in task_rlimits(task).items()))


def _summary(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[StateCount]:
    for state, count in collections.Counter(row.state for _, row in tasks).items():
        yield StateCount(state, count)


def _policies(session: Session, tasks: Iterable[Task], options: Options) -> Iterator[PolicyRow]:
    for task, row in tasks:
        number = task.policy.value_()
        yield PolicyRow(row.pid, row.ppid, row.cpu, row.task, POLICIES.get(number, str(number)), task.prio.value_(),
                        row.command, row.active, row.kernel_thread)


def _show_related(rows: Iterable[RelatedRow], options: Options) -> Iterator[str]:
    for number, row in enumerate(rows):
        if number:
            yield ""
        if row.relation == "parents":
            for level, task in enumerate((*row.related, row)):
                yield " " * level + line(task)
            continue
        yield line(row)
        for task in row.related:
            yield f"  {line(task)}"
        if not row.related:
            yield f"  (no {row.relation})"


def _show_times(rows: Iterable[TimesRow], options: Options) -> Iterator[str]:
    for number, row in enumerate(rows):
        if number:
            yield ""
        days, rest = divmod(row.run_ns // 1_000_000_000, 86400)
        clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
        yield line(row)
        yield f"    RUN TIME: {f'{days} days, ' if days else ''}{clock}"
        yield f"  START TIME: {row.start_ns}"
        yield f"       UTIME: {row.user_ns}"
        yield f"       STIME: {row.system_ns}"


def ago(ns: int) -> str:
    """Return a time as crash's `ps -m` shows it: days, hours:minutes:seconds.milliseconds."""
    days, rest = divmod(ns // 1_000_000, 86_400_000)
    return (f"{days} {rest // 3_600_000:02}:{rest // 60_000 % 60:02}:{rest // 1000 % 60:02}.{rest % 1000:03}")


def _show_last_run(rows: Iterable[LastRunRow], options: Options) -> Iterator[str]:
    cpu, width = None, 0
    for row in rows:
        if options.cpus and row.cpu != cpu:
            if cpu is not None:
                yield ""
            cpu = row.cpu
            yield f"CPU: {cpu}"
        shown = ago(row.ago_ns) if options.elapsed else str(row.last_run_ns)
        width = width or len(shown)
        yield f"[{shown:>{width}}] [{row.state}]  {line(row)}"


def _show_arguments(rows: Iterable[ArgumentsRow], options: Options) -> Iterator[str]:
    for number, row in enumerate(rows):
        if number:
            yield ""
        yield line(row)
        if row.problem:
            yield f"({row.problem})"
            if not row.arguments:
                continue
        yield f"ARG: {' '.join(row.arguments)}"
        for place, text in enumerate(row.environment or ("",)):
            yield f"{'    ' if place else 'ENV:'} {text}".rstrip()


def _show_limits(rows: Iterable[LimitsRow], options: Options) -> Iterator[str]:
    for number, row in enumerate(rows):
        if number:
            yield ""
        yield line(row)
        width = max((len(limit.name) for limit in row.limits), default=6)
        yield f"  {'RLIMIT':>{width}}     CURRENT       MAXIMUM"
        for limit in row.limits:
            cells = ("(unlimited)" if value is None else str(value) for value in (limit.current, limit.maximum))
            yield f"  {limit.name:>{width}}   {'   '.join(f'{cell:^11}' for cell in cells)}".rstrip()


def _show_summary(rows: Iterable[StateCount], options: Options) -> Iterator[str]:
    for row in rows:
        yield f"  {row.state}: {row.tasks}"


def _show_policies(rows: Iterable[PolicyRow], options: Options) -> Iterator[str]:
    if options.header:
        yield "      PID    PPID  CPU       TASK        POLICY       PRIO  COMM"
    for row in rows:
        command = f"[{row.command}]" if row.kernel_thread else row.command
        yield (f"{'>' if row.active else ' '} {row.pid:>7} {row.ppid:>7} {row.cpu:>3}  {row.task:016x}  "
               f"{row.policy:<12} {row.priority:>4}  {command}")


class View(NamedTuple):
    """A way to show tasks."""

    rows: Callable[[Session, Iterable[Task], Options], Iterator[Any]]
    render: Callable[[Iterable[Any], Options], Iterator[str]]


VIEWS = {
    "parents": View(_parents, _show_related), "children": View(_children, _show_related),
    "threads": View(_threads, _show_related), "times": View(_times, _show_times),
    "last_run": View(_last_run, _show_last_run), "elapsed": View(_last_run, _show_last_run),
    "arguments": View(_arguments, _show_arguments), "limits": View(_limits, _show_limits),
    "summary": View(_summary, _show_summary), "policies": View(_policies, _show_policies),
}
"""By the option's name in `ps`."""


def chosen(options: Options) -> str | None:
    """Return which view a call wants; None for the plain list.

    Raises:
        UsageError: more than one.
    """
    wanted: Sequence[str] = [name for name in VIEWS if getattr(options, name)]
    if len(wanted) > 1:
        raise UsageError(f"{wanted[0]} and {wanted[1]} cannot be shown together", where="ps")
    return wanted[0] if wanted else None
