"""The prompt: history and completion."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory
from prompt_toolkit.shortcuts import CompleteStyle

from kdumpy.crash.completion import ShellCompleter
from kdumpy.crash.shell import Leave, Shell


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
