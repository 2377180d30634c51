"""What can stand at the cursor: commands, options, symbols, types and their members, variables, filters, files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import drgn
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from kdumpy.crash import pipes, registry
from kdumpy.crash.session import Session
from kdumpy.debuginfo.btf import Kind
from kdumpy.debuginfo.reading import READ_ERRORS

_SYMBOLS = ("dis", "sym", "rd", "p", "struct", "union", "*", "bt", "whatis", "list", "tree", "vtop", "waitq", "search",
            "kmem", "wr")
"""Commands whose arguments can be symbols."""
_TYPES = ("struct", "union", "*", "whatis", "list", "tree", "task", "sizeof")
_FILES = ("extend", "<", ">", ">>")
_MOST = 100
"""Suggestions."""
_SHORTEST = 3
"""Letters from which on symbols and types are suggested."""
_LONGEST = 200
_DEEPEST = 8
"""Structures without a name in each other."""


class ShellCompleter(Completer):
    """Suggests names; whatever fails suggests nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what can stand at the cursor."""
        word = document.get_word_before_cursor(WORD=True)
        before = document.text_before_cursor[: len(document.text_before_cursor) - len(word)].split(";")[-1].split()
        try:
            for number, name in enumerate(dict.fromkeys(self.names(before, word))):
                if number >= _MOST:
                    return
                yield Completion(name, start_position=-len(word))
        except READ_ERRORS:
            return

    def names(self, before: list[str], word: str) -> Iterator[str]:
        """Yield the words that begin with `word`, behind the words before it."""
        yield from (name for name in self._all(before, word) if name.startswith(word))

    def _all(self, before: list[str], word: str) -> Iterator[str]:
        if "|:" in before:
            yield from self._filters(before, word)
        elif not before:
            yield from self._commands()
            if "." in word:
                yield from self._members(word)
            elif len(word) >= _SHORTEST:
                yield from self._types
        elif before[0] == "py":
            from kdumpy.crash.commands.py import complete

            yield from complete(self.session, word)
        elif before[-1] in _FILES or before[0] in _FILES:
            yield from _paths(word)
        elif word.startswith("-"):
            yield from self._options(before[0])
        else:
            yield from self._arguments(before, word)

    def _arguments(self, before: list[str], word: str) -> Iterator[str]:
        command = before[0]
        if command in ("help", "man", "alias", "repeat"):
            yield from self._commands()
        elif command == "foreach":
            from kdumpy.crash.commands.foreach import COMMANDS, KINDS

            yield from (*COMMANDS, *KINDS)
        elif command == "set":
            from kdumpy.crash.commands.set import names

            yield from names()
        elif command == "mod":
            yield from sorted(module.name for module in self.session.kernel.modules)
        elif command == "kmem" and re.match(r"-[sS]", before[-1]):
            yield from self._caches
            return
        elif command == "p":
            yield from self._expressions(word)
        elif command in _TYPES and "." in word:
            yield from self._members(word)
        if len(word) >= _SHORTEST:
            if command in _TYPES:
                yield from self._types
            if command in _SYMBOLS:
                yield from self._symbols

    def _filters(self, before: list[str], word: str) -> Iterator[str]:
        """Yield the filters behind a `|:`, or the fields of the command's rows."""
        last = len(before) - 1 - before[::-1].index("|:")
        if last == len(before) - 1:
            yield from pipes.NAMES
        elif before[0] in registry.COMMANDS:
            start = re.match(r".*,|-|", word)
            given = start[0] if start else ""
            yield from (given + name for name in pipes.names_of(registry.command(before[0]).row))

    def _members(self, word: str) -> Iterator[str]:
        """Yield `type.member`, also of members of members, and behind the comma of several."""
        name, _, path = word.partition(".")
        path = path.rpartition(",")[2]
        made = self._type(name)
        *parts, _ = path.split(".")
        for part in parts:
            made = None if made is None else _member_type(made, part.partition("[")[0])
        if made is None:
            return
        before = word[: len(word) - len(path)] + "".join(f"{part}." for part in parts)
        yield from (before + member for member in members(made))

    def _expressions(self, word: str) -> Iterator[str]:
        """Yield what follows the last `.` or `->` of an expression: the members of what stands before it."""
        match = re.fullmatch(r"(.*?[\w)\]])(\.|->)(\w*)", word)
        if not match or len(word) > _LONGEST:
            return
        from kdumpy.crash.expression import evaluate

        made = evaluate(self.session, match[1].lstrip("*&(")).type_
        while made.kind == drgn.TypeKind.TYPEDEF:
            made = made.type
        if made.kind == drgn.TypeKind.POINTER:
            made = made.type
        yield from (f"{match[1]}{match[2]}{member}" for member in members(made))

    def _type(self, name: str) -> drgn.Type | None:
        for kind in ("struct ", "union ", ""):
            try:
                return self.session.prog.type(kind + name)
            except (LookupError, SyntaxError):
                continue
        return None

    def _commands(self) -> list[str]:
        self.session.load_packages()
        return sorted({*registry.COMMANDS, *registry.EXTENSIONS, *self.session.engine.names, *registry.LEAVING,
                       *self.session.aliases, *registry.BUILT_IN_ALIASES})

    def _options(self, command: str) -> list[str]:
        if command in registry.COMMANDS or command in registry.EXTENSIONS:
            return [name for argument in registry.command(command).args for name in argument.names
                    if name.startswith("-")] + ["--json", "--help"]
        if command in self.session.engine.names:
            return list(self.session.engine.options(command))
        return []

    @cached_property
    def _types(self) -> list[str]:
        types = self.session.kernel.debuginfo.types
        if types is None:
            return []
        names = types.btf.index.names
        return sorted({*names[Kind.STRUCT], *names[Kind.UNION]})

    @cached_property
    def _caches(self) -> list[str]:
        from drgn.helpers.linux.slab import for_each_slab_cache

        return sorted({cache.name.string_().decode("utf-8", "backslashreplace")
                       for cache in for_each_slab_cache(self.session.prog)})

    @cached_property
    def _symbols(self) -> list[str]:
        try:
            return sorted({symbol.name for symbol in self.session.prog.symbols()})
        except (LookupError, drgn.FaultError):
            return []


def members(made: drgn.Type, depth: int = 0) -> Iterator[str]:
    """Yield the names of a structure's members, those of members without a name too."""
    made = _compound(made)
    if made.kind not in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION, drgn.TypeKind.CLASS) or depth > _DEEPEST:
        return
    for member in made.members or ():
        if member.name:
            yield member.name
        else:
            yield from members(member.type, depth + 1)


def _compound(made: drgn.Type) -> drgn.Type:
    while made.kind in (drgn.TypeKind.TYPEDEF, drgn.TypeKind.ARRAY):
        made = made.type
    return made


def _member_type(made: drgn.Type, name: str) -> drgn.Type | None:
    try:
        return _compound(_compound(made).member(name).type)
    except (LookupError, TypeError):
        return None


def _paths(word: str) -> Iterator[str]:
    path = Path(word).expanduser()
    folder = path if word.endswith("/") else path.parent
    before = word if word.endswith("/") or not word else word[: len(word) - len(path.name)]
    try:
        for entry in sorted(folder.iterdir()):
            yield f"{before}{entry.name}{'/' if entry.is_dir() else ''}"
    except OSError:
        return
