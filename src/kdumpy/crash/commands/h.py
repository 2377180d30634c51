"""`h`: the lines of this session; `r` runs one of them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdumpy.crash.command import Command, Options
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump, UsageError


@dataclass(frozen=True)
class HistoryRow:
    """A line that was run."""

    number: int
    line: str


class History(Command[HistoryRow]):
    """List the lines of this session. `r` runs the last again, `r 5` the fifth, `r ps` the last that begins so.

    Example:
        crash> h
        [1] sys
        [2] h
    """

    names = ("h",)
    example = "h"
    row = HistoryRow

    def rows(self, session: Session, options: Options) -> Iterator[HistoryRow]:
        """Yield the lines, the oldest first."""
        for number, line in session.lines.items():
            yield HistoryRow(number, line)

    def render(self, rows: Iterable[HistoryRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the lines out as crash does."""
        for row in rows:
            yield f"[{row.number}] {row.line}"


def recalled(session: Session, text: str) -> str:
    """Return the line that `r`, `r NUMBER` or `r BEGIN` stands for; any other line as it is.

    Raises:
        NotInDump: there is none.
        UsageError: it would run without an end.
    """
    words = text.split(None, 1)
    if words[:1] != ["r"]:
        return text
    wanted = words[1].strip() if len(words) > 1 else ""
    if wanted.isdecimal() and len(wanted) < 10:
        found = session.lines.get(int(wanted))
    else:
        found = next((line for line in reversed(session.lines.values()) if line.startswith(wanted)), None)
    if found is None:
        raise NotInDump(f"no line of this session is {wanted or 'there'!r}", mend="see 'h'")
    if found.split(None, 1)[:1] == ["r"]:
        raise UsageError("a line that repeats another cannot be repeated", where=found)
    return found


COMMAND = History()
