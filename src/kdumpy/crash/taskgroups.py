"""`runq -g`: what runs and waits on a CPU, by task group.

Source: kernel/sched/sched.h, struct task_group, struct cfs_rq, struct rt_rq; crash's task.c,
dump_tasks_by_task_group().
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import drgn
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.sched import cfs_rq_for_each_entity, cpu_rq, sched_entity_to_task, task_group_name

from kdumpy.crash.failures import explain
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump

_MOST = 1 << 20
"""Tasks and groups of one CPU."""
_DEEPEST = 64
"""Groups in groups; a cgroup hierarchy of systemd's has about ten levels."""
_MOST_PRIORITIES = 256
"""MAX_RT_PRIO is 100."""


@dataclass(frozen=True)
class QueuedTask:
    """A task on a run queue."""

    pid: int
    task: int
    command: str
    priority: int
    """The kernel's: 0 to 99 real time, 120 is nice 0."""


@dataclass(frozen=True)
class GroupTask(QueuedTask):
    """A task of a group."""

    current: bool
    """It is the one that the CPU runs."""


@dataclass(frozen=True)
class Group:
    """A task group on a CPU: what it has there to run."""

    group: int
    """Address of its struct task_group; 0 where the kernel has no groups."""
    queue: int
    """Address of its struct cfs_rq, or of its struct rt_rq."""
    name: str
    """Of its cgroup; empty for the root's and for one that is none."""
    throttled: bool
    """It has used up its bandwidth."""
    priority: int | None
    """Among real-time tasks; None among fair ones."""
    entries: tuple[GroupTask | Group, ...]
    """Tasks and groups, the current one first; groups that were taken off the queue last."""


@dataclass(frozen=True)
class GroupsRow:
    """A CPU and its task groups."""

    cpu: int
    current: QueuedTask
    real_time: Group
    """The root group's real-time tasks."""
    fair: Group
    """The root group's fair tasks."""
    problem: str
    """Why they are not whole; empty when they are."""


@dataclass
class _Building:
    """A group while it is read."""

    group: drgn.Object | None
    queue: drgn.Object
    priority: int | None = None
    entries: list[GroupTask | _Building] = field(default_factory=list)

    def made(self, depth: int = 0) -> Group:
        """Return what was read of it."""
        name, throttled = "", False
        if self.group is not None and depth:
            name = task_group_name(self.group).decode("utf-8", "backslashreplace")
        # With CONFIG_CFS_BANDWIDTH and with CONFIG_RT_GROUP_SCHED.
        for member in ("throttled", "rt_throttled"):
            if self.queue[0].type_.has_member(member):
                throttled = bool(self.queue.member_(member))
        return Group(self.group.value_() if self.group is not None else 0, self.queue.value_(), name, throttled,
                     self.priority, tuple(entry.made(depth + 1) if isinstance(entry, _Building) else entry
                                          for entry in self.entries))


