"""Say why the kernel crashed: the cause, the culprit, the evidence, and what to do next.

Nothing but the dump is needed: no vmlinux, no debuginfo package, no matching kernel.

examples:
  kdumpy report /var/crash/host-2026-11-23-17:37:02/vmcore
  kdumpy report vmcore --full               more than a screen: all evidence, CPUs, blocked tasks, system, log
  kdumpy report vmcore --explain            how cause, culprit and signature were chosen
  kdumpy report vmcore -o report.txt        the same into a file that only you can read
  kdumpy report vmcore --html report.html   a page for a browser, with every task, the log, the code; one file
  kdumpy report vmcore --json | jq -r .verdict.cause
  kdumpy report vmcore --vmlinux /usr/lib/debug/boot/vmlinux-6.1.0-56-amd64
                                            adds lines of source and inlined functions
  kdumpy report --new                       each new dump of this host gets its report beside it

exit codes:
  0  a verdict was given (also a doubtful one: see its confidence)
  1  the dump is of a running kernel, nothing crashed; or it is too damaged to say anything
  2  wrong usage     3  could not (no such file, not a dump)
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from kdumpy.cli.common import add_dump, add_json, colourful
from kdumpy.cli.diagnosing import diagnose_arguments, write_private

_LONGEST = 1e9
"""Seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_dump(parser, new=True)
    add_json(parser)
    parser.add_argument("--new", action="store_true",
                        help="report on every dump in the folders that has no report yet (those of the configuration "
                             "if none is named), beside it; what kdumpy-report.service does at boot")
    parser.add_argument("--full", action="store_true",
                        help="more than a screen: all evidence, CPUs, blocked tasks, system, log")
    parser.add_argument("--explain", action="store_true",
                        help="also say how cause, culprit and signature were chosen, step by step")
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS",
                        help="CPU time that each of the causes, checks and other steps may take (30; 0: any); one that "
                             "takes longer is left out, and named")
    parser.add_argument("--html", type=Path, metavar="FILE",
                        help="write a page for a browser there (mode 0600), in one file that needs no network; the "
                             "terminal then gets the verdict in a line, or what --json and -o ask for")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE",
                        help="write the report there (mode 0600: a dump holds secrets) and not to the terminal")


def _seconds(word: str) -> float:
    """Read a number of seconds; the clock takes no more than some decades."""
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of seconds")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Print or write the report."""
    if arguments.new:
        from kdumpy.cli.newreports import run_new

        given = [name for name in ("html", "output", "explain", "timeout", "vmlinux")
                 if getattr(arguments, name, None) not in (None, False, [])]
        if given:
            arguments.parser.error(f"--{given[0]} is for one dump: --new writes report.txt, report.json and "
                                   "report.html beside each")
        arguments.folders = arguments.vmcore
        return run_new(arguments)
    if len(arguments.vmcore) != 1:
        arguments.parser.error("one VMCORE is wanted" if not arguments.vmcore else
                               f"one VMCORE at a time, {len(arguments.vmcore)} were named: the folders of several "
                               "are for --new")
    arguments.vmcore = arguments.vmcore[0]
    from kdumpy.crash.patience import Patience

    with Patience(sys.stderr).watching(f"reading {arguments.vmcore.name}"):
        diagnosis, details = diagnose_arguments(arguments)
    if arguments.html is not None and details is not None:
        from kdumpy.report import html

        write_private(arguments.html, html.render(diagnosis, details))
    if arguments.html is not None and not arguments.json and arguments.output is None:
        from kdumpy.units import printable

        text = f"{printable(diagnosis.verdict.title)}\n{printable(str(arguments.html))}\n"
    elif arguments.json:
        from kdumpy.report import json

        text = json.render(diagnosis)
    else:
        from kdumpy.report import text as human

        terminal = arguments.output is None and sys.stdout.isatty()
        width = shutil.get_terminal_size((100, 24)).columns if terminal else 100
        text = human.render(diagnosis, width=width, colour=arguments.output is None and colourful(),
                            full=arguments.full or arguments.output is not None,
                            explained=arguments.explain, cut=terminal)
    if arguments.output is not None:
        write_private(arguments.output, text)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    verdict = diagnosis.verdict
    return 1 if verdict.cause == "none" or (verdict.cause == "unknown" and not verdict.evidence) else 0
