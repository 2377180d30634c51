"""`waitq`: the tasks on a wait queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.wait import waitqueue_for_each_entry

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.struct import offset_of
from kdumpy.crash.session import Session
from kdumpy.crash.taskviews import line, named
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, UsageError

_MOST = 1 << 20


@dataclass(frozen=True)
class WaiterRow:
    """What waits on a queue."""

    pid: int | None
    """None where no task waits but a function is called (epoll, a page that is written)."""
    task: int
    cpu: int
    command: str
    entry: int
    """Address of its struct wait_queue_entry."""
    function: str
    """What is called to wake it."""


class Waitq(Command[WaiterRow]):
    """List the tasks that wait on a wait queue.

    Example:
        crash> waitq log_wait
        wait queue "log_wait" (ffffffffb9f3b4c0) is empty
    """

    names = ("waitq",)
    example = "waitq log_wait"
    row = WaiterRow
    args = (Arg("which", nargs="+", metavar="SYMBOL|ADDRESS|STRUCT.MEMBER ADDRESS",
                help="the queue: a symbol, an address, or a member of the structure at an address"),)

    def rows(self, session: Session, options: Options) -> Iterator[WaiterRow]:
        """Yield what waits, in the order of the queue."""
        head = _head(session, options.which)
        queue = drgn.Object(session.prog, "wait_queue_head_t *", value=head)
        for number, entry in enumerate(waitqueue_for_each_entry(queue)):
            if number >= _MOST:
                raise DamagedDump("the wait queue has no end", where=f"address {head:016x}")
            yield _row(session, entry)

    def render(self, rows: Iterable[WaiterRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the waiters out as crash does."""
        found = False
        for row in rows:
            found = True
            yield line(row) if row.pid is not None else f"(no task: {row.function} is called; entry {row.entry:x})"
        if not found:
            yield f'wait queue "{" ".join(options.which)}" ({_head(session, options.which):x}) is empty'


def _head(session: Session, which: list[str]) -> int:
    if len(which) == 1:
        return session.address(which[0])
    if len(which) == 2:
        return session.address(which[1]) + offset_of(session, which[0])
    raise UsageError("waitq wants a symbol, an address, or STRUCT.MEMBER and an address", where="waitq")


def _row(session: Session, entry: drgn.Object) -> WaiterRow:
    function = entry.func.value_()
    name = session.place(function) or f"{function:x}"
    task = session.kernel.task_object(entry.private.value_())
    try:
        if task and session.is_task(task):
            found = named(task)
            return WaiterRow(found.pid, found.task, found.cpu, found.command, entry.value_(), name)
    except READ_ERRORS:
        pass            # it is not the task that the entry is about
    return WaiterRow(None, 0, 0, "", entry.value_(), name)


COMMAND = Waitq()
