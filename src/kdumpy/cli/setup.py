"""Arm this host: reserve memory, build the capture image, load it at each boot; shows what it changes, and asks.

The plan is shown as a diff before anything is done. What is right already stays as it is, so a second setup does
nothing. The settings are in /etc/kdumpy.toml; change them there and run it again.

examples:
  kdumpy setup --dry-run                             what would be changed
  kdumpy setup                                       show it, ask, do it
  kdumpy setup --target ssh://dump@store/crashes --target /var/crash --yes
  kdumpy setup --set panic.on_hung_task=true         change a key of /etc/kdumpy.toml, and what follows from it
  kdumpy setup --replace                             take over from kdump-tools or kdump.service, with their settings
  kdumpy setup --undo                                give back every byte

exit codes: 0 done, or nothing to do; 1 not confirmed, or something could not be given back; 2 wrong usage;
3 this machine cannot be armed, with the reason
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from kdumpy.cli.common import add_json, ask, colourful, print_json
from kdumpy.errors import HostError
from kdumpy.units import printable

if TYPE_CHECKING:
    from kdumpy.host.changes import Change, Plan
    from kdumpy.host.setup import Setup
    from kdumpy.host.system import System

_RED, _GREEN, _BOLD, _DIM, _PLAIN = "31", "32", "1", "2", "0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--dry-run", action="store_true", help="show what would be changed, change nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--crashkernel", metavar="SIZE", default="",
                        help="memory to reserve: auto, or as the kernel takes it (256M, `512M,high`, "
                             "`512M,high 128M,low`)")
    parser.add_argument("--target", metavar="URL", action="append", default=[], dest="targets",
                        help="where dumps go, in order of preference: /var/crash, nfs://host/export, "
                             "ssh://user@host/dir, …; repeatable")
    parser.add_argument("--set", metavar="TABLE.KEY=VALUE", action="append", default=[], dest="keys",
                        help="another key of /etc/kdumpy.toml, such as capture.ssh_key=FILE; repeatable")
    parser.add_argument("--replace", action="store_true",
                        help="switch the distribution's kdump service off; its settings are taken over where there "
                             "is no /etc/kdumpy.toml yet")
    parser.add_argument("--undo", action="store_true", help="take all setups back")
    parser.add_argument("--force", action="store_true",
                        help="with --undo: restore files, too, that were changed by others after the setup")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show, ask, do."""
    from kdumpy.host.setup import make
    from kdumpy.host.system import System
    from kdumpy.host.wish import Wishes, parse_keys

    system = System()
    if not arguments.dry_run and os.geteuid() != 0:
        raise HostError("setup changes the system and needs root", mend="sudo kdumpy setup, or look with --dry-run")
    if arguments.undo:
        return _undo(system, arguments)
    made = make(system, Wishes(arguments.crashkernel, tuple(arguments.targets), arguments.replace,
                               parse_keys(arguments.keys)))
    if not arguments.json:
        _show(made)
    if arguments.dry_run or made.plan.empty:
        if arguments.json:
            print_json(_as_json(made, applied=False))
        return 0
    if not arguments.yes and not _agreed("Do this?"):
        print("nothing was changed", file=sys.stderr)
        return 1
    return _apply(system, made, arguments)


def _apply(system: System, made: Setup, arguments: argparse.Namespace) -> int:
    from kdumpy.host import applying

    failures = applying.apply(system, made.plan, _silent if arguments.json else _say)
    if arguments.json:
        print_json({**_as_json(made, applied=True), "failures": list(failures)})
        return 0
    for failure in failures:
        print(_coloured(printable(f"not done: {failure}"), _RED))
    if made.plan.reboot:
        print(_coloured("\nReboot once: the memory is reserved at boot. Then: kdumpy status", _BOLD))
    else:
        print(_coloured("\nDone. Is it ready? kdumpy status", _BOLD))
    return 0


