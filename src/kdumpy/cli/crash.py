"""Open a dump in a shell with the commands of crash. No debug symbols are needed.

examples:
  kdumpy crash vmcore                        a prompt; 'help' lists the commands
  kdumpy crash vmcore -e 'bt; ps -A; mod -t' run these and leave
  kdumpy crash vmcore -e 'bt --json'         as JSON
  kdumpy crash vmcore -i commands.txt        run the lines of a file first
  echo 'log | tail' | kdumpy crash vmcore    run the lines of standard input
  kdumpy crash vmcore vmlinux                with DWARF: source lines, inlined calls, local variables

First the commands of ~/.config/kdumpy/crashrc, ~/.crashrc and ./.crashrc are run, where nobody else can have written
them (--no-rc: none). Exits with 1 when a command of -e, -i or standard input failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdumpy.cli.common import add_dump, open_from
from kdumpy.errors import UsageError

_ELF_CORE = 4
"""e_type of a core file (elf.h, ET_CORE)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_dump(parser)
    parser.add_argument("symbols", type=Path, nargs="?", metavar="VMLINUX",
                        help="a vmlinux with debug symbols, as crash takes it (in either order)")
    parser.add_argument("-e", "--execute", metavar="COMMANDS", action="append", default=[],
                        help="run commands, separated by ';', and leave")
    parser.add_argument("-i", "--input", type=Path, metavar="FILE", action="append", default=[],
                        help="run the lines of a file, then show the prompt")
    parser.add_argument("--no-rc", action="store_true", help="run no crashrc")
    parser.add_argument("-s", "--silent", action="store_true", help="no banner")


def run(arguments: argparse.Namespace) -> int:
    """Run the session; 1 when a command that was not typed at the prompt failed."""
    from kdumpy.crash.shell import Leave, Shell
    from kdumpy.crash.startup import startup_files

    if arguments.symbols is not None:
        if not _is_core(arguments.vmcore) and _is_core(arguments.symbols):
            arguments.vmcore, arguments.symbols = arguments.symbols, arguments.vmcore
        arguments.vmlinux.append(arguments.symbols)
    for path in arguments.input:
        if not path.is_file():
            raise UsageError("no such file", where=str(path))
    interactive = sys.stdin.isatty() and not arguments.execute
    with open_from(arguments) as kernel:
        shell = Shell(kernel, sys.stdout, sys.stderr, interactive=interactive and sys.stdout.isatty())
        good = True
        try:
            if interactive and not arguments.silent:
                shell.banner()
            for path, refusal in startup_files() if not arguments.no_rc else ():
                if refusal:
                    print(f"kdumpy: {path}: not run: {refusal}", file=sys.stderr)
                else:
                    shell.run_file(path)
            for path in arguments.input:
                good = shell.run_file(path) and good
            for line in arguments.execute:
                good = shell.run(line) and good
            if interactive:
                from kdumpy.crash.prompt import converse

                converse(shell)
            elif not arguments.execute:
                for line in sys.stdin:
                    good = shell.run(line) and good
        except Leave:
            pass
    return 0 if good else 1


def _is_core(path: Path) -> bool:
    """Whether a file can be a dump: everything but an ELF file of another kind."""
    try:
        with path.open("rb") as file:
            start = file.read(18)
    except OSError:
        return False
    return start[:4] != b"\x7fELF" or int.from_bytes(start[16:18], "little") == _ELF_CORE
