"""The prompt: history, and completion of commands, their options, symbols and structures."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import drgn
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.shortcuts import CompleteStyle

from kdumpy.crash import registry
from kdumpy.crash.session import Session
from kdumpy.crash.shell import Leave, Shell
from kdumpy.debuginfo.btf import Kind

_SYMBOLS = ("dis", "sym", "rd", "p", "struct", "bt", "whatis", "list", "tree")
"""Commands whose arguments can be symbols."""
_TYPES = ("struct", "union", "*", "whatis")
_MOST = 100
"""Suggestions."""
_SHORTEST = 3
"""Letters from which on symbols are suggested."""


def history_file() -> Path:
    """Return where the history is kept (XDG state directory); made, for the user alone."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "kdumpy"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state / "crash_history"
    path.touch(mode=0o600)
    path.chmod(0o600)
    return path


def converse(shell: Shell) -> None:
    """Read lines and run them until the user leaves."""
    # A script's background job inherits an ignored SIGINT; whoever sits at a prompt wants Ctrl-C to work.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        history = FileHistory(history_file())
    except OSError as error:
        print(f"kdumpy: the history is not kept: {error}", file=sys.stderr)
        history = None
    prompt: PromptSession[str] = PromptSession(history=history, completer=ShellCompleter(shell.session),
                                               complete_while_typing=False, enable_open_in_editor=True,
                                               complete_style=CompleteStyle.READLINE_LIKE)
    while True:
        try:
            line = prompt.prompt("crash> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            shell.run(line)
        except Leave:
            return
        except BrokenPipeError:
            continue


class ShellCompleter(Completer):
    """Suggests names; whatever fails suggests nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._symbols: list[str] | None = None

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what can stand at the cursor."""
        word = document.get_word_before_cursor(WORD=True)
        before = document.text_before_cursor[: len(document.text_before_cursor) - len(word)].split(";")[-1].split()
        for number, name in enumerate(self.names(before, word)):
            if number >= _MOST:
                return
            yield Completion(name, start_position=-len(word))

    def names(self, before: list[str], word: str) -> Iterator[str]:
        """Yield the names that begin with `word`, behind the words before it."""
        if not before:
            yield from (name for name in self._commands() if name.startswith(word))
        elif word.startswith("-"):
            yield from (name for name in self._options(before[0]) if name.startswith(word))
        elif before[0] == "help":
            yield from (name for name in self._commands() if name.startswith(word))
        elif len(word) >= _SHORTEST:
            if before[0] in _TYPES:
                yield from (name for name in self._types() if name.startswith(word))
            if before[0] in _SYMBOLS:
                yield from (name for name in self._all_symbols() if name.startswith(word))

    def _commands(self) -> list[str]:
        return sorted({*registry.COMMANDS, *self.session.engine.names, *registry.LEAVING, *self.session.aliases})

    def _options(self, command: str) -> list[str]:
        if command in registry.COMMANDS:
            return [name for argument in registry.command(command).args for name in argument.names
                    if name.startswith("-")] + ["--json", "--help"]
        if command in self.session.engine.names:
            return list(self.session.engine.options(command))
        return []

    def _types(self) -> list[str]:
        types = self.session.kernel.debuginfo.types
        if types is None:
            return []
        names = types.btf.index.names
        return sorted({*names[Kind.STRUCT], *names[Kind.UNION]})

    def _all_symbols(self) -> list[str]:
        if self._symbols is None:
            try:
                self._symbols = sorted({symbol.name for symbol in self.session.prog.symbols()})
            except (LookupError, drgn.FaultError):
                self._symbols = []
        return self._symbols
