"""`runq`: which tasks run and wait to run, CPU by CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from drgn.helpers.linux.sched import cpu_rq, rq_for_each_fair_task, rq_for_each_rt_task

from kdumpy.crash import taskgroups
from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.failures import explain
from kdumpy.crash.session import Session
from kdumpy.crash.taskgroups import QueuedTask, groups_row, queued_task, task_line
from kdumpy.crash.taskviews import ago
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump

_MOST = 1 << 20


@dataclass(frozen=True)
class RunqueueRow:
    """A CPU's run queue."""

    cpu: int
    runqueue: int
    """Address of its struct rq."""
    clock_ns: int
    """The queue's clock: when it was last looked at, since the boot."""
    lag_ns: int
    """How far it is behind the most recent of all queues."""
    current: QueuedTask
    ran_ns: int
    """How long the current task has been on the CPU, by the queue's clock."""
    last_arrival_ns: int
    """When it came there."""
    rt_array: int
    """Address of rt.active."""
    real_time: tuple[QueuedTask, ...]
    cfs_root: int
    """Address of cfs.tasks_timeline."""
    fair: tuple[QueuedTask, ...]
    """Without the current one."""
    problem: str
    """Why the queues are not whole; empty when they are."""


class Runq(Command[Any]):
    """Show the run queue of each CPU: the task that runs, and those that wait.

    Example:
        crash> runq -m
         CPU 0: [0 00:00:00.005]  PID: 30     TASK: ff26bcbcc1394180  COMMAND: "kworker/u4:1"
         CPU 1: [0 00:00:07.026]  PID: 0      TASK: ff26bcbcc125c180  COMMAND: "swapper/1"
    """

    names = ("runq",)
    example = "runq"
    row = RunqueueRow
    args = (
        Arg("-t", dest="clock", action="store_true", help="the queues' clocks, and when the current tasks came"),
        Arg("-T", dest="lag", action="store_true", help="how far each queue's clock is behind the most recent"),
        Arg("-m", dest="running", action="store_true", help="how long the current tasks have run"),
        Arg("-c", dest="cpus", metavar="CPUS", help="these CPUs only: 1, 0,3-5, a"),
        Arg("-g", dest="groups", action="store_true", help="by task group, with those that have used up their time"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield a row a CPU; another kind of row with -g.

        Raises:
            DamagedDump: a CPU's queue cannot be read; said behind the others.
        """
        from kdumpy.kernel.online import online_cpus

        wanted = session.cpus(options.cpus) if options.cpus else list(online_cpus(session.prog))
        problems: list[str] = []
        clocks: dict[int, int] = {}
        for cpu in wanted:
            try:
                clocks[cpu] = cpu_rq(session.prog, cpu).clock.value_()
            except READ_ERRORS as error:
                problems.append(f"CPU {cpu}: {explain(error)}")
        for cpu, clock in clocks.items():
            try:
                yield groups_row(session.prog, cpu) if options.groups else \
                    _row(session, cpu, clock, max(clocks.values()) - clock)
            except READ_ERRORS as error:
                problems.append(f"CPU {cpu}: {explain(error)}")
        if problems:
            raise DamagedDump("not all run queues can be read", why="; ".join(problems))

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay the queues out as crash does."""
        if options.groups:
            known = session.prog.type("struct task_group").has_member("rt_rq")
            for number, row in enumerate(rows):
                if number:
                    yield ""
                yield from taskgroups.lines(row, has_real_time_groups=known)
            return
        if options.lag:
            yield from (f"  CPU {row.cpu}: {row.lag_ns / 1e9:.2f} secs"
                        for row in sorted(rows, key=lambda row: row.lag_ns))
            return
        for number, row in enumerate(rows):
            current = task_line(row.current)
            if options.clock:
                yield f" CPU {row.cpu}: {row.clock_ns:010}"
                yield f"        {row.last_arrival_ns:010}  {current}"
            elif options.running:
                yield f" CPU {row.cpu}: [{ago(row.ran_ns)}]  {current}"
            else:
                if number:
                    yield ""
                yield f"CPU {row.cpu} RUNQUEUE: {row.runqueue:x}"
                yield f"  CURRENT: {current}"
                yield f"  RT PRIO_ARRAY: {row.rt_array:x}"
                yield from _queue(row.real_time, real_time=True)
                yield f"  CFS RB_ROOT: {row.cfs_root:x}"
                yield from _queue(row.fair, real_time=False)
                if row.problem:
                    yield f"     ({row.problem})"


def _row(session: Session, cpu: int, clock: int, lag: int) -> RunqueueRow:
    queue = cpu_rq(session.prog, cpu)
    current = queue.curr.read_()
    last = current.sched_info.last_arrival.value_()
    real_time: list[QueuedTask] = []
    fair: list[QueuedTask] = []
    problem = ""
    for tasks, found in ((rq_for_each_rt_task, real_time), (rq_for_each_fair_task, fair)):
        try:
            for task in tasks(queue):
                if len(found) >= _MOST:
                    problem = f"cut after {_MOST} tasks"
                    break
                if found is real_time or task != current:
                    found.append(queued_task(task))
        except READ_ERRORS as error:
            problem = f"not all can be read: {error}"
    cfs = queue.cfs.tasks_timeline.address_of_().value_()
    return RunqueueRow(cpu, queue.value_(), clock, lag, queued_task(current), max(clock - last, 0), last,
                       queue.rt.active.address_of_().value_(), tuple(real_time), cfs, tuple(fair), problem)


def _queue(tasks: tuple[QueuedTask, ...], *, real_time: bool) -> Iterator[str]:
    if not tasks:
        yield "     [no tasks queued]"
    for task in tasks:
        yield f"     [{task.priority:>3}] {task_line(task)}"


COMMAND = Runq()
