"""Open a dump in a shell with the commands of crash. No debug symbols are needed.

examples:
  kdumpy crash vmcore                        a prompt; 'help' lists the commands
  kdumpy crash vmcore -e 'bt; ps -A; mod -t' run these and leave
  kdumpy crash vmcore -e 'bt --json'         as JSON
  kdumpy crash vmcore -i commands.txt        run the lines of a file first
  echo 'log | tail' | kdumpy crash vmcore    run the lines of standard input
  kdumpy crash vmcore vmlinux                with DWARF: source lines, inlined calls, local variables

First the extensions in ~/.config/kdumpy/extensions are loaded and the commands of ~/.config/kdumpy/crashrc,
~/.crashrc and ./.crashrc are run, where nobody else can have written them (--no-rc: none of these).
Exits with 1 when a command of -e, -i or standard input failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdumpy import __version__
from kdumpy.cli.common import add_dump, open_from, quiet_engine
from kdumpy.errors import UsageError
from kdumpy.units import printable

_ELF_CORE = 4
"""e_type of a core file (elf.h, ET_CORE)."""


_PRINTED = {"osrelease": "print the kernel's release and leave, as crash does",
            "build-id": "print the kernel's build id and leave", "log": "print the kernel's log and leave"}
_NOT_NEEDED = ("--minimal", "--active", "--smp", "--no_modules", "--no_kallsyms", "--no_kmem_cache", "--no_ikconfig",
               "--no_data_debug", "--no_elf_notes", "--no_panic", "--no_strip", "--kmem_cache_delay", "--reloc_auto",
               "-S", "-x", "--more", "--less", "--CRASHPAGER")
"""crash's options that spare it work or tell it what it cannot find out: taken, and of no use here."""
_NOT_NEEDED_WITH_VALUE = ("--kaslr", "--machdep", "-m", "--hash", "-d", "-p", "--cpus", "--src", "--offline")
"""The same, with a value. The pager is $PAGER, the machine and the size of its pages stand in the dump."""
_EDITORS = ("vi", "emacs")
"""What crash takes behind -e: how its prompt is edited."""
_REFUSED = {
    "--zero_excluded": "a page that the dump left out is told as such; zeros in its place would be a lie",
    "--mod": "the folder goes to the command: mod -S FOLDER; symbols and types come out of the dump without it",
}


class _Refuse(argparse.Action):
    """An option of crash that is answered with why not."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object,
                 option_string: str | None = None) -> None:
        parser.error(f"{option_string} is not done here: {_REFUSED[str(option_string)]}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_dump(parser)
    parser.add_argument("symbols", type=Path, nargs="?", metavar="VMLINUX",
                        help="a vmlinux with debug symbols, as crash takes it (in either order)")
    parser.add_argument("-e", "--execute", metavar="COMMANDS", action="append", default=[],
                        help="run commands, separated by ';', and leave")
    parser.add_argument("-i", "--input", type=Path, metavar="FILE", action="append", default=[],
                        help="run the lines of a file, then show the prompt")
    for name, words in _PRINTED.items():
        parser.add_argument(f"--{name}", dest="printed", action="store_const", const=name, help=words)
    parser.add_argument("--no-rc", "--no_crashrc", action="store_true", help="run no crashrc, load no extension")
    parser.add_argument("-s", "--silent", action="store_true", help="no banner")
    parser.add_argument("-v", "--version", action="version", version=f"kdumpy {__version__}",
                        help="print kdumpy's version and leave")
    parser.add_argument("--no_scroll", action="store_true", help="long output goes through no pager")
    for name in _NOT_NEEDED:
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    for name in _NOT_NEEDED_WITH_VALUE:
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in _REFUSED:
        parser.add_argument(name, nargs="*", action=_Refuse, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Run the session; 1 when a command that was not typed at the prompt failed."""
    quiet_engine()
    from kdumpy.crash.shell import Leave, Shell
    from kdumpy.crash.startup import load_extensions, startup_files
    from kdumpy.crash.workers import wait_for_all

    if arguments.symbols is not None:
        if not _is_core(arguments.vmcore) and _is_core(arguments.symbols):
            arguments.vmcore, arguments.symbols = arguments.symbols, arguments.vmcore
        arguments.vmlinux.append(arguments.symbols)
    if arguments.printed:
        return _print(arguments.vmcore, arguments.printed)
    arguments.execute = [line for line in arguments.execute if line not in _EDITORS]
    for path in arguments.input:
        if not path.is_file():
            raise UsageError("no such file", where=str(path))
    interactive = sys.stdin.isatty() and not arguments.execute
    # The engine loads drgn's commands when one is asked for.
    with open_from(arguments, commands=False) as kernel:
        shell = Shell(kernel, sys.stdout, sys.stderr, interactive=interactive and sys.stdout.isatty(),
                      packages=not arguments.no_rc)
        shell.session.scroll = not arguments.no_scroll
        good = True
        try:
            if interactive and not arguments.silent:
                shell.banner()
            for problem in load_extensions() if not arguments.no_rc else ():
                print(f"kdumpy: {problem}", file=sys.stderr)
            for path, refusal in startup_files() if not arguments.no_rc else ():
                if refusal:
                    print(f"kdumpy: {path}: not run: {refusal}", file=sys.stderr)
                else:
                    shell.start_with(path)
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
    wait_for_all()
    return 0 if good else 1


def _print(path: Path, what: str) -> int:
    """Print what crash's options of this name do, out of the dump's headers alone."""
    from kdumpy.cli import log
    from kdumpy.dumpfile.opening import open_dump

    if what == "log":
        parser = argparse.ArgumentParser()
        log.add_arguments(parser)
        return log.run(parser.parse_args([str(path)]))
    with open_dump(path) as dump:
        value = dump.vmcoreinfo.get("OSRELEASE" if what == "osrelease" else "BUILD-ID")
        print(printable(value or "unknown"))
    return 0 if value else 1


def _is_core(path: Path) -> bool:
    """Whether a file can be a dump: everything but an ELF file of another kind."""
    try:
        with path.open("rb") as file:
            start = file.read(18)
    except OSError:
        return False
    return start[:4] != b"\x7fELF" or int.from_bytes(start[16:18], "little") == _ELF_CORE
