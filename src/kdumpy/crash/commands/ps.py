"""`ps`: the tasks."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import drgn
from drgn.helpers.linux.mm import task_vsize, totalram_pages

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.parser import Quoted
from kdumpy.crash.session import Session
from kdumpy.crash.taskviews import VIEWS, chosen, policies_of
from kdumpy.crash.unread import Unread
from kdumpy.debuginfo.reading import READ_ERRORS, Losses
from kdumpy.errors import NotInDump, UsageError
from kdumpy.kernel.resident import resident_pages
from kdumpy.kernel.tasks import task_objects, task_value

# Source: crash, task.c (task_state_string_verbose); the kernel's letters are those of fs/proc/array.c.
STATES = {"R": "RU", "S": "IN", "D": "UN", "T": "ST", "t": "TR", "X": "DE", "Z": "ZO", "P": "PA", "I": "ID"}
"""crash's two letters by the kernel's one."""


@dataclass(frozen=True)
class TaskRow:
    """A task."""

    pid: int
    ppid: int
    cpu: int
    task: int
    """Address of its task_struct."""
    state: str
    """crash's two letters: RU IN UN ST TR DE ZO PA ID."""
    memory_percent: float
    vsz_kb: int
    """KiB of address space."""
    rss_kb: int
    """KiB in memory."""
    command: str
    active: bool
    """It was on its CPU."""
    kernel_thread: bool
    leader: bool
    """It leads its thread group."""
    stack: int | None = None
    """The kernel's stack pointer, with -s: where the task was switched out, or where the panic found its CPU; None
    where it is not known."""


