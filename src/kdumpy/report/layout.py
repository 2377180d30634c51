"""Lines for a terminal or a file: width, indentation, colour, and nothing that a terminal would obey."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from enum import StrEnum

from kdumpy.units import printable

NARROWEST, WIDEST = 40, 120
"""Columns: narrower is not wrapped further, wider lines are hard to read."""

_COMMAND = re.compile("`[^`]{1,60}`")
"""What is to be copied whole, and so stands on one line."""
_KEPT = "\u2800"
"""Stands for a space that no line ends at; no letter of any text."""
_SGR = re.compile("\x1b\\[[0-9;]*m")


class Style(StrEnum):
    """What a piece of text is; the value is its SGR code (ECMA-48)."""

    PLAIN = ""
    BAD = "1;31"
    GOOD = "1;32"
    DOUBTFUL = "1;33"
    TITLE = "1"
    HEADING = "1;36"
    CULPRIT = "1;31"
    COMMAND = "32"
    QUIET = "2"


class Page:
    """Collects lines. Every text that goes in is made harmless."""

    def __init__(self, width: int, colour: bool) -> None:
        self.width = max(NARROWEST, min(width, WIDEST))
        self.colour = colour
        self._lines: list[str] = []

    @property
    def height(self) -> int:
        """How many rows of a screen the lines take; what is wider than it takes several."""
        return sum(-(-max(1, len(_SGR.sub("", line))) // self.width) for line in self._lines)

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def paint(self, text: str, style: Style) -> str:
        """Return one line of text, harmless, in a style."""
        shown = printable(text.replace("\n", " ").replace("\t", " "))
        return f"\x1b[{style}m{shown}\x1b[0m" if self.colour and style else shown

    def line(self, text: str = "", style: Style = Style.PLAIN, *, indent: int = 0) -> None:
        """Add one line, as long as it is."""
        self._lines.append(" " * indent + self.paint(text, style) if text else "")

    def pieces(self, *pieces: tuple[str, Style], indent: int = 0) -> None:
        """Add one line of differently styled pieces."""
        self._lines.append(" " * indent + "".join(self.paint(text, style) for text, style in pieces))

    def paragraph(self, text: str, style: Style = Style.PLAIN, *, indent: int = 0, hanging: int = 0,
                  mark: str = "", most: int = 0) -> None:
        """Add a paragraph, wrapped; `mark` stands before its first line, `hanging` columns before the others.

        What goes beyond `most` lines (0: any number) is left out, with a sign that it is.
        """
        room = self.width - indent
        whole = _COMMAND.sub(lambda found: found[0].replace(" ", _KEPT),
                             printable(text.replace("\n", " ").replace("\t", " ")))
        wrapped = [line.replace(_KEPT, " ") for line in textwrap.wrap(
            whole, max(room - hanging, 20), break_on_hyphens=False, break_long_words=False)] or [""]
        if most and len(wrapped) > most:
            last = wrapped[most - 1]
            if len(last) + 2 > max(room - hanging, 20):
                last = last.rpartition(" ")[0] or last[:-2]
            wrapped[most - 1:] = [last.rstrip(" ,;:.(") + " …"]
        for number, part in enumerate(wrapped):
            begin = mark.ljust(hanging) if number == 0 else " " * hanging
            self._lines.append(" " * indent + begin + self.paint(part, style))

    def heading(self, text: str) -> None:
        """Add a heading, with an empty line before it."""
        self.line()
        self.line(text, Style.HEADING)

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """Add name and value, a row each; empty values are left out."""
        kept = [(name, value) for name, value in rows if value]
        column = max((len(name) for name, _ in kept), default=0) + 2
        for name, value in kept:
            self.paragraph(value, indent=2, hanging=column, mark=name)
