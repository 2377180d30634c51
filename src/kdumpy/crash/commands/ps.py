"""`ps`: the tasks."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.mm import task_rss, task_vsize, totalram_pages

from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump
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
        *(Arg(name, engine=True, help=f"{words} (drgn)") for name, words in {
            "-s": "the kernel stack pointer instead of the task", "-p": "the parents up to init",
            "-c": "the children", "-t": "times", "-l": "last time on a CPU, newest first",
            "-m": "how long ago on a CPU", "-a": "command line and environment", "-g": "by thread group",
            "-r": "resource limits", "-C": "only these CPUs, with -l or -m", "-H": "without a header",
            "-y": "by scheduling policy", "-S": "how many tasks are in each state"}.items()),
    )

    def rows(self, session: Session, options: Options) -> Iterator[TaskRow]:
        """Yield the tasks, the idle ones first."""
        total_kb = _total_kb(session)
        running = session.active()
        wanted = [_Selector(text) for text in options.which]
        state = STATES.get(options.state, options.state)
        unread = 0
        for task in all_tasks(session):
            try:
                row = _row(session, task, running, total_kb)
            except READ_ERRORS:
                unread += 1
                continue
            if wanted and not any(selector.takes(row) for selector in wanted):
                continue
            if (options.kernel and not row.kernel_thread) or (options.user and row.kernel_thread) \
                    or (options.leaders and not row.leader) or (options.active and not row.active) \
                    or (state and row.state != state):
                continue
            yield row
        if unread:
            raise NotInDump(f"{unread} tasks are not in the dump")

    def render(self, rows: Iterable[TaskRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the tasks out as crash does."""
        cells = ((f"{'>' if row.active else ' '} {row.pid:>6}", str(row.ppid), str(row.cpu), f"{row.task:016x}",
                  row.state, f"{row.memory_percent:.1f}", str(row.vsz_kb), str(row.rss_kb),
                  f"[{row.command}]" if row.kernel_thread else row.command) for row in rows)
        yield from columns(("PID", "PPID", "CPU", "      TASK", "ST", "%MEM", "VSZ", "RSS", "COMM"), cells, ">>><<>>><")


class _Selector:
    """A process id, an address, a name (cut to 15 letters as the kernel does), or a regular expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._pattern: re.Pattern[str] | None = None
        if not re.fullmatch(r"[\w/:.\-]+", text):
            try:
                self._pattern = re.compile(text)
            except re.error:
                self._pattern = re.compile(re.escape(text))

    def takes(self, row: TaskRow) -> bool:
        """Whether a task is meant."""
        if self._pattern:
            return bool(self._pattern.search(row.command))
        if self.text.isdecimal() and row.pid == int(self.text):
            return True
        return f"{row.task:x}" == self.text.lower().removeprefix("0x") or row.command == self.text[:15]


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


def _row(session: Session, task: drgn.Object, running: set[int], total_kb: int) -> TaskRow:
    value = task_value(task)
    rss = vsz = 0
    kernel_thread = value.kernel_thread or value.pid == 0
    if not kernel_thread:
        page_kb = int(session.prog["PAGE_SIZE"]) // 1024
        # A task that exits has no memory any more.
        with contextlib.suppress(*READ_ERRORS):
            vsz, rss = task_vsize(task) // 1024, task_rss(task).total * page_kb
    return TaskRow(value.pid, value.parent, value.cpu, value.address, STATES.get(value.state, value.state),
                   100 * rss / total_kb if total_kb else 0.0, vsz, rss, value.comm, value.address in running,
                   kernel_thread, value.pid == value.tgid)


COMMAND = Ps()
