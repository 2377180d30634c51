"""Which commands the shell has of its own, and where; each is imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kdumpy.crash.command import Command

COMMANDS = {
    "alias": "alias", "bt": "bt", "dis": "dis", "files": "files", "foreach": "foreach", "fuser": "fuser",
    "gdb": "refused", "help": "help", "kmem": "kmem", "log": "log", "mach": "mach", "map": "refused", "mod": "mod",
    "p": "p", "ps": "ps", "pte": "pte", "rd": "rd", "repeat": "repeat", "sbitmapq": "sbitmapq", "search": "search",
    "set": "set", "struct": "struct", "union": "struct", "*": "struct", "sym": "sym", "sys": "sys", "task": "task",
    "vm": "vm", "wr": "refused",
}  # fmt: skip
"""Module of `kdumpy.crash.commands` by the command's name."""

LEAVING = ("q", "quit", "exit")
"""What ends the session."""

BUILT_IN_ALIASES = {"man": "help", "?": "help", "dmesg": "log", "sf": "set scroll off", "sn": "set scroll on",
                    "hex": "set radix 16", "dec": "set radix 10"}
"""crash's own aliases (alias.c), where the command exists here."""


def command(name: str) -> Command[Any]:
    """Return our command of a name.

    Raises:
        KeyError: there is none.
    """
    module = import_module(f"kdumpy.crash.commands.{COMMANDS[name]}")
    made: Command[Any] = module.COMMAND
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
