"""`set`: the task that commands are about, and how they show things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drgn.helpers.linux.sched import cpu_curr

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.sys import Fact, context_facts
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_VARIABLES = ("radix", "scroll", "timeout", "workers")
_LONGEST_TIMEOUT = 7
"""Digits."""
_MOST_WORKERS = 64
_REMEMBERED = {
    "refresh": "on", "print_max": "200", "print_array": "off", "console": "(not assigned)", "debug": "0",
    "core": "off", "hash": "on", "silent": "off", "edit": "vi", "namelist": "", "zero_excluded": "off",
    "null-stop": "off", "gdb": "off", "scope": "0 (not set)", "offline": "show", "redzone": "on", "error": "default",
}  # fmt: skip
"""crash's other variables, so that a crashrc runs; a value is kept and changes nothing but print_max."""


class Set(Command[Fact]):
    """Show or change the task that commands are about, or a variable of the session.

    Variables: radix 10|16 (integers of structures; `set hex` and `set dec` are the same), scroll on|off (long output
    goes through a pager), print_max NUMBER (elements of an array), timeout SECONDS (a command that works so long
    without a line of output is stopped: on damaged data it would not end; 0: never), workers NUMBER (processes that
    long commands are shared out among; 1: none). crash's others are taken and shown, and change nothing.

    Example:
        crash> set 1
            PID: 1
        COMMAND: "init"
           TASK: ff29ecb5011f0000  [THREAD_INFO: ff29ecb5011f0000]
            CPU: 1
          STATE: TASK_INTERRUPTIBLE
    """

    names = ("set",)
    example = "set -p"
    row = Fact
    args = (
        Arg("what", nargs="*", metavar="PID|TASK|VARIABLE", help="a task to change to, or a variable and its value"),
        Arg("-a", dest="on_cpu", metavar="PID|TASK", help="crash makes a task its CPU's active one: not done here"),
        Arg("-p", dest="panic", action="store_true", help="change to the task that panicked"),
        Arg("-c", dest="cpu", metavar="CPU", help="change to the task on a CPU"),
        Arg("-v", dest="variables", action="store_true", help="show the variables"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Fact]:
        """Change what is asked for; yield the context or the variables."""
        what = options.what
        if options.variables:
            yield Fact("radix", str(session.radix))
            yield Fact("scroll", "on" if session.scroll else "off")
            yield Fact("timeout", f"{session.deadline.seconds:g}")
            yield Fact("workers", str(session.workers))
            for name, value in _REMEMBERED.items():
                yield Fact(name, session.variables.get(name, value))
            return
        if what and what[0] in _REMEMBERED:
            yield self._remembered(session, what)
            return
        if what in (["hex"], ["dec"]):
            what = ["radix", *what]
        if what and what[0] in _VARIABLES:
            yield self._variable(session, what)
            return
        if options.on_cpu:
            raise UsageError("a task cannot be made the active one of its CPU",
                             why="the dump says which one it was", mend="set PID changes the context")
        if options.panic:
            session.set_context(session.prog.crashed_thread().object)
        elif options.cpu is not None:
            session.set_context(cpu_curr(session.prog, session.cpus(options.cpu)[0]))
        elif len(what) == 1:
            session.set_context(session.task(what[0]))
        elif what:
            raise UsageError(f"there is no variable {what[0]!r}",
                             mend=f"there are {', '.join((*_VARIABLES, *_REMEMBERED))}")
        yield from context_facts(session, session.context)

    @staticmethod
    def _remembered(session: Session, words: list[str]) -> Fact:
        name = words[0]
        if len(words) > 1:
            known = _REMEMBERED[name]
            if known in ("on", "off") and words[1] not in ("on", "off"):
                raise UsageError(f"{name} is on or off")
            if name in ("print_max", "debug") and not words[1].isdecimal():
                raise UsageError(f"{name} is a number")
            session.variables[name] = words[1]
            if name == "print_max":
                session.print_max = max(int(words[1]), 1)
        return Fact(name, session.variables.get(name, _REMEMBERED[name]))

    @staticmethod
    def _variable(session: Session, words: list[str]) -> Fact:
        name, value = words[0], words[1] if len(words) > 1 else None
        if name == "radix":
            radix = {"10": 10, "dec": 10, "16": 16, "hex": 16, "0x10": 16}.get(value or str(session.radix))
            if radix is None:
                raise UsageError("radix is 10 or 16")
            session.radix = radix
            session.engine.set_radix(radix)
            return Fact("output radix", f"{radix} ({'decimal' if radix == 10 else 'hex'})")
        if name == "timeout":
            if value is not None:
                if not value.isdecimal() or len(value) > _LONGEST_TIMEOUT:
                    raise UsageError("timeout is a number of seconds, or 0 for none")
                session.deadline.seconds, session.deadline.chosen = int(value), True
            return Fact("timeout", f"{session.deadline.seconds:g}")
        if name == "workers":
            if value is not None:
                if not value.isdecimal() or not 0 < int(value) <= _MOST_WORKERS:
                    raise UsageError(f"workers is a number from 1 to {_MOST_WORKERS}")
                session.workers = int(value)
            return Fact("workers", str(session.workers))
        if value is not None:
            if value not in ("on", "off"):
                raise UsageError("scroll is on or off")
            session.scroll = value == "on"
        return Fact("scroll", "on" if session.scroll else "off")

    def render(self, rows: Iterable[Fact], session: Session, options: Options) -> Iterator[str]:
        """Yield `NAME: value`, the names flush right."""
        for fact in rows:
            yield f"{fact.name:>{14 if options.variables else 7}}: {fact.value}"


def names() -> tuple[str, ...]:
    """Return the variables."""
    return (*_VARIABLES, *_REMEMBERED)


COMMAND = Set()
