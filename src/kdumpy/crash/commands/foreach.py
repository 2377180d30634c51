"""`foreach`: a command for many tasks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import drgn

from kdumpy.crash.command import Arg, Command, Line, Options
from kdumpy.crash.commands.ps import STATES
from kdumpy.crash.commands.sys import Fact
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import UsageError
from kdumpy.kernel.deadline import TookTooLong
from kdumpy.kernel.taskreader import state_of
from kdumpy.kernel.tasks import task_objects

COMMANDS = ("bt", "vm", "task", "files", "net", "set", "ps", "sig", "vtop")
"""What can be run for tasks."""
KINDS = ("user", "kernel", "gleader", "active")
"""Words that choose tasks."""
_PF_KTHREAD = 0x00200000
"""include/linux/sched.h."""


class Foreach(Command[Any]):
    """Run a command for every task, or for some: `foreach [TASKS…] COMMAND [OPTIONS]`.

    TASKS: process ids, addresses, names, a regular expression in single quotes, a state (RU IN UN ID ST ZO …),
    and user, kernel, gleader, active. Commands: bt vm task files net set ps sig vtop. With --json, and behind `|:`,
    the rows are the command's own, all tasks' in a row.

    Example:
        crash> foreach UN bt
    """

    names = ("foreach",)
    example = "foreach active bt"
    row = Line
    args = (Arg("words", nargs="...", metavar="[TASKS…] COMMAND [OPTIONS]", help="which tasks, and what to do"),)

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Take every word: those with a dash in front are the command's."""
        json = "--json" in words
        return Options(words=[word for word in words if word != "--json"], json=json, help=False, render=None)

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield the rows of the command for each task; a task that fails is told of, and the others follow."""
        words = options.words
        at = next((number for number, word in enumerate(words) if word in COMMANDS), None)
        if at is None:
            raise UsageError("foreach wants a command", mend=f"one of {' '.join(COMMANDS)}")
        chosen, command, rest = words[:at], words[at], words[at + 1:]
        found = False
        context = session.context
        by_context = command in ("net", "set", "vtop")
        line = shlex.join((command, *rest))
        call = session.call(line)       # parsed once, and not for each of thousands
        try:
            for number, task in enumerate(self._tasks(session, chosen)):
                found = True
                if by_context:
                    session.set_context(task)
                elif call is not None:
                    call.command.about(task, call.options)
                try:
                    if call is not None:
                        rows: Iterable[Any] = call.command.rows(session, call.options)
                        options.render = partial(call.command.render, session=session, options=call.options)
                    else:
                        rows, options.render = session.answer(line if by_context else f"{line} {task.value_():x}")
                    for place, row in enumerate(rows):
                        if number and not place and isinstance(row, Line):
                            yield Line("")
                        yield row
                except UsageError:
                    raise               # it would be the same for every task
                except Exception as error:      # of this task's data, of whatever kind
                    if isinstance(error.__context__, KeyboardInterrupt | TookTooLong):
                        raise
                    session.tell(error)
        finally:
            if by_context:
                session.set_context(context)
        if not found:
            raise UsageError("no task is like this", where=" ".join(chosen))

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay each row out as its command does, an empty line between tasks."""
        for number, row in enumerate(rows):
            # A task's lines in one: each text that is shown costs as much as it takes to make some lines.
            lines = [""] if number and not isinstance(row, Fact | Line) else []
            failure: Exception | None = None
            try:
                lines.extend(options.render([row]))
            except Exception as error:      # of this task's data: what was made until then is shown
                failure = error
            if lines:
                yield "\n".join(lines)
            if failure is not None:
                raise failure

    def _tasks(self, session: Session, chosen: list[str]) -> Iterator[drgn.Object]:
        if not chosen:
            yield from task_objects(session.prog)
            return
        active = session.active()
        states = {word for word in chosen if word in STATES.values()}
        names = [word for word in chosen if word not in KINDS and word not in states]
        for task in task_objects(session.prog):
            try:
                kernel = bool(task.flags.value_() & _PF_KTHREAD)
                if ("user" in chosen and kernel) or ("kernel" in chosen and not kernel) \
                        or ("active" in chosen and task.value_() not in active) \
                        or ("gleader" in chosen and task.pid.value_() != task.tgid.value_()) \
                        or (states and STATES.get(state_of(task)) not in states):
                    continue
                if names and not any(_is_named(task, name) for name in names):
                    continue
            except READ_ERRORS:
                continue
            yield task


def _is_named(task: drgn.Object, text: str) -> bool:
    if text.isdecimal():
        return bool(task.pid.value_() == int(text))
    comm = task.comm.string_().decode("utf-8", "backslashreplace")
    if comm == text[:15] or f"{task.value_():x}" == text.lower().removeprefix("0x"):
        return True
    if re.fullmatch(r"[\w\-/]+", text):
        return False
    try:
        return bool(re.search(text, comm))
    except re.error:
        raise UsageError(f"{text!r} is no regular expression") from None


COMMAND = Foreach()
