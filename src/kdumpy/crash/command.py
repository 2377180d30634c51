"""What a command of the shell is: a docstring for its help, arguments as data, rows as values, a layout."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

import drgn

from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

Row = TypeVar("Row")
"""A frozen dataclass."""

Options = argparse.Namespace
"""The arguments of one call, by name."""


class Arg:
    """An argument, as argparse declares it. With `engine`, its presence hands the call to drgn's own command."""

    def __init__(self, *names: str, engine: bool = False, **keywords: Any) -> None:
        self.names = names
        self.engine = engine
        self.keywords = keywords

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it to a parser."""
        keywords = dict(self.keywords)
        if self.engine:
            keywords.setdefault("action", "append")
            keywords.setdefault("nargs", "?")
            keywords.setdefault("const", "")
            keywords.setdefault("metavar", "…")
        parser.add_argument(*self.names, **keywords)


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a command whose answer is text."""

    line: str


class Command(Generic[Row]):
    """A command. A subclass is one file of `kdumpy.crash.commands`.

    `rows` reads the dump and yields frozen dataclasses, whose fields are the keys of `--json`;
    `render` lays them out as crash does.
    """

    names: ClassVar[tuple[str, ...]]
    """The names it is called by."""
    args: ClassVar[tuple[Arg, ...]] = ()
    row: ClassVar[type[Any]]
    example: ClassVar[str]
    """A line that a test runs; it stands in the docstring behind `crash> `."""

    def parser(self, name: str) -> argparse.ArgumentParser:
        """Return the parser of its arguments."""
        parser = _Parser(prog=name, description=inspect.cleandoc(self.__doc__ or ""), add_help=False,
                         allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        for argument in self.args:
            argument.add_to(parser)
        parser.add_argument("--json", action="store_true", help="answer in JSON")
        parser.add_argument("--help", action="store_true", help="show this help")
        return parser

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Return the arguments of a call; options may stand between and behind the others.

        Raises:
            UsageError: they are wrong.
        """
        parser = self._ready_parser(name)
        if any(argument.keywords.get("nargs") == "..." for argument in self.args):
            return parser.parse_args(words)
        return parser.parse_intermixed_args(words)

    def _ready_parser(self, name: str) -> argparse.ArgumentParser:
        """Return the parser of a name, made once: `foreach` calls a command for thousands of tasks."""
        parsers: dict[str, argparse.ArgumentParser] = self.__dict__.setdefault("_parsers", {})
        if name not in parsers:
            parsers[name] = self.parser(name)
            # parse_intermixed_args() words the usage at each call, for an error that _Parser words by itself.
            parsers[name].usage = argparse.SUPPRESS
        return parsers[name]

    def for_engine(self, words: Sequence[str]) -> bool:
        """Whether one of the options is only known to drgn's own command of this name."""
        names = [name for argument in self.args if argument.engine for name in argument.names]
        short = {name[1] for name in names if not name.startswith("--")}
        own = {name[1] for argument in self.args if not argument.engine for name in argument.names
               if name.startswith("-") and not name.startswith("--")}
        for word in words:
            if word == "--":
                return False
            if word.startswith("-") and len(word) > 1 and not word.startswith("--"):
                if word[1] in own and len(word) > 2 and word[2:].isdecimal():
                    continue
                if short & set(word[1:]):
                    return True
        return False

    def about(self, tasks: Sequence[drgn.Object], options: Options) -> None:
        """Make a call that is parsed already be about some tasks, as `foreach` does; of commands that take tasks."""
        options.tasks = tasks

    def rows(self, session: Session, options: Options) -> Iterator[Row]:
        """Yield the answer as values."""
        raise NotImplementedError

    def render(self, rows: Iterable[Row], session: Session, options: Options) -> Iterator[str]:
        """Yield the lines of the answer."""
        for row in rows:
            yield str(row)


class TextCommand(Command[Line]):
    """A command whose answer is lines of text."""

    row = Line

    def render(self, rows: Iterable[Line], session: Session, options: Options) -> Iterator[str]:
        """Yield the lines."""
        for row in rows:
            yield row.line


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where=self.prog, mend=f"see 'help {self.prog}'")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise UsageError(message or "wrong usage", where=self.prog)


def as_json(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Return rows as plain values."""
    return [dataclasses.asdict(row) for row in rows]


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> Iterator[str]:
    """Lay rows out in columns: `align` has a letter a column, `<` left or `>` right.

    The widths are those of the widest cells, so all rows are taken first.
    """
    table = (header, *rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # As of printf: format() takes twice as long.
    layout = "  ".join(f"%{'-' if side == '<' else ''}{width}s" for side, width in zip(align, widths, strict=True))
    for cells in table:
        yield (layout % tuple(cells)).rstrip()