class Ps(Command[TaskRow]):
    """List the tasks. `>` marks those that were on a CPU.

    States: RU running, IN sleeping, UN waiting uninterruptibly (D), ID idle, ST stopped, TR traced, ZO zombie,
    DE dead, PA parked.

    Example:
        crash> ps -k khungtaskd
           PID   PPID  CPU        TASK        ST  %MEM  VSZ  RSS  COMM
            28      2    1  ff29ecb51903a0c0  IN   0.0    0    0  [khungtaskd]
    """

    names = ("ps",)
    example = "ps -k"
    row = TaskRow
    args = (
        Arg("which", nargs="*", metavar="PID|TASK|COMMAND",
            help="process ids, addresses of task_structs, names, or a regular expression in quotes"),
        Arg("-k", dest="kernel", action="store_true", help="kernel threads only"),
        Arg("-u", dest="user", action="store_true", help="user tasks only"),
        Arg("-G", dest="leaders", action="store_true", help="leaders of thread groups only"),
        Arg("-A", dest="active", action="store_true", help="the tasks on the CPUs only"),
        Arg("--state", metavar="ST", help="tasks in a state only, such as UN or D"),
        Arg("-I", dest="no_idle", action="store_true", help="without the idle tasks"),
        Arg("-y", dest="policy", metavar="POLICY", help="only with these scheduling policies: FIFO, RR, 0,3 …"),
        Arg("-s", dest="stack", action="store_true", help="the kernel stack pointer instead of the task"),
        Arg("-H", dest="header", action="store_false", help="without a header"),
        *(Arg(name, dest=dest, action="store_true", help=words) for name, dest, words in (
            ("-p", "parents", "the parents up to the first task"), ("-c", "children", "the children"),
            ("-g", "threads", "by thread group"), ("-t", "times", "run time, start time, user and system time"),
            ("-l", "last_run", "last time on a CPU, newest first"), ("-m", "elapsed", "how long ago on a CPU"),
            ("-a", "arguments", "command line and environment"), ("-r", "limits", "resource limits"),
            ("-S", "summary", "how many tasks are in each state"), ("-Y", "policies", "policy and priority"))),
        Arg("-C", dest="cpus", metavar="CPUS", help="with -l or -m: these CPUs, a block each"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield the tasks, the idle ones first; or what the view of them shows."""
        view = chosen(options)
        if options.cpus and view not in ("last_run", "elapsed"):
            raise UsageError("-C goes with -l or -m", where="ps")
        tasks = _tasks(session, options)
        if view is None:
            return (dataclasses.replace(row, stack=_stack_pointer(session, task, row)) if options.stack else row
                    for task, row in tasks)
        return _viewed(session, view, tasks, options)

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay the tasks out as crash does."""
        view = chosen(options)
        if view is not None:
            yield from VIEWS[view].render(rows, options)
            return
        if options.header:
            yield (f"      PID    PPID  CPU {'     KSTACKP     ' if options.stack else '      TASK       '} ST  %MEM"
                   "      VSZ      RSS  COMM")
        for row in rows:
            place = _middle(row.stack) if options.stack else f"{row.task:016x}"
            command = f"[{row.command}]" if row.kernel_thread else row.command
            yield (f"{'>' if row.active else ' '} {row.pid:>7} {row.ppid:>7} {row.cpu:>3}  {place}  {row.state:<2} "
                   f"{row.memory_percent:>5.1f} {row.vsz_kb:>8} {row.rss_kb:>8}  {command}")


def _viewed(session: Session, view: str, tasks: Iterator[tuple[drgn.Object, TaskRow]], options: Options
            ) -> Iterator[Any]:
    """Yield the rows of a view: of the tasks that can be reached, where it has to know all of them before the first."""
    unread = Unread("tasks")
    yield from VIEWS[view].rows(session, unread.all(tasks), options)
    unread.tell()


def _middle(stack: int | None) -> str:
    return f"{stack:016x}" if stack else "       --       "


def _tasks(session: Session, options: Options) -> Iterator[tuple[drgn.Object, TaskRow]]:
    """Yield the tasks that are wanted, the idle ones first.

    Raises:
        NotInDump: some cannot be read; after those that can.
    """
    total_kb = _total_kb(session)
    running = session.active()
    wanted = [Selector(text) for text in options.which]
    state = STATES.get(options.state, options.state)
    policies = policies_of(options.policy) if options.policy else None
    lost = Losses("task")
    sizes: dict[int, tuple[int, int]] = {}
    for task in getattr(options, "tasks", None) or all_tasks(session):      # `foreach` names one
        try:
            row = _row(session, task, running, total_kb, sizes)
            if policies is not None and task.policy.value_() not in policies:
                continue
        except READ_ERRORS as error:
            lost.add(error)
            continue
        if wanted and not takes(wanted, row.pid, row.task, row.command):
            continue
        if (options.kernel and not row.kernel_thread) or (options.user and row.kernel_thread) \
                or (options.leaders and not row.leader) or (options.active and not row.active) \
                or (options.no_idle and row.pid == 0) or (state and row.state != state):
            continue
        yield task, row
    missing = strangers(wanted)
    if lost:
        raise NotInDump(str(lost), why=str(missing or ""))
    if missing:
        raise missing


def _stack_pointer(session: Session, task: drgn.Object, row: TaskRow) -> int | None:
    try:
        if not row.active:
            thread = task.thread
            # x86-64 has thread.sp; arm64 keeps it with the other registers (struct cpu_context).
            return int(thread.sp if thread.type_.has_member("sp") else thread.cpu_context.sp)
        pointer = int(session.prog.stack_trace(task)[0].sp)
        return pointer if pointer >> 63 else None       # the CPU was in user space
    except (*READ_ERRORS, IndexError):
        return None         # it runs on a CPU, and the dump has no registers of that


class Selector:
    """A process id, an address, a name (cut to 15 letters as the kernel does), or a regular expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.may_be_none = isinstance(text, Quoted)
        """What a regular expression is like may not be there; a task that is named should be."""
        self.taken = False
        """A task was like this."""
        self._pid: int | None = None
        if re.fullmatch(r"\d{1,10}|0[xX][0-9a-fA-F]{1,8}", text):
            self._pid = int(text) if text.isdecimal() else int(text, 16)
        self._pattern: re.Pattern[str] | None = None
        if isinstance(text, Quoted) or not re.fullmatch(r"[\w/:.\-]+", text):
            try:
                self._pattern = re.compile(text)
            except re.error:
                self._pattern = re.compile(re.escape(text))

    def takes(self, pid: int, task: int, command: str) -> bool:
        """Whether a task is meant, by its id, the address of its task_struct and its name."""
        if self._pattern:
            return bool(self._pattern.search(command))
        return pid == self._pid or f"{task:x}" == self.text.lower().removeprefix("0x") or command == self.text[:15]


def takes(selectors: Sequence[Selector], pid: int, task: int, command: str) -> bool:
    """Whether a task is one of those that are meant; each selector of it keeps that it was found."""
    found = False
    for selector in selectors:
        if selector.takes(pid, task, command):
            selector.taken = found = True
    return found


def strangers(selectors: Sequence[Selector]) -> NotInDump | None:
    """Return what to say of the tasks that were named and are not there; None where all are. All tasks were looked at.
    """
    names = [repr(str(selector.text)) for selector in selectors if not selector.taken and not selector.may_be_none]
    return NotInDump(f"there is no task {', '.join(names)}", mend="a process id, the address of a task, its name, or "
                     "a regular expression in single quotes") if names else None


def all_tasks(session: Session) -> Iterator[drgn.Object]:
    """Yield every task, the idle ones first."""
    from drgn.helpers.linux.sched import idle_task

    for cpu in session.cpus("a"):
        try:
            yield idle_task(session.prog, cpu)
        except READ_ERRORS:
            continue
    yield from task_objects(session.prog)


def _total_kb(session: Session) -> int:
    try:
        return int(totalram_pages(session.prog)) * int(session.prog["PAGE_SIZE"]) // 1024
    except READ_ERRORS:
        return 0


def _row(session: Session, task: drgn.Object, running: set[int], total_kb: int,
         sizes: dict[int, tuple[int, int]]) -> TaskRow:
    """Read a task; `sizes` keeps what is known of the processes' memory (KiB), which all their threads share."""
    value = task_value(task)
    kernel_thread = value.kernel_thread or value.pid == 0
    if not kernel_thread and value.tgid not in sizes:
        page_kb = int(session.prog["PAGE_SIZE"]) // 1024
        with contextlib.suppress(*READ_ERRORS):
            if task.mm:             # a thread that exits has it no more, the others of its process may have it
                sizes[value.tgid] = task_vsize(task) // 1024, resident_pages(task) * page_kb
    vsz, rss = (0, 0) if kernel_thread else sizes.get(value.tgid, (0, 0))
    parent = value.parent if value.pid else 0       # an idle task is copied from the first process
    return TaskRow(value.pid, parent, value.cpu, value.address, STATES.get(value.state, value.state),
                   100 * rss / total_kb if total_kb else 0.0, vsz, rss, value.comm, value.address in running,
                   kernel_thread, value.pid == value.tgid)


COMMAND = Ps()
