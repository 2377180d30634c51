"""`foreach`: a command for many tasks."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import drgn

from kdumpy.crash.command import Arg, Command, Line, Options
from kdumpy.crash.commands.ps import STATES, Selector, all_tasks, strangers, takes
from kdumpy.crash.commands.sys import Fact
from kdumpy.crash.failures import explain
from kdumpy.crash.session import Answer, Session
from kdumpy.crash.taskviews import line, named
from kdumpy.crash.workers import Shown
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import UsageError
from kdumpy.kernel.deadline import TookTooLong
from kdumpy.kernel.taskreader import state_of

COMMANDS = ("bt", "vm", "task", "files", "net", "set", "ps", "sig", "vtop")
"""What can be run for tasks."""
KINDS = ("user", "kernel", "gleader", "active")
"""Words that choose tasks."""
_BY_CONTEXT = ("net", "set", "vtop")
"""Those that are about the context task."""
_LOT = 32
"""Tasks that a process takes at a time; the threads of a process mostly follow each other, and share what is read."""
_PF_KTHREAD = 0x00200000
"""include/linux/sched.h."""


class Foreach(Command[Any]):
    """Run a command for every task, or for some: `foreach [TASKS…] COMMAND [OPTIONS]`.

    TASKS: process ids, addresses, names, a regular expression in single quotes, a state (RU IN UN ID ST ZO …),
    and user, kernel, gleader (of user processes), active; without them all, the idle tasks too. Commands: bt vm task
    files net set ps sig vtop; net shows sockets. With --json, and behind `|:`, the rows are the command's own, all
    tasks' in a row.

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
        command = _command(words)
        if command is None:
            raise UsageError("foreach wants a command", mend=f"one of {' '.join(COMMANDS)}")
        at = words.index(command)
        chosen, rest = words[:at], words[at + 1:]
        tasks: list[drgn.Object] = []
        failure: Exception | None = None
        try:
            tasks.extend(self._tasks(session, chosen))
        except READ_ERRORS as error:    # their list is damaged, or one is named that it lacks: the others are there
            failure = error
        if command == "net" and not any(re.match("-[^-R]*[sS]", word) for word in rest):
            rest = ["-s", *rest]        # devices are not a task's
        one = _OneTask(session, command, rest)
        context = session.context
        try:
            if not tasks:               # nobody is in such a state
                pass
            elif command == "ps":       # all tasks' lines make one table
                yield from self._table(session, options, one, tasks)
            elif options.as_text:
                shown = False
                lots = [(first, tasks[first:first + _LOT]) for first in range(0, len(tasks), _LOT)]
                for part in session.share(lots, one.texts):
                    if isinstance(part, Exception):
                        session.tell(part)
                    elif isinstance(part, Shown):
                        yield Line(part)
                    else:
                        yield Line(f"\n{part}" if shown else part)
                        shown = True
            else:
                for task in tasks:
                    yield from self._rows(session, options, one, task)
        finally:
            session.set_context(context)
        if failure is not None:
            raise failure
        if one.wants_lines:
            session.check_lines()

    @staticmethod
    def _table(session: Session, options: Options, one: _OneTask, tasks: list[drgn.Object]) -> Iterator[Any]:
        answer = one.answer(*tasks)
        options.render = answer.render
        yield from map(Line, answer.render(answer.rows)) if options.as_text else answer.rows

    def _rows(self, session: Session, options: Options, one: _OneTask, task: drgn.Object) -> Iterator[Any]:
        try:
            answer = one.answer(task)
            options.render = answer.render
            yield from answer.rows
        except Exception as error:
            session.tell(_forgiven(error))

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay each row out as its command does, an empty line between tasks; texts are laid out already."""
        if options.as_text:
            yield from (row.line for row in rows)
            return
        if _command(options.words) == "ps":
            rows = iter(rows)
            first = next(rows, None)    # what lays them out is known by then
            if first is not None:
                yield from options.render(itertools.chain((first,), rows))
            return
        for number, row in enumerate(rows):
            if number and not isinstance(row, Fact | Line):
                yield ""
            yield from options.render([row])

    def _tasks(self, session: Session, chosen: list[str]) -> Iterator[drgn.Object]:
        if not chosen:
            yield from all_tasks(session)
            return
        active = session.active()
        states = {word for word in chosen if word in STATES.values()}
        names = [Selector(word) for word in chosen if word not in KINDS and word not in states]
        for task in all_tasks(session):
            try:
                if names and not _is_named(task, names):
                    continue
                kernel = bool(task.flags.value_() & _PF_KTHREAD)
                if (kernel and not {"user", "gleader"}.isdisjoint(chosen)) or ("kernel" in chosen and not kernel) \
                        or ("active" in chosen and task.value_() not in active) \
                        or ("gleader" in chosen and task.pid.value_() != task.tgid.value_()) \
                        or (states and STATES.get(state_of(task)) not in states):
                    continue
            except READ_ERRORS:
                continue
            yield task
        missing = strangers(names)
        if missing:
            raise missing


class _OneTask:
    """Runs a command for one task and another."""

    def __init__(self, session: Session, command: str, words: list[str]) -> None:
        """Parse the command, once and not for each of thousands of tasks.

        Raises:
            KdumpyError: what its arguments deserve.
        """
        self._session = session
        self._by_context = command in _BY_CONTEXT
        self._nameless = command in ("set", "vtop") or (command == "net" and {"-s", "-S"}.isdisjoint(words))
        self._line = shlex.join((command, *words))
        self._call = session.call(self._line)
        self._sparse = any(re.match("-[^-]*R", word) for word in words)
        """Many a task has nothing to show: the empty line between those that have is set where all of it meets."""
        self.wants_lines = command == "bt" and self._call is not None and self._call.options.lines

    def answer(self, task: drgn.Object, *others: drgn.Object) -> Answer:
        """Return the rows of the command for a task, and for others where it takes some, and their layout."""
        if self._by_context:
            self._session.set_context(task)
        if self._call is None:
            return self._session.answer(self._line if self._by_context else f"{self._line} {task.value_():x}")
        command, options = self._call
        if not self._by_context:
            command.about((task, *others), options)
        return Answer(command.rows(self._session, options),
                      partial(command.render, session=self._session, options=options))

    def texts(self, lot: tuple[int, list[drgn.Object]]) -> Iterator[str | Exception]:
        """Yield what is shown of some tasks, an empty line between them; an error where one of them fails.

        A task's lines come in one piece: each text that is shown costs as much as it takes to make some lines.
        """
        first, tasks = lot
        for number, task in enumerate(tasks, first):
            self._session.deadline.alive()
            lines: list[str] = []
            failure: Exception | None = None
            try:
                answer = self.answer(task)
                if self._nameless:
                    lines.append(line(named(task)))
                lines.extend(answer.render(answer.rows))
            except Exception as error:      # of this task's data, of whatever kind: what was made until then is shown
                failure = _forgiven(error)
            if lines and self._sparse:
                yield "\n".join(lines)
            elif lines:
                yield Shown("\n".join(["", *lines] if number else lines))
            if failure is not None:
                yield failure


def _command(words: Sequence[str]) -> str | None:
    return next((word for word in words if word in COMMANDS), None)


def _forgiven(error: Exception) -> Exception:
    """Return an error of one task's data, behind which the others follow.

    Raises:
        UsageError: it would be the same for every task.
        KeyboardInterrupt, TookTooLong: it broke somebody's cleaning up.
    """
    if isinstance(error, UsageError):
        raise error
    if isinstance(error.__context__, KeyboardInterrupt | TookTooLong):
        raise error.__context__
    return explain(error)


def _is_named(task: drgn.Object, names: Sequence[Selector]) -> bool:
    pid, comm = task.pid.value_(), task.comm.string_().decode("utf-8", "backslashreplace")
    return takes(names, pid, task.value_(), comm)


COMMAND = Foreach()
