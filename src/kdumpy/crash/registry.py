"""Which commands the shell has of its own, and where; each is imported when it is called."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from kdumpy.crash.command import Command

_FILES = (
    "alias", "ascii", "bpf", "bt", "btop", "dev", "dis", "eval", "extend", "files", "foreach", "fuser", "h", "help",
    "ipcs", "irq", "kmem", "list", "log", "mach", "mod", "mount", "net", "p", "ps", "pte", "ptov", "py", "rd", "repeat",
    "runq", "sbitmapq", "search", "set", "sig", "struct", "swap", "sym", "sys", "task", "timer", "tree", "vm", "vtop",
    "waitq", "whatis")  # fmt: skip
COMMANDS = {name: name for name in _FILES} | {
    "union": "struct", "*": "struct", "ptob": "btop", "gdb": "gdb", "x": "gdb", "info": "gdb",
    "map": "refused", "wr": "refused", "rustfilt": "refused", "s390dbf": "refused"}
"""Module of `kdumpy.crash.commands` by the command's name."""

EXTENSIONS: dict[str, tuple[str, Command[Any]]] = {}
"""File and command of what `extend` has loaded, by the command's name."""

LEAVING = ("q", "quit", "exit")
"""What ends the session."""

BUILT_IN_ALIASES = {"man": "help", "?": "help", "dmesg": "log", "sf": "set scroll off", "sn": "set scroll on",
                    "hex": "set radix 16", "dec": "set radix 10", "px": "p -x", "pd": "p -d",
                    "last": "ps -l", "lsmod": "mod", "for": "foreach", "size": "*", "g": "gdb",
                    "print": "p", "output": "p", "inspect": "p", "ptype": "whatis", "disassemble": "dis"}
"""crash's own aliases (alias.c), where the command exists here; and gdb's words, which crash hands on to gdb."""

OF_GDB = ("add-symbol-file", "backtrace", "break", "call", "define", "directory", "document", "down", "echo", "finish",
          "frame", "if", "macro", "maintenance", "printf", "shell", "show", "source", "thread", "up", "while")
"""Words of gdb's that have no meaning here."""


def meaning(name: str) -> str | None:
    """Return what an alias of ours stands for, also gdb's `p/x` and `x/3i`; None for what is none."""
    word, slash, letters = name.partition("/")
    if slash and word in ("p", "print", "output", "inspect", "x") and letters.isalnum():
        return f"{'x' if word == 'x' else 'p'} --format {letters}"
    return BUILT_IN_ALIASES.get(name)


def command(name: str) -> Command[Any]:
    """Return our command of a name.

    Raises:
        KeyError: there is none.
    """
    if name in EXTENSIONS:
        return EXTENSIONS[name][1]
    return _own(COMMANDS[name])


@cache
def _own(file: str) -> Command[Any]:
    made: Command[Any] = import_module(f"kdumpy.crash.commands.{file}").COMMAND
    return made


def help_of(name: str) -> str:
    """Return the whole help of one of our commands.

    Raises:
        KeyError: there is none.
    """
    return command(name).parser(name).format_help().rstrip()


def summary(name: str) -> str:
    """Return the first line of a command's help."""
    return (command(name).__doc__ or "").strip().splitlines()[0].rstrip(".")
