"""Crash this machine for real, to see that the dump arrives. Runs all checks first, and asks for the host's name.

All programs end at once, as with a real crash; file systems are synchronised before. The machine is away for as long
as a capture and a boot take. `kdumpy rehearse` shows the same without risk, in a virtual machine.

examples:
  kdumpy test                            check, show, ask for the host's name, crash
  kdumpy test --dry-run                  check and show only
  kdumpy test --yes-crash-this-machine   for automation: no question, if all checks are good

exit codes: 1 not ready, or not confirmed; 2 wrong usage; 3 could not; after the crash there is none
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import TYPE_CHECKING

from kdumpy.cli.common import add_json, ask, print_json
from kdumpy.errors import HostError
from kdumpy.units import printable

if TYPE_CHECKING:
    from kdumpy.host.status import Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--dry-run", action="store_true", help="say what would happen; crash nothing")
    parser.add_argument("--yes-crash-this-machine", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true",
                        help="crash although a check says that no dump will be left; never though the checks could "
                             "not be made")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, show, ask, crash."""
    from kdumpy.host import status
    from kdumpy.host.crashing import crash, refuse_a_container
    from kdumpy.host.system import System

    if os.geteuid() != 0:
        raise HostError("crashing a machine needs root", mend="sudo kdumpy test")
    system = System()
    refuse_a_container(system)
    found = status.look(system)
    name = socket.gethostname()
    may = found.ready is True or (found.ready is False and arguments.force)
    if arguments.json:
        print_json({"host": name, "ready": found.ready, "verdict": found.verdict, "will_crash":
                    may and not arguments.dry_run})
    else:
        _show(found, name, may=may)
    if not may:
        print("kdumpy: not crashed: see `kdumpy status` for each check and its mend"
              + ("" if found.ready is None else "; --force crashes it anyway"), file=sys.stderr)
        return 1
    if arguments.dry_run:
        return 0
    if not arguments.yes_crash_this_machine and not _confirmed(name):
        print("kdumpy: not crashed", file=sys.stderr)
        return 1
    sys.stdout.flush()
    crash(system)
    return 0


def _show(found: Status, name: str, *, may: bool) -> None:
    from kdumpy.host.checks import Verdict

    print(printable(found.verdict))
    for line in (*found.of(Verdict.BAD), *found.of(Verdict.UNKNOWN), *found.of(Verdict.WARN)):
        print(printable(f"  {line.name}: {line.answer.reason}"))
    if may:
        print(printable(f"\nThe kernel of {name} will crash: every program ends at once. The capture kernel saves the "
                        "dump and reboots;\nafterwards `kdumpy list` shows the dump, and a report lies beside it."))


def _confirmed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise HostError("there is nobody to ask", why="standard input is no terminal",
                        mend="--yes-crash-this-machine does it")
    return ask(f"\nType this machine's name to crash it ({printable(name)}): ") == name
