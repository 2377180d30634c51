"""The shell's line syntax: `COMMAND ARGUMENTS |: filter | shell pipeline`, `> file`, `>> file`, `;`, `!shell`, `#`.

Source: crash, cmdline.c (setup_redirect, multi_strings) and its "help input" and "help output" pages. A pipeline
is given to the shell as it was typed; nothing out of a dump ever becomes a part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdumpy.errors import UsageError

_QUOTES = "'\""
_EXPRESSIONS = ("p", "px", "pd", "print", "output", "inspect", "x", "gdb", "g", "eval", "whatis", "ptype", "py", "drgn")
"""Commands in whose arguments a `>` may compare."""
_OPENING, _CLOSING = "([{", ")]}"


class Quoted(str):
    """A word that stood in single quotes: to `ps` and `foreach` a regular expression, as it is to crash."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ParsedLine:
    """One command as it was typed, taken apart."""

    text: str = ""
    """The command and its arguments, as typed: without pipeline, redirection and comment."""
    words: tuple[str, ...] = ()
    """The same in words, without the quotes; what single quotes held is `Quoted`."""
    pipeline: str | None = None
    """What follows the `|`, for the shell."""
    filters: tuple[str, ...] = ()
    """What follows each `|:` (kdumpy.crash.pipes)."""
    file: str | None = None
    """Where the output goes."""
    append: bool = False
    """It goes behind what the file holds (`>>`)."""
    shell: str | None = None
    """A command for the shell alone (`!date`); empty for an interactive shell."""
    source: str | None = None
    """A file whose lines are run (`< file`)."""

    @property
    def name(self) -> str:
        """The command's name; empty for an empty line."""
        return self.words[0] if self.words else ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words behind the name."""
        return self.words[1:]


def parse(text: str) -> list[ParsedLine]:
    """Take a line apart into its commands.

    Raises:
        UsageError: a quote is not closed, or a redirection names no file.
    """
    return [line for line in map(_command, _split(text)) if line != ParsedLine()]


def _scan(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield (position, character, depth of brackets) of every character that stands outside of quotes."""
    quote, depth, position = "", 0, 0
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\" and quote == '"':
                position += 1
            elif character == quote:
                quote = ""
        elif character == "\\":
            position += 1
        elif character in _QUOTES:
            quote = character
        else:
            if character in _CLOSING:
                depth = max(depth - 1, 0)
            yield position, character, depth
            if character in _OPENING:
                depth += 1
        position += 1
    if quote:
        raise UsageError(f"a quote ({quote}) is not closed", where=text.strip())


def _split(text: str) -> Iterator[str]:
    """Yield the commands of a line; a comment ends the line, a `!` takes all of the rest, and so does Python."""
    start = 0
    if _takes_the_rest(text):
        yield text
        return
    for position, character, _ in _scan(text):
        if character == "#" and (position == start or text[position - 1].isspace()):
            yield text[start:position]
            return
        if character == ";":
            yield text[start:position]
            start = position + 1
            if _takes_the_rest(text[start:]):
                break
    yield text[start:]


def _takes_the_rest(text: str) -> bool:
    return text.lstrip().startswith("!") or text.split(None, 1)[:1] == ["py"]


def _command(text: str) -> ParsedLine:
    stripped = text.strip()
    if stripped.startswith("!"):
        return ParsedLine(shell=stripped[1:].strip())
    if stripped.startswith("<"):
        words = _words(stripped[1:])
        if len(words) != 1:
            raise UsageError("'<' wants one file", where=stripped)
        return ParsedLine(source=words[0])
    pieces: str | None = None
    filters: list[str] = []
    start = 0
    for position, character, depth in _scan(text):
        if depth or position < start:
            continue
        if character == "|" and text[position + 1:position + 2] != "|" and text[position - 1:position] != "|":
            pieces = _add(pieces, filters, text[start:position])
            start = position + 1
            if text[start:start + 1] == ":":
                start += 1
                continue
            if not text[start:].strip():
                raise UsageError("nothing follows the '|'", where=stripped)
            _no_filter_in(text[start:])
            return _plain(pieces, filters, pipeline=text[start:].strip())
        # "->" and a comparison are parts of an expression: where there may be one, a redirection begins a word.
        begins_word = position == 0 or text[position - 1].isspace() or \
            (not _is_expression(text) and text[position - 1] != "-")
        compares = pieces is not None and text[start:].split(None, 1)[:1] == ["where"]
        if character == ">" and begins_word and text[position + 1:position + 2] != "=" and not compares:
            append = text[position + 1:position + 2] == ">"
            words = _words(text[position + 1 + append:])
            if len(words) != 1:
                raise UsageError("a redirection wants one file", where=stripped)
            return _plain(_add(pieces, filters, text[start:position]), filters, file=words[0], append=append)
    return _plain(_add(pieces, filters, text[start:]), filters)


def _is_expression(text: str) -> bool:
    return text.split(None, 1)[0].partition("/")[0] in _EXPRESSIONS


def _add(command: str | None, filters: list[str], text: str) -> str:
    """Take a piece between pipes: the command is the first, the others are filters. Return the command."""
    if command is None:
        return text
    if not text.strip():
        raise UsageError("nothing follows the '|:'", mend="see 'help pipes'")
    filters.append(text.strip())
    return command


def _no_filter_in(pipeline: str) -> None:
    """Refuse a `|:` behind a program, which the shell would take for a pipe into its own command `:`.

    Raises:
        UsageError: there is one.
    """
    for position, character, _ in _scan(pipeline):
        if character == "|" and pipeline[position + 1:position + 2] == ":" and pipeline[position - 1:position] != "|":
            raise UsageError("a '|:' stands before programs, for these give text and no rows",
                             where=pipeline[position:].strip(), mend="COMMAND |: FILTER | PROGRAM")


def _plain(text: str, filters: list[str], *, pipeline: str | None = None, file: str | None = None,
           append: bool = False) -> ParsedLine:
    text = text.strip()
    if not text and (pipeline or file or filters):
        raise UsageError("no command stands before the pipe or redirection")
    words = _words(text)
    if words and text.startswith("*") and len(words[0]) > 1:      # `*task_struct.comm` is `* task_struct.comm`
        words = ("*", words[0][1:], *words[1:])
    return ParsedLine(text=text, words=words, pipeline=pipeline, filters=tuple(filters), file=file, append=append)


def _words(text: str) -> tuple[str, ...]:
    """Split at spaces; quotes hold a word together and fall away, a backslash keeps the next character."""
    words: list[str] = []
    word: str | None = None
    made: type[str] = str
    quote, position = "", 0
    while position < len(text):
        character = text[position]
        if character == "\\" and quote != "'" and position + 1 < len(text):
            position += 1
            word = (word or "") + text[position]
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in _QUOTES:
            made = Quoted if character == "'" and word is None else made
            quote, word = character, word or ""
        elif character.isspace():
            if word is not None:
                words.append(made(word))
            word, made = None, str
        else:
            word = (word or "") + character
        position += 1
    if quote:
        raise UsageError(f"a quote ({quote}) is not closed", where=text.strip())
    if word is not None:
        words.append(made(word))
    return tuple(words)
