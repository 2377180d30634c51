"""Say whether this host is ready to save its next crash: each check, its reason, its mend.

examples:
  kdumpy status
  kdumpy status --json | jq '.checks[] | select(.verdict != "ok")'
  kdumpy status --prometheus /var/lib/node_exporter/textfile/kdumpy.prom
  kdumpy status --quiet && echo ready

exit codes: 0 the next panic leaves a dump; 1 it does not; 2 wrong usage; 3 it could not be seen (run it as root)
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.common import add_json, colourful, print_json
from kdumpy.units import printable

if TYPE_CHECKING:
    from kdumpy.host.status import Line, Status

_GREEN, _YELLOW, _RED, _BOLD, _DIM, _PLAIN = "32", "33", "31", "1", "2", "0"
_COLOURS = {"ok": _GREEN, "warn": _YELLOW, "bad": _RED, "unknown": _YELLOW}
_MARKS = {"ok": "✓", "warn": "!", "bad": "✗", "unknown": "?"}
_PLAIN_MARKS = {"ok": "+", "warn": "!", "bad": "x", "unknown": "?"}
_WIDEST = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing; the exit code is the answer")
    parser.add_argument("--prometheus", metavar="FILE",
                        help="write metrics for node_exporter's textfile collector, whole or not at all; - prints them")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look, show, and exit truly."""
    from kdumpy.crash.panicline import fatal_line
    from kdumpy.host import status
    from kdumpy.host.system import System

    found = status.look(System(), lambda log: fatal_line((-1.0, _untimed(line)) for line in log.splitlines()))
    if arguments.prometheus:
        _publish(status.prometheus(found), arguments.prometheus)
    if arguments.json:
        print_json(found.as_json())
    elif not arguments.quiet and arguments.prometheus is None:
        _show(found)
    return {True: 0, False: 1, None: 3}[found.ready]


def _untimed(line: str) -> str:
    head, bracket, rest = line.partition("] ")
    return rest if bracket and head.lstrip("<0123456789>").startswith("[") else line


def _publish(text: str, place: str) -> None:
    if place == "-":
        sys.stdout.write(text)
        return
    path = Path(place)
    # In the same directory, so that it is renamed; the collector takes *.prom only.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _show(found: Status) -> None:
    ready = {True: _GREEN, False: _RED, None: _YELLOW}[found.ready]
    width = min(shutil.get_terminal_size((100, 24)).columns, _WIDEST)
    print(_coloured(printable(found.verdict), f"{_BOLD};{ready}"))
    marks = _MARKS if (sys.stdout.encoding or "").lower().startswith("utf") else _PLAIN_MARKS
    names = max(len(line.name) for line in found.lines)
    for line in found.lines:
        _show_line(line, marks, names, width)


def _show_line(line: Line, marks: dict[str, str], names: int, width: int) -> None:
    verdict = str(line.answer.verdict)
    indent = " " * (names + 5)
    reason = textwrap.wrap(printable(line.answer.reason), width - len(indent), break_long_words=False,
                           break_on_hyphens=False) or [""]
    name = line.name.ljust(names)
    print(f"  {_coloured(marks[verdict], _COLOURS[verdict])} {_coloured(name, _BOLD) if verdict != 'ok' else name} "
          f"{reason[0]}")
    for more in reason[1:]:
        print(f"{indent}{more}")
    if verdict != "ok" and line.answer.mend:
        mend = textwrap.wrap(printable(line.answer.mend), width - len(indent) - 3, break_long_words=False,
                             break_on_hyphens=False)
        for number, text in enumerate(mend):
            print(f"{indent}{_coloured('-> ' if not number else '   ', _DIM)}{_coloured(text, _DIM)}")


def _coloured(text: str, colour: str) -> str:
    return f"\033[{colour}m{text}\033[{_PLAIN}m" if colourful() else text
