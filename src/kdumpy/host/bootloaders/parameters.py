"""Edits of a kernel command line that leave everything else as it is, byte for byte.

Source: lib/cmdline.c, next_arg(): words are split at white space outside of double quotes; `-` and `_` are the same in
a name; kernel/params.c, parse_args(): what follows `--` belongs to init.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kdumpy.errors import UsageError

BLANKS = " \t\n\r\v\f"

NAME = re.compile(r"[A-Za-z0-9_.-]+")

SEVERAL = frozenset({"crashkernel"})
"""Parameters that the kernel takes more than once, and whose values have no blanks: a value of theirs may be several,
with a blank between (`512M,high 128M,low`), and each becomes a word."""


class Word(NamedTuple):
    """One word of a command line."""

    start: int
    end: int
    name: str
    """The parameter's, as the kernel compares it."""
    value: str | None
    """Without its quotes; None: it has no `=`."""


class Splice(NamedTuple):
    """One edit: what stands at [start, end) becomes `new`."""

    start: int
    end: int
    new: str


def words(text: str) -> list[Word]:
    """Return the words of a command line up to a `--`, which ends the kernel's own; that is not among them."""
    found = []
    for start, end in _spans(text):
        raw = text[start:end]
        if raw == "--":
            break
        bare = raw[1:].removesuffix('"') if raw.startswith('"') else raw
        name, equals, value = bare.partition("=")
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        found.append(Word(start, end, _same(name), value if equals else None))
    return found


def _spans(text: str) -> list[tuple[int, int]]:
    spans, start, quoted = [], -1, False
    for at, letter in enumerate(text):
        if letter in BLANKS and not quoted:
            if start >= 0:
                spans.append((start, at))
            start = -1
            continue
        if start < 0:
            start = at
        if letter == '"':
            quoted = not quoted
    if start >= 0:
        spans.append((start, len(text)))
    return spans


def _same(name: str) -> str:
    return name.replace("-", "_")


def values(text: str, name: str) -> list[str | None]:
    """Return the values of all parameters of that name, in order."""
    return [word.value for word in words(text) if word.name == _same(name)]


def each(name: str, value: str) -> list[str]:
    """Return the values that a value stands for: one, but for those of SEVERAL."""
    return (value.split(" ") if _same(name) in SEVERAL else None) or [value]


def spell(name: str, value: str) -> str:
    """Return a parameter as a word: `name=value`, quoted where blanks need it; an empty value is the bare name.

    Those of SEVERAL are as many words as they have values.

    Raises:
        UsageError: no quoting makes it one word.
    """
    return " ".join(_spelled(name, one) for one in each(name, value))


def _spelled(name: str, value: str) -> str:
    if not NAME.fullmatch(name) or '"' in value or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise UsageError("this is no kernel parameter", where=f"{name}={value}"[:80],
                         mend="letters, digits, dots, dashes in the name; no quotes or control characters in the value")
    if not value:
        return name
    return f'{name}="{value}"' if any(letter in BLANKS for letter in value) else f"{name}={value}"


def splices(text: str, name: str, value: str | None) -> list[Splice]:
    """Return the edits that set a parameter to a value (None: remove it), from the end of the text to its start.

    The last one of that name is replaced where it stands and the others are removed, each with one blank; a new one
    goes to the end, before a `--`. Nothing to do: no edits.
    """
    found = [word for word in words(text) if word.name == _same(name)]
    edits = []
    if value is not None:
        new = spell(name, value)
        if not found:
            return [_added(text, new)]
        if len(found) > 1 and [word.value for word in found] == each(name, value):
            return []
        last = found.pop()
        if text[last.start:last.end] != new and not (last.value == value or (not value and last.value is None)):
            edits.append(Splice(last.start, last.end, new))
    for word in reversed(found):
        start, end = word.start, word.end
        if start and text[start - 1] in " \t":          # a line's end stays
            start -= 1
        elif end < len(text) and text[end] in " \t":
            end += 1
        edits.append(Splice(start, end, ""))
    return edits


def _added(text: str, new: str) -> Splice:
    """Return the edit that adds a word: at the end before the line's end, or before init's own words."""
    for start, end in _spans(text):
        if text[start:end] == "--":
            return Splice(start, start, new + " ")
    at = len(text.rstrip("\r\n"))
    return Splice(at, at, f" {new}" if text[:at] else new)


def edit(text: str, name: str, value: str | None) -> str:
    """Return a command line with a parameter set or removed."""
    for start, end, new in splices(text, name, value):
        text = text[:start] + new + text[end:]
    return text
