"""`task`: the task_struct of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.sched import task_cpu

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.bt import header
from kdumpy.crash.layout import Layout, indented
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump


@dataclass(frozen=True)
class TaskStructRow:
    """A task and its task_struct, or some members of it."""

    pid: int
    task: int
    cpu: int
    command: str
    text: str


class TaskCommand(Command[TaskStructRow]):
    """Show the task_struct of a task: of the context, if no other is named; all of it, or some members.

    Example:
        crash> task -R pid,comm,exit_code
        PID: 29       TASK: ff29ecb51903c180  CPU: 0    COMMAND: "kworker/u4:1"
          pid = 29,
          comm = "kworker/u4:1",
          exit_code = 0
    """

    names = ("task",)
    example = "task -R pid,comm,exit_code"
    row = TaskStructRow
    args = (
        Arg("tasks", nargs="*", metavar="PID|TASK", help="process ids, or addresses of task_structs"),
        Arg("-R", dest="members", metavar="MEMBER,…", help="these members only"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[TaskStructRow]:
        """Yield a row a task."""
        for task in session.tasks_of(options.tasks):
            value = drgn.Object(session.prog, task.type_.type, address=task.value_())
            layout = Layout(session, options.radix)
            if options.members:
                text = ",\n".join(self._member(layout, value, name) for name in options.members.split(",") if name)
            else:
                text = f"struct task_struct {layout.value(value)}"
            yield TaskStructRow(task.pid.value_(), task.value_(), task_cpu(task),
                                task.comm.string_().decode("utf-8", "backslashreplace"), text)

    @staticmethod
    def _member(layout: Layout, value: drgn.Object, name: str) -> str:
        try:
            member = value.subobject_(name)
        except LookupError:
            raise NotInDump(f"struct task_struct has no member {name!r}") from None
        return f"  {name} = {indented(layout.value(member), '  ').lstrip()}"

    def render(self, rows: Iterable[TaskStructRow], session: Session, options: Options) -> Iterator[str]:
        """Yield the texts, each below its task."""
        for number, row in enumerate(rows):
            if number:
                yield ""
            yield header(row.pid, row.task, row.cpu, row.command)
            yield row.text


COMMAND = TaskCommand()
