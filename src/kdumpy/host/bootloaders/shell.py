"""Files of shell assignments, such as /etc/default/grub: read without running them, edited one value at a time.

A subset of POSIX sh (XCU 2.3, 2.10), enough for what such files hold: assignments, comments, quotes, expansions,
conditions around them. What a value takes from a command's output is not known here, and stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kdumpy.errors import HostError
from kdumpy.host.bootloaders import parameters

LARGEST = 1 << 20
"""Characters of a file that is edited; /etc/default/grub has about a thousand."""

OPAQUE = "\ufffc"
"""Stands for an expansion in a value's text: one letter, no blank."""

OPENS = {"if", "while", "until", "for", "case", "select", "{"}
CLOSES = {"fi", "done", "esac", "}"}
GOES_ON = {"then", "else", "elif", "do", "in", "!", "time"}
DECLARES = {"export", "readonly", "declare", "typeset", "local"}

ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")


class Unit(NamedTuple):
    """One letter of a value, or one expansion."""

    text: str
    """The letter; OPAQUE for an expansion."""
    start: int
    end: int
    region: int
    """Index of the value's region it stands in."""
    variable: str
    """Name of the variable that is expanded, where it is just that."""


class Region(NamedTuple):
    """A stretch of a value in one kind of quotes."""

    quote: str
    """Empty, `'` or `"`."""
    start: int
    end: int
    """Without the quotes."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """`NAME=value` in a file."""

    name: str
    adds: bool
    """It is `+=`."""
    certain: bool
    """It is executed whatever happens: no condition, no function, no pipe around it."""
    start: int
    end: int
    """The value's place in the file."""
    units: tuple[Unit, ...]
    regions: tuple[Region, ...]

    @property
    def text(self) -> str:
        """The value, with OPAQUE for each expansion."""
        return "".join(unit.text for unit in self.units)

    def expanded(self, variables: Mapping[str, str]) -> str:
        """Return the value with the variables that are known; other expansions are OPAQUE."""
        return "".join(variables.get(unit.variable, "") if unit.variable else unit.text for unit in self.units)


def assignments(text: str, where: str) -> list[Assignment]:
    """Return a file's assignments in order.

    Args:
        text: all of it.
        where: its path, for errors.

    Raises:
        HostError: it is no text, too large, or a quote is open at its end.
    """
    if len(text) > LARGEST:
        raise HostError("the file is too large to be edited", where=where, why=f"{len(text)} characters",
                        mend="it should hold settings alone")
    if "\0" in text:
        raise HostError("the file is no text", where=where, why=f"a NUL at offset {text.index(chr(0))}")
    return list(_Reader(text, where).read())


def values(text: str, where: str) -> dict[str, str]:
    """Return what a file's variables are after it was read; a part that is not known is OPAQUE, HostError as above."""
    found: dict[str, str] = {}
    for one in assignments(text, where):
        found[one.name] = (found.get(one.name, "") if one.adds else "") + one.expanded(found)
    return found