def queued_task(task: drgn.Object) -> QueuedTask:
    """Read a `struct task_struct *`.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    return QueuedTask(*_told(task))


def _told(task: drgn.Object) -> tuple[int, int, str, int]:
    return (task.pid.value_(), task.value_(), task.comm.string_().decode("utf-8", "backslashreplace"),
            task.prio.value_())


def groups_row(prog: drgn.Program, cpu: int) -> GroupsRow:
    """Read what a CPU runs and has to run.

    Raises:
        READ_ERRORS: its run queue cannot be read.
    """
    queue = cpu_rq(prog, cpu)
    current = queue.curr.read_()
    root = prog["root_task_group"].address_of_() if "root_task_group" in prog else None
    fair, real_time = _Building(root, queue.cfs.address_of_()), _Building(root, queue.rt.address_of_())
    problems = []
    reader = _Reader(prog, cpu, current)
    for read, start in ((reader.real_time, real_time), (reader.fair, fair)):
        try:
            read(start)
        except READ_ERRORS as error:
            problems.append(str(explain(error)))
    try:
        return GroupsRow(cpu, queued_task(current), real_time.made(), fair.made(), "; ".join(problems))
    except RecursionError:
        raise DamagedDump(f"the task groups of CPU {cpu} hold each other") from None


class _Reader:
    """Reads the groups of one CPU."""

    def __init__(self, prog: drgn.Program, cpu: int, current: drgn.Object) -> None:
        self.prog, self.cpu, self.current = prog, cpu, current.value_()
        self.count = 0
        self.known: dict[int, _Building] = {}
        """By the address of their queue."""

    def fair(self, root: _Building) -> None:
        """Read the fair tasks: those that are queued, then the groups that were taken off, which wait for bandwidth."""
        self.known[root.queue.value_()] = root
        self._fill(root)
        filled = set(self.known)
        if root.group is None:
            return
        for group in list_for_each_entry("struct task_group", self.prog["task_groups"].address_of_(), "list"):
            queue = self._queue_of(group)
            waiting = self._throttled(queue)
            if waiting or (queue.value_() not in filled and _queued(queue)):
                place = self._place(group, 0)
                if queue.value_() not in filled:
                    self._fill(place)
                    filled.add(queue.value_())
                place.entries += waiting

    def _fill(self, start: _Building) -> None:
        """Read what is queued in a group, the groups in it too."""
        stack = [start]
        for entity, depth, is_current, is_task in cfs_rq_for_each_entity(start.queue):
            self._counted(depth)
            del stack[depth + 1:]
            if is_task:
                task = sched_entity_to_task(entity)
                stack[depth].entries.append(GroupTask(*_told(task), is_current and task.value_() == self.current))
                continue
            queue = entity.my_q.read_()
            known = self.known.get(queue.value_())
            if known is None:
                known = self.known[queue.value_()] = _Building(queue.tg.read_(), queue)
                stack[depth].entries.append(known)
            stack.append(known)

    def _throttled(self, queue: drgn.Object) -> list[GroupTask]:
        """Return the tasks that were taken off a queue one by one, since their group has used up its time.

        They stand in a list of their own since "sched/fair: Switch to task based throttle model" (6.18).
        """
        if not queue[0].type_.has_member("throttled_limbo_list"):
            return []
        found = []
        for task in list_for_each_entry("struct task_struct", queue.throttled_limbo_list.address_of_(),
                                        "throttle_node"):
            self._counted(0)
            found.append(GroupTask(*_told(task), False))
        return found

    def _place(self, group: drgn.Object, depth: int) -> _Building:
        """Return a group that is not queued, in its parent."""
        queue = self._queue_of(group)
        known = self.known.get(queue.value_())
        if known is None:
            self._counted(depth)
            parent = group.parent.read_()
            if not parent:
                raise DamagedDump(f"the task group at {group.value_():016x} has no parent")
            within = self._place(parent, depth + 1)
            known = self.known[queue.value_()] = _Building(group, queue)
            within.entries.append(known)
        return known

    def _queue_of(self, group: drgn.Object) -> drgn.Object:
        """Return a group's cfs_rq of the CPU.

        A per-CPU pointer since b8fea7af0e40 "sched/fair: Allocate cfs_tg_state with percpu allocator" (7.2).
        """
        queues = group.cfs_rq
        if queues.type_.type.unaliased_kind() == drgn.TypeKind.POINTER:
            return queues[self.cpu].read_()
        return per_cpu_ptr(queues, self.cpu)

    def real_time(self, start: _Building, depth: int = 0) -> None:
        """Read the real-time tasks, priority by priority, and with CONFIG_RT_GROUP_SCHED the groups among them."""
        heads = start.queue.active.queue
        if len(heads) > _MOST_PRIORITIES:
            raise DamagedDump(f"{len(heads)} priorities are not believed", where="struct rt_prio_array")
        words = struct.unpack(f"<{2 * len(heads)}Q", self.prog.read(heads.address_, 16 * len(heads)))
        for priority, head in enumerate(heads):
            if words[2 * priority] == head.address_:        # nobody waits
                continue
            for entity in list_for_each_entry("struct sched_rt_entity", head.address_of_(), "run_list"):
                self._counted(depth)
                inner = entity.my_q.read_() if entity[0].type_.has_member("my_q") else None
                if inner:
                    group = _Building(inner.tg.read_(), inner, priority)
                    start.entries.append(group)
                    self.real_time(group, depth + 1)
                    continue
                task = drgn.container_of(entity, "struct task_struct", "rt")
                start.entries.append(GroupTask(*_told(task), task.value_() == self.current))

    def _counted(self, depth: int) -> None:
        self.count += 1
        if self.count > _MOST or depth > _DEEPEST:
            raise DamagedDump(f"cut after {self.count} tasks and groups", where=f"CPU {self.cpu}",
                              why="groups that hold themselves" if depth > _DEEPEST else "")


def _queued(queue: drgn.Object) -> bool:
    """Whether a cfs_rq has anything on it.

    nr_queued since "sched/fair: Rename cfs_rq.nr_running into nr_queued" (6.14).
    """
    return bool(queue.nr_queued if queue[0].type_.has_member("nr_queued") else queue.nr_running)


def lines(row: GroupsRow, *, has_real_time_groups: bool) -> Iterator[str]:
    """Lay a CPU's groups out as crash does; real-time tasks also where the kernel has no groups of them."""
    yield f"CPU {row.cpu}"
    yield f"  CURRENT: {task_line(row.current)}"
    root = f"  ROOT_TASK_GROUP: {row.fair.group:x}"
    if has_real_time_groups or row.real_time.entries:
        yield f"{root}  RT_RQ: {row.real_time.queue:x}"
        yield from _real_time_lines(row.real_time, 0)
    yield f"{root}  CFS_RQ: {row.fair.queue:x}"
    yield from _fair_lines(row.fair, 0)
    if row.problem:
        yield f"     ({row.problem})"


def _fair_lines(group: Group, depth: int) -> Iterator[str]:
    margin = " " * (5 + 3 * depth)
    for entry in group.entries:
        if isinstance(entry, Group):
            yield f"{margin}TASK_GROUP: {entry.group:x}  CFS_RQ: {entry.queue:x} {_marks(entry)}".rstrip()
            yield from _fair_lines(entry, depth + 1)
        else:
            yield f"{margin}[{entry.priority:>3}] {task_line(entry)}{' [CURRENT]' if entry.current else ''}"
    if not group.entries:
        yield f"{margin}[no tasks queued]"


def _real_time_lines(group: Group, depth: int) -> Iterator[str]:
    margin = " " * (5 + 6 * depth)
    for entry in group.entries:
        if isinstance(entry, Group):
            yield (f"{margin}[{entry.priority or 0:>3}] TASK_GROUP: {entry.group:x}  RT_RQ: {entry.queue:x}"
                   f"{_marks(entry)}").rstrip()
            yield from _real_time_lines(entry, depth + 1)
        else:
            yield f"{margin}[{entry.priority:>3}] {task_line(entry)}"
    if not group.entries:
        yield f"{margin}[no tasks queued]"


def _marks(group: Group) -> str:
    return f"{f' <{group.name}>' if group.name else ''}{' (THROTTLED)' if group.throttled else ''}"


def task_line(task: QueuedTask) -> str:
    """Lay a task out as crash does."""
    return f'PID: {task.pid:<5}  TASK: {task.task:x}  COMMAND: "{task.command}"'
