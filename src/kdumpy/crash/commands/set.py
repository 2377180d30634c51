"""`set`: the task that commands are about, and how they show things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drgn.helpers.linux.sched import cpu_curr

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.sys import Fact, context_facts
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_VARIABLES = ("radix", "scroll")


class Set(Command[Fact]):
    """Show or change the task that commands are about, or a variable of the session.

    Variables: radix 10|16 (integers of structures), scroll on|off (long output goes through a pager).

    Example:
        crash> set 1
            PID: 1
        COMMAND: "init"
           TASK: ff29ecb5011f0000  [THREAD_INFO: ff29ecb5011f0000]
            CPU: 1
          STATE: S (sleeping)
    """

    names = ("set",)
    example = "set -p"
    row = Fact
    args = (
        Arg("what", nargs="*", metavar="PID|TASK|VARIABLE", help="a task to change to, or a variable and its value"),
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
            return
        if what and what[0] in _VARIABLES:
            yield self._variable(session, what)
            return
        if options.panic:
            session.set_context(session.prog.crashed_thread().object)
        elif options.cpu is not None:
            session.set_context(cpu_curr(session.prog, session.cpus(options.cpu)[0]))
        elif len(what) == 1:
            session.set_context(session.task(what[0]))
        elif what:
            raise UsageError(f"there is no variable {what[0]!r}", mend=f"there are {', '.join(_VARIABLES)}")
        yield from context_facts(session, session.context)

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
        if value is not None:
            if value not in ("on", "off"):
                raise UsageError("scroll is on or off")
            session.scroll = value == "on"
        return Fact("scroll", "on" if session.scroll else "off")

    def render(self, rows: Iterable[Fact], session: Session, options: Options) -> Iterator[str]:
        """Yield `NAME: value`, the names flush right."""
        for fact in rows:
            yield f"{fact.name:>7}: {fact.value}"


COMMAND = Set()