class _Reader:
    """Goes through a file once."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where, self._at = text, where, 0
        self._depth = self._parentheses = 0
        self._heredocs: list[tuple[str, bool]] = []

    def read(self) -> Iterator[Assignment]:
        text, pending, state, joined = self._text, list[Assignment](), "start", False
        while self._at < len(text):
            letter = text[self._at]
            if letter in " \t":
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._at += 2
            elif letter == "#":
                end = text.find("\n", self._at)
                self._at = end if end >= 0 else len(text)
            elif letter in "\n;&|()":
                several = text[self._at:self._at + 2] in ("&&", "||", ";;")
                operator = text[self._at:self._at + (2 if several else 1)]
                self._at += len(operator)
                alone = not joined and operator not in ("&", "|", "(")      # those start a process of their own
                if state != "command":
                    yield from pending if alone else (_doubtful(one) for one in pending)
                pending, state = [], "start"
                joined = operator in ("&&", "||", "|", "&") or (joined and operator not in ("\n", ";"))
                if operator == "(" or (operator == ")" and self._parentheses):      # the other ) is a case's pattern
                    step = 1 if operator == "(" else -1
                    self._parentheses, self._depth = self._parentheses + step, max(0, self._depth + step)
                if operator == "\n":
                    self._skip_heredocs()
            elif letter in "<>":
                self._redirection()
            else:
                state = self._command_word(pending, state)
        if state != "command":
            yield from (_doubtful(one) for one in pending) if joined else pending

    def _command_word(self, pending: list[Assignment], state: str) -> str:
        """Read one word; return what the command is then: start, declaring, or command."""
        start = self._at
        match = ASSIGNED.match(self._text, start)
        if match and state != "command":
            self._at = match.end()
            units, regions = self._word()
            pending.append(Assignment(match[1], bool(match[2]), not self._depth, match.end(), self._at, units, regions))
            return state
        self._word()
        word = self._text[start:self._at]
        if state == "start" and word in OPENS:
            self._depth += 1
        elif state == "start" and word in CLOSES:
            self._depth -= self._depth > 0
        elif state == "start" and word in DECLARES:
            return "declaring"
        elif state == "declaring" or (state == "start" and word in GOES_ON):
            return state
        elif state == "start":
            return "command"
        return "command" if word in ("for", "case", "select") else state

    def _word(self) -> tuple[tuple[Unit, ...], tuple[Region, ...]]:
        """Read a word to its end."""
        text, units, regions = self._text, list[Unit](), list[Region]()
        while self._at < len(text) and text[self._at] not in " \t\n;&|()<>":
            quote, start = text[self._at], self._at
            if quote == "'":
                end = self._closing("'", start)
                regions.append(Region("'", start + 1, end))
                units += [Unit(text[at], at, at + 1, len(regions) - 1, "") for at in range(start + 1, end)]
                self._at = end + 1
            elif quote == '"':
                self._at += 1
                regions.append(Region('"', self._at, self._at))
                while self._at < len(text) and self._letter(units, len(regions) - 1, '"'):
                    pass
                if self._at >= len(text):
                    raise self._open('"', start)
                regions[-1] = Region('"', start + 1, self._at)
                self._at += 1
            else:
                if not regions or regions[-1].quote or regions[-1].end != start:
                    regions.append(Region("", start, start))
                self._letter(units, len(regions) - 1, "")
                regions[-1] = Region("", regions[-1].start, self._at)
        return tuple(units), tuple(regions)

    def _letter(self, units: list[Unit], region: int, quote: str) -> bool:
        """Read one letter or expansion, not in single quotes; False at the closing quote."""
        text, start = self._text, self._at
        letter, variable, shown = text[start], "", text[start]
        if quote and letter == quote:
            return False
        if letter == "\\" and start + 1 < len(text) and (not quote or text[start + 1] in '$`"\\\n'):
            self._at += 2
            shown = "" if text[start + 1] == "\n" else text[start + 1]
        elif letter == "$" and text[start + 1:start + 2] in ("(", "{"):
            match = VARIABLE.match(text, start)
            variable, shown = (match[2] if match else ""), OPAQUE
            self._at = self._nested(start + 2, ")" if text[start + 1] == "(" else "}")
        elif letter == "$" and (match := VARIABLE.match(text, start)):
            variable, shown, self._at = match[1], OPAQUE, match.end()
        elif letter == "`":
            self._at, shown = self._closing("`", start) + 1, OPAQUE
        elif letter == "$" and text[start + 1:start + 2] in (*"0123456789@*#?-$!",):
            shown, self._at = OPAQUE, start + 2
        elif not quote and text.startswith("$'", start):
            shown, self._at = OPAQUE, self._closing("'", start + 1) + 1
        else:
            self._at += 1
        if shown:
            units.append(Unit(shown, start, self._at, region, variable))
        return True

    def _closing(self, quote: str, start: int) -> int:
        """Return where the quote that opens at `start` closes; a backslash counts within backquotes only."""
        at = start + 1
        while at < len(self._text) and self._text[at] != quote:
            at += 2 if quote == "`" and self._text[at] == "\\" else 1
        if at >= len(self._text):
            raise self._open(quote, start)
        return at

    def _nested(self, at: int, closing: str) -> int:
        """Return the end of a `$(…)` or `${…}` whose inside starts at `at`."""
        start, opening, depth = at, "(" if closing == ")" else "{", 1
        while at < len(self._text):
            letter = self._text[at]
            if letter == "\\":
                at += 1
            elif letter == "'" and closing == ")":
                at = self._closing("'", at)
            elif letter == "`":
                at = self._closing("`", at)
            elif letter == '"':
                at += 1
                while at < len(self._text) and self._text[at] != '"':
                    at += 2 if self._text[at] == "\\" else 1
            elif letter in (opening, closing):
                depth += 1 if letter == opening else -1
                if not depth:
                    return at + 1
            at += 1
        raise self._open(opening, start - 1)

    def _redirection(self) -> None:
        """Pass over a redirection; a here-document's text comes after the line."""
        match = re.compile(r"<<(-?)[ \t]*|[<>]+[&|]?[ \t]*").match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        start = self._at
        self._word()
        if match[0].startswith("<<") and not match[0].startswith("<<<"):
            self._heredocs.append((re.sub(r"[\\'\"]", "", self._text[start:self._at]), bool(match[1])))

    def _skip_heredocs(self) -> None:
        for word, tabs in self._heredocs:
            while self._at < len(self._text):
                end = self._text.find("\n", self._at)
                line = self._text[self._at:end if end >= 0 else len(self._text)]
                self._at = end + 1 if end >= 0 else len(self._text)
                if (line.lstrip("\t") if tabs else line) == word:
                    break
        self._heredocs = []

    def _open(self, quote: str, start: int) -> HostError:
        line = self._text.count("\n", 0, start) + 1
        return HostError("the file is no shell script that can be read", where=f"{self._where}, line {line}",
                         why=f"a {quote} that is not closed", mend="correct the file; its own tools fail on it, too")


