"""What the commands share: their common arguments, and output to a terminal or to a program."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdumpy.dumpfile import Dump
    from kdumpy.kernel import Kernel


def add_dump(parser: argparse.ArgumentParser, *, new: bool = False) -> None:
    """Add the dump, and where to find DWARF for it; with `new`, any number of folders in its place."""
    words = "the dump: ELF, kdump-compressed or flattened"
    if new:
        parser.add_argument("vmcore", type=Path, metavar="VMCORE", nargs="*", help=f"{words}; with --new, folders")
    else:
        parser.add_argument("vmcore", type=Path, metavar="VMCORE", help=words)
    parser.add_argument("--vmlinux", type=Path, action="append", default=[], metavar="FILE",
                        help="debug symbols of the kernel or of a module; not needed, they add lines and inlines")
    parser.add_argument("--dwarf", choices=("auto", "fetch", "no"), default="auto",
                        help="where else to look for debug symbols: at the standard paths (auto), from the servers "
                             "of DEBUGINFOD_URLS too (fetch), nowhere (no)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def open_from(arguments: argparse.Namespace, *, commands: bool = True) -> Kernel:
    """Open the dump that the arguments name. `commands`: whether drgn's own commands will be run."""
    quiet_engine()
    from kdumpy.debuginfo.dwarf import Dwarf
    from kdumpy.kernel import open_kernel

    return open_kernel(arguments.vmcore, vmlinux=arguments.vmlinux, dwarf=Dwarf(arguments.dwarf), commands=commands)


def quiet_engine() -> None:
    """Have drgn say nothing, what matters of it is in our errors; and load no more of it than is asked for."""
    import logging

    from kdumpy.debuginfo.lazyhelpers import load_on_demand

    load_on_demand()
    logging.getLogger("drgn").setLevel(logging.CRITICAL)


def print_json(value: Any) -> None:
    """Print a JSON document, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def colourful() -> bool:
    """Whether standard output shows colours: a terminal, and NO_COLOR (no-color.org) is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def ask(question: str) -> str:
    """Return what somebody answers on the terminal; empty for the end of input (Ctrl-D)."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""


def add_erase(parser: argparse.ArgumentParser) -> None:
    """Add --erase."""
    parser.add_argument("--erase", action="append", default=[], metavar="NAME[,NAME…]",
                        help="overwrite secrets: keys (keyrings, ciphers, dm-crypt, WireGuard, TLS, IPsec), "
                             "environment (and arguments of processes, the kernel's command line), user (leave out "
                             "user pages and free pages), SYMBOL[.MEMBER][:BYTES], STRUCT.MEMBER[:BYTES]; repeatable")


def erased(dump: Dump, path: Path, arguments: argparse.Namespace) -> Dump:
    """Return the dump without what --erase names; the dump itself where it names nothing.

    Says on standard error what was found, and what could not be judged; `told` of the ErasedDump has the same.

    Raises:
        UsageError, NotInDump: a name is wrong, or unknown to this kernel.
        HostError: the analysis side's libraries are not installed.
    """
    names = [name for words in arguments.erase for name in words.split(",")]
    if not names:
        return dump
    from kdumpy.cli.erasing import erase

    return erase(dump, path, names)