def _undo(system: System, arguments: argparse.Namespace) -> int:
    from kdumpy.host import applying

    if not applying.was_set_up(system):
        raise HostError("there is nothing to undo", why="this host was not set up by kdumpy")
    if arguments.dry_run:
        raise HostError("--undo has no --dry-run", mend=f"{applying.JOURNAL} names what was changed")
    if not arguments.yes and not _agreed("Take back all that kdumpy set up here?"):
        print("nothing was changed", file=sys.stderr)
        return 1
    undone = applying.undo(system, _silent if arguments.json else _say, force=arguments.force)
    if arguments.json:
        from dataclasses import asdict

        print_json(asdict(undone))
    elif undone.left:
        print(f"changed by others since, and left: {', '.join(undone.left)} (--force restores them)")
    else:
        print(_coloured("\nEverything is as it was. Memory that is reserved stays so until the next boot.", _BOLD))
    return 1 if undone.left or undone.failed else 0


def _silent(_line: str) -> None:
    pass


def _say(line: str) -> None:
    print(printable(f"  {line}"), flush=True)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise HostError("there is nobody to ask", why="standard input is no terminal", mend="--yes does it, "
                        "--dry-run shows it")
    return ask(f"\n{question} [y/N] ").lower() in ("y", "yes")


def _show(made: Setup) -> None:
    machine, plan = made.machine, made.plan
    system = machine.distribution.name or machine.distribution.id
    print(f"{system}, kernel {machine.release}, {machine.memory_bytes / (1 << 30):.1f} GiB of memory, "
          f"{machine.boot_loader or 'no known boot loader'}\n")
    for step in plan.steps:
        print(_coloured(step.title, _BOLD) + (" (from the next boot on)" if step.reboot else ""))
        for change in step.changes:
            print(_change(change))
        print()
    for note in plan.notes:
        print(printable(f"note: {note}"))
    for warning in plan.warnings:
        print(_coloured(printable(f"warning: {warning}"), _RED))
    if plan.empty:
        print(_coloured("Nothing to do: this host is set up as configured. Is it ready? kdumpy status", _GREEN))


def _change(change: Change) -> str:
    from kdumpy.host.changes import Command

    if isinstance(change, Command):
        return f"  $ {' '.join(change.words)}   " + _coloured(f"# {change.why}", _DIM)
    if change.before is None and change.after is not None and not change.secret:
        size = len(change.after.splitlines())
        whole = size <= _SHORT
        head = f"  new file {change.path}" + ("" if whole else f" ({size} lines)") + "   " + \
            _coloured(f"# {change.why}", _DIM)
        lines = change.after.decode(errors="replace").splitlines() if whole else []
        return "\n".join([head, *(_coloured(f"  + {printable(line)}", _GREEN) for line in lines)])
    lines = []
    for line in change.diff().splitlines():
        colour = _GREEN if line.startswith("+") else _RED if line.startswith("-") else ""
        line = _PADDING.sub(lambda run: f"{run[1] * 3}…", line)
        lines.append("  " + (_coloured(printable(line), colour) if colour else printable(line)))
    return "\n".join(lines)


_PADDING = re.compile(r"(.)\1{79,}")
"""GRUB's environment block is filled up to 1024 bytes."""

_SHORT = 12
"""Lines of a new file that are shown; a longer one is documented, and named."""


def _coloured(text: str, colour: str) -> str:
    return f"\033[{colour}m{text}\033[{_PLAIN}m" if colourful() else text


def _as_json(made: Setup, *, applied: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {"applied": applied, "reboot": made.plan.reboot, "empty": made.plan.empty, "machine": asdict(made.machine),
            **_plan_json(made.plan)}


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {"steps": [{"title": step.title, "reboot": step.reboot,
                       "changes": [_change_json(change) for change in step.changes]} for step in plan.steps],
            "notes": list(plan.notes), "warnings": list(plan.warnings)}


def _change_json(change: Change) -> dict[str, Any]:
    from kdumpy.host.changes import Command

    if isinstance(change, Command):
        return {"kind": "command", "words": list(change.words), "why": change.why, "undo": list(change.undo)}
    return {"kind": "file", "path": change.path, "why": change.why, "diff": change.diff()}
