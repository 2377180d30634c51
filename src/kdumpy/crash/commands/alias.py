"""`alias`: short names for commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdumpy.crash import registry
from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError


@dataclass(frozen=True)
class AliasRow:
    """A short name."""

    alias: str
    command: str
    origin: str
    """builtin, or user."""


class Alias(Command[AliasRow]):
    """Show the aliases, make one, or take one away (give its name and nothing in quotes).

    Example:
        crash> alias kt ps -k
        ORIGIN  ALIAS  COMMAND
        user    kt     ps -k
    """

    names = ("alias",)
    example = "alias kt ps -k"
    row = AliasRow
    args = (Arg("words", nargs="...", metavar="NAME COMMAND", help="the name and what it stands for"),)

    def rows(self, session: Session, options: Options) -> Iterator[AliasRow]:
        """Change an alias; yield it, or all."""
        words = options.words
        if len(words) > 1:
            name, meant = words[0], " ".join(words[1:])
            if name in registry.COMMANDS or name in registry.LEAVING:
                raise UsageError(f"{name!r} is a command and cannot be an alias")
            if not meant:
                session.aliases.pop(name, None)
                return
            session.aliases[name] = meant
        for name, meant in registry.BUILT_IN_ALIASES.items():
            if name not in session.aliases and (not words or words[0] == name):
                yield AliasRow(name, meant, "builtin")
        for name, meant in session.aliases.items():
            if not words or words[0] == name:
                yield AliasRow(name, meant, "user")

    def render(self, rows: Iterable[AliasRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the aliases out in columns."""
        cells = ((row.origin, row.alias, row.command) for row in rows)
        yield from columns(("ORIGIN", "ALIAS", "COMMAND"), cells, "<<<")


COMMAND = Alias()