def _doubtful(one: Assignment) -> Assignment:
    return Assignment(one.name, one.adds, False, one.start, one.end, one.units, one.regions)


def edited(text: str, assignment: Assignment, name: str, value: str | None, where: str) -> str:
    """Return a file with a kernel parameter set in, or removed from, the command line that an assignment holds.

    Raises:
        HostError: the value is quoted in a way that cannot be kept.
    """
    edits = parameters.splices(assignment.text, name, value)
    if not edits:
        return text
    spliced = text
    for edit in edits:
        done = _spliced(spliced, assignment, edit)
        if done is None:
            raw = _rebuilt(text, assignment, edits, where)
            return text[:assignment.start] + raw + text[assignment.end:]
        spliced = done
    return spliced


def _spliced(text: str, assignment: Assignment, edit: parameters.Splice) -> str | None:
    """Return the file with one edit made in place, or None when it reaches over differing quotes."""
    units, regions = assignment.units, assignment.regions
    if edit.start < len(units):
        touched = units[edit.start:edit.end] or units[edit.start:edit.start + 1]
        region = regions[touched[0].region]
        start, end = touched[0].start, touched[-1].end if edit.end > edit.start else touched[0].start
        if any(unit.region != touched[0].region for unit in touched):
            return None
    elif regions and regions[-1].end + len(regions[-1].quote) == assignment.end:
        region = regions[-1]
        start = end = region.end
    else:
        return None
    new = _quoted(edit.new, region.quote)
    return None if new is None else text[:start] + new + text[end:]


def _quoted(text: str, quote: str) -> str | None:
    """Return a text as it stands within quotes of a kind; None: it cannot."""
    if quote == '"':
        return _escaped(text)
    if quote == "'":
        return text if "'" not in text else None
    return text if PLAIN.fullmatch(text) else None


def _escaped(text: str) -> str:
    return re.sub(r'([$`"\\])', r"\\\1", text)


def quoted(text: str) -> str:
    """Return a text as a shell word in double quotes."""
    return f'"{_escaped(text)}"'


def _rebuilt(text: str, assignment: Assignment, edits: list[parameters.Splice], where: str) -> str:
    """Return the whole value written anew, in one pair of double quotes, with its expansions and the edits made."""
    parts = []
    for unit in assignment.units:
        raw = text[unit.start:unit.end]
        if unit.text == OPAQUE and raw.startswith("$'"):
            raise HostError("a value is quoted in a way that cannot be edited", where=where,
                            why=f"{assignment.name} holds {raw[:40]}", mend="edit the parameter by hand")
        if unit.variable:           # a letter may follow that stood in other quotes
            raw = f"${{{unit.variable}}}"
        parts.append(raw if unit.text == OPAQUE and raw != OPAQUE else _escaped(unit.text))
    for start, end, new in edits:
        parts[start:end] = [_escaped(new)]
    return '"' + "".join(parts) + '"'


def assigned(text: str, name: str, value: str, where: str) -> str:
    """Return a file in which a variable has a value: its last assignment's is replaced, else a line is added.

    Raises:
        HostError: as `assignments`, or only a condition sets it.
    """
    found = [one for one in assignments(text, where) if one.name == name]
    new = value if PLAIN.fullmatch(value) else quoted(value)
    if not found:
        return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{name}={new}\n"
    last = found[-1]
    if not last.certain or last.adds:
        raise HostError(f"{name} is set in a way that cannot be edited", where=where,
                        why="within a condition, or by +=", mend=f"write {name}={new} at the end of the file")
    raw = text[last.start:last.end]
    if raw[:1] == raw[-1:] == '"' and len(raw) > 1:
        new = quoted(value)
    return text[:last.start] + new + text[last.end:]
