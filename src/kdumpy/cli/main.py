"""The command line: which commands there are, and how an error becomes a line and an exit code.

A command is a module of this package with `add_arguments(parser)` and `run(arguments) -> int`;
its docstring is its help, with examples. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import json
import os
import resource
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from kdumpy import __version__
from kdumpy.errors import KdumpyError, UsageError
from kdumpy.units import printable

COMMANDS = {
    "report": "say why the kernel crashed: cause, culprit, evidence, what to do next",
    "log": "print the kernel's log out of a dump",
    "info": "describe a dump: format, kernel, health, what it holds",
    "list": "list the dumps of this machine, newest first",
    "setup": "arm this host: show the plan as a diff, apply it; --undo gives it back",
    "status": "say whether this host is ready to save its next crash",
    "rehearse": "rehearse a crash in a virtual machine: does the dump arrive, what memory does it take",
    "test": "crash this machine for real, after all checks, to see that the dump arrives",
    "prune": "remove old dumps; the newest is always kept",
    "image": "build the capture image: what the kernel boots that saves a crash",
    "load": "load the capture kernel, with a fresh image",
    "unload": "take the capture kernel out of the reserved memory",
    "capture": "save memory: filter and compress /proc/vmcore, or a dump",
    "convert": "convert a dump: format, compression, flattened, split, put together",
    "repair": "make a readable dump of a truncated or damaged one",
    "crash": "open a dump in a shell with the commands of crash",
    "shell": "open a dump in Python, or run a script on it",
    "vmlinux": "make a debug vmlinux out of a dump, for crash and gdb",
    "completion": "print the completion script of a shell",
}
"""Every command and its line of help, in the order in which `--help` shows them."""

GOOD, BAD, USAGE, COULD_NOT = 0, 1, 2, 3
"""Exit codes: all well; the answer is no or bad; the command line is wrong; the environment or file prevents it."""

MEMORY_LIMIT = 1 << 30
"""Bytes of memory of its own that a command may take, whatever a dump claims; KDUMPY_MEMORY_LIMIT changes it."""

_EPILOG = """\
exit codes:
  0  good            1  the answer is "no" or "bad" (a damaged dump, no panic in it)
  2  wrong usage     3  could not (no such file, not a dump, something is missing here)

examples:
  kdumpy setup                           arm this machine: its next crash leaves a dump
  kdumpy report /var/crash/*/vmcore      why did it crash?
  kdumpy log vmcore | tail               the last words of the kernel
  kdumpy crash vmcore -e 'bt; ps'        crash's commands, no debuginfo needed

`kdumpy COMMAND --help` explains a command.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"kdumpy: {message} (see '{self.prog} --help')\n")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser: of `command` alone, of all when it is "*", or of their names only, for help and errors."""
    parser = _Parser(prog="kdumpy", description="kdump, whole: why did this kernel panic?", epilog=_EPILOG,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"kdumpy {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        if command in COMMANDS and command != name:
            continue
        sub = subparsers.add_parser(name, help=line, formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(parser=sub)
        if command in (name, "*"):
            module = load(name)
            sub.description = (module.__doc__ or "").strip()
            module.add_arguments(sub)
    return parser


def load(command: str) -> ModuleType:
    """Return the module of a command."""
    return import_module(f"kdumpy.cli.{command}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    if argv is None:                    # the process is ours: imports make many objects and no garbage
        gc.set_threshold(50_000)
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    arguments, unknown = build_parser(command).parse_known_args(words)
    if unknown:                         # told by the command's own parser, whose --help explains it
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        if argv is None:                # a caller's process is not ours to limit
            _limit_memory()
        code: int = load(arguments.command).run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has gone (`| head`): that is its right, and nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except KeyboardInterrupt:
        return 130
    except KdumpyError as error:
        if arguments.debug:
            raise
        return _tell(error, as_json=getattr(arguments, "json", False))
    except MemoryError:
        if arguments.debug:
            raise
        return _tell(KdumpyError(
            "out of memory", why="more than the limit would be needed, often because the dump is damaged",
            mend="set KDUMPY_MEMORY_LIMIT to more bytes if this machine has them"), as_json=False)
    except OSError as error:
        if arguments.debug:
            raise
        return _tell(KdumpyError(error.strerror or str(error), where=str(error.filename or "")), as_json=False)
    except Exception as error:          # a bug of ours: still one line, and how to see more
        if arguments.debug:
            raise
        return _tell(KdumpyError("internal error", why=f"{type(error).__name__}: {error}",
                                 mend="--debug shows where; please report it"), as_json=False)


def _tell(error: KdumpyError, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(error.as_json(), indent=2))
    print(printable(f"kdumpy: {error}".replace("\n", " ")), file=sys.stderr)   # it may quote the dump
    return error.exit_code


def program() -> NoReturn:
    """Run a command and end the process at once: to give back all it holds piece by piece takes 15 ms."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:      # closed by the caller (>&-); a file that is opened would take its place
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):      # its reader has gone; it is closed
            stream.flush()
    os._exit(code)


def _limit_memory() -> None:
    limit = MEMORY_LIMIT
    asked = os.environ.get("KDUMPY_MEMORY_LIMIT", "")
    if asked:
        number, unit = asked.rstrip("KMGkmg"), asked[-1].upper()
        if not number.isdecimal() or len(number) < len(asked) - 1:
            raise UsageError("not a size", where="KDUMPY_MEMORY_LIMIT", why=asked,
                             mend="give bytes, or a number with K, M or G")
        limit = int(number) << {"K": 10, "M": 20, "G": 30}.get(unit, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
