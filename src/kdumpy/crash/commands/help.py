"""`help`: which commands there are, and what each does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdumpy.crash import pipes, registry
from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_TOPICS = {"pipes": pipes.HELP, "input": """\
COMMAND ARGUMENTS; COMMAND …    several commands in a line; '#' begins a comment
< FILE                          the lines of a file
!PROGRAM                        a program of the system; '!' alone a shell
h, r, r NUMBER, r BEGIN         the lines of this session; the last again, one of them, the last that begins so
alias NAME COMMAND              a short name; man, dmesg, sf, sn, hex, dec, px, pd are there
$1, $, $$                       values that 'p' has shown
print, ptype, x/3i, info        words of gdb's: 'help gdb'
TAB completes names; up, down and Ctrl-R go through the lines of earlier sessions; Ctrl-C ends a command.""",
           "output": """\
COMMAND | PROGRAM               the output through a program of the system
COMMAND > FILE, >> FILE         into a file, behind what it holds
COMMAND |: FILTER               filter, sort and count the rows themselves: 'help pipes'
COMMAND --json                  the rows as JSON
set scroll off, set radix 16    no pager; integers of structures in hexadecimal"""}
"""What is explained besides the commands."""
_ABOUT = {"input": "what can be typed", "output": "where the output goes"}


@dataclass(frozen=True)
class HelpRow:
    """The help of a command."""

    name: str
    summary: str
    origin: str
    """kdumpy, drgn or extension."""
    text: str
    """The whole help; empty in the list of all commands."""


class Help(Command[HelpRow]):
    """List the commands, or explain some.

    Example:
        crash> help sym
    """

    names = ("help",)
    example = "help sym"
    row = HelpRow
    args = (Arg("which", nargs="*", metavar="COMMAND", help="the commands to explain; 'all' explains every one"),)

    def rows(self, session: Session, options: Options) -> Iterator[HelpRow]:
        """Yield the help of the commands that are named, or one line of each."""
        session.load_packages()
        ours, theirs = {**registry.COMMANDS, **dict.fromkeys(registry.EXTENSIONS, "")}, session.engine.names
        wanted = options.which
        if not wanted:
            for name in sorted({*ours, *theirs}):
                yield HelpRow(name, registry.summary(name) if name in ours else "", _origin(name), "")
            return
        if wanted == ["all"]:
            wanted = sorted({*ours, *theirs})
        for name in wanted:
            if name not in _TOPICS:     # `output` is a word of gdb's, too
                name = registry.BUILT_IN_ALIASES.get(name, name).split()[0]
            if name in ours:
                yield HelpRow(name, registry.summary(name), _origin(name), registry.help_of(name))
            elif name in theirs:
                yield HelpRow(name, "", "drgn", session.engine.help(name))
            elif name in _TOPICS:
                yield HelpRow(name, _ABOUT.get(name, "what can stand behind a command"), "kdumpy", _TOPICS[name])
            elif name in registry.LEAVING:
                yield HelpRow(name, "end the session", "kdumpy", f"{name}: end the session")
            else:
                raise UsageError(f"there is no command {name!r}", mend="see 'help'")

    def render(self, rows: Iterable[HelpRow], session: Session, options: Options) -> Iterator[str]:
        """Yield the list in columns, or the texts."""
        found = list(rows)
        if options.which:
            for number, row in enumerate(found):
                if number:
                    yield ""
                yield row.text
            return
        names = [row.name for row in found] + ["exit", "q"]
        height = -(-len(names) // 5)
        for at in range(height):
            yield "".join(f"{name:<16}" for name in names[at::height]).rstrip()
        yield ""
        yield "'help COMMAND' explains one. Commands end in '| PROGRAM', '> FILE' or '>> FILE'; '!PROGRAM' runs one;"
        yield "';' separates commands; a structure's name alone shows its layout; --json answers in JSON;"
        yield "'|: FILTER' filters, sorts and counts the rows themselves: 'help pipes'."


def _origin(name: str) -> str:
    return "extension" if name in registry.EXTENSIONS else "kdumpy" if name in registry.COMMANDS else "drgn"


COMMAND = Help()
