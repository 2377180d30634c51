"""`foreach`: a command for many tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator

import drgn
from drgn.helpers.linux.sched import task_state_to_char

from kdumpy.crash.command import Arg, Line, Options, TextCommand
from kdumpy.crash.commands.ps import STATES
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import UsageError
from kdumpy.kernel.tasks import task_objects

_COMMANDS = ("bt", "vm", "task", "files", "net", "set", "ps", "sig", "vtop")
_PF_KTHREAD = 0x00200000
"""include/linux/sched.h."""


class Foreach(TextCommand):
    """Run a command for every task, or for some: `foreach [TASKS…] COMMAND [OPTIONS]`.

    TASKS: process ids, addresses, names, a regular expression in single quotes, a state (RU IN UN ID ST ZO …),
    and user, kernel, gleader, active. Commands: bt vm task files net set ps sig vtop.

    Example:
        crash> foreach UN bt
    """

    names = ("foreach",)
    example = "foreach active bt"
    args = (Arg("words", nargs="...", metavar="[TASKS…] COMMAND [OPTIONS]", help="which tasks, and what to do"),)

    def rows(self, session: Session, options: Options) -> Iterator[Line]:
        """Run the command for each task; what it says goes where the output goes."""
        words = options.words
        at = next((number for number, word in enumerate(words) if word in _COMMANDS), None)
        if at is None:
            raise UsageError("foreach wants a command", mend=f"one of {' '.join(_COMMANDS)}")
        chosen, command, rest = words[:at], words[at], words[at + 1:]
        found = False
        context = session.context
        try:
            for number, task in enumerate(self._tasks(session, chosen)):
                if number and command in ("bt", "vm", "files", "task", "sig", "net"):
                    yield Line("")
                found = True
                address = f"{task.value_():x}"
                if command in ("net", "set"):
                    session.set_context(task)
                    session.run(" ".join((command, *rest)))
                else:
                    session.run(" ".join((command, *rest, address)))
        finally:
            if command in ("net", "set"):
                session.set_context(context)
        if not found:
            raise UsageError("no task is like this", where=" ".join(chosen))

    def _tasks(self, session: Session, chosen: list[str]) -> Iterator[drgn.Object]:
        active = session.active()
        kinds = {"user", "kernel", "gleader", "active"}
        states = {word for word in chosen if word in STATES.values()}
        names = [word for word in chosen if word not in kinds and word not in states]
        for task in task_objects(session.prog):
            try:
                kernel = bool(task.flags.value_() & _PF_KTHREAD)
                if ("user" in chosen and kernel) or ("kernel" in chosen and not kernel) \
                        or ("active" in chosen and task.value_() not in active) \
                        or ("gleader" in chosen and task.pid.value_() != task.tgid.value_()) \
                        or (states and STATES.get(task_state_to_char(task)) not in states):
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
