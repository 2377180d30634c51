"""Print the kernel's log out of a dump.

Needs neither symbols nor types of the kernel, and reads what is left of a damaged dump.

examples:
  kdumpy log vmcore                      everything, as dmesg prints it
  kdumpy log vmcore --last 30 -T         the last lines, with the time of day
  kdumpy log vmcore -l err+              errors and worse
  kdumpy log vmcore --since -10          the last ten seconds before the crash
  kdumpy log vmcore --json | jq .        one object a record

Exits with 1 when only a part of the log could be read.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.common import add_json, colourful, print_json
from kdumpy.errors import UsageError
from kdumpy.units import printable

if TYPE_CHECKING:
    from kdumpy.dumpfile.dmesg import KernelLog, LogRecord

LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
"""The kernel's levels, 0 the worst; named as dmesg names them."""

# Source: util-linux, sys-utils/dmesg.c, the default colours.
_LEVEL_COLOURS = {0: "\033[1;31m", 1: "\033[1;31m", 2: "\033[1;31m", 3: "\033[31m", 4: "\033[33m"}
_TIME_COLOUR, _PLAIN = "\033[32m", "\033[m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("vmcore", type=Path, metavar="VMCORE", help="the dump: ELF, kdump-compressed or flattened")
    parser.add_argument("-T", "--ctime", action="store_true",
                        help="show the time of day (UTC), reckoned back from the time of the crash")
    parser.add_argument("-t", "--notime", action="store_true", help="show no time")
    parser.add_argument("-x", "--decode", action="store_true", help="show each line's level in words")
    parser.add_argument("--callers", action="store_true", help="show the task (T) or CPU (C) that printed each line")
    parser.add_argument("-l", "--level", metavar="LIST",
                        help=f"keep these levels, such as 'err,warn', or 'err+' for it and worse: {', '.join(LEVELS)}")
    parser.add_argument("--since", type=float, metavar="SECONDS",
                        help="keep what was printed so many seconds after the boot and later; negative: before the end")
    parser.add_argument("--last", type=int, metavar="N", help="keep the last N lines")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the log; 1 when a part of it could not be read."""
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.dmesg import read_log

    levels = parse_levels(arguments.level) if arguments.level else None
    if arguments.last is not None and arguments.last < 1:
        raise UsageError("--last wants a number of lines above zero")
    with open_dump(arguments.vmcore) as dump:
        log = read_log(dump)
        boot = boot_time(log, dump.crash_time) if arguments.ctime else None
    if arguments.ctime and boot is None:
        print("kdumpy: the dump does not tell when it crashed: times are seconds since the boot", file=sys.stderr)
    records = select(log.records, levels, arguments.since)
    if arguments.json:
        print_json([record.as_json() for record in records[-(arguments.last or 0):]])
    else:
        lines = [line for record in records for line in _lines(record, arguments, boot)]
        for line in lines[-(arguments.last or 0):]:
            print(line)
    return _tell_losses(log)


def parse_levels(text: str) -> frozenset[int]:
    """Return the numbers of a list of levels: `err,warn`, `err+` (it and worse), `+info` (it and lesser)."""
    found: set[int] = set()
    for part in text.split(","):
        name = part.strip().strip("+").lower()
        name = {"error": "err", "warning": "warn"}.get(name, name)
        if name not in LEVELS:
            raise UsageError(f"there is no level {part!r}", mend=f"levels are {', '.join(LEVELS)}")
        number = LEVELS.index(name)
        if part.strip().endswith("+"):
            found.update(range(number + 1))
        elif part.strip().startswith("+"):
            found.update(range(number, len(LEVELS)))
        else:
            found.add(number)
    return frozenset(found)


def boot_time(log: KernelLog, crash_time: int | None) -> float | None:
    """Return when the kernel booted, in seconds since 1970, or None.

    The last record was printed within a second of the crash; the kernel's log clock stops in a suspend,
    so earlier times of such a machine are late.
    """
    last = max((record.ts_ns for record in log.records), default=-1)
    return crash_time - last / 1e9 if crash_time is not None and last >= 0 else None


def select(records: Sequence[LogRecord], levels: frozenset[int] | None, since: float | None) -> list[LogRecord]:
    """Return the records of some levels that were printed since a time; a record of unknown level or time stays."""
    if since is not None and since < 0:
        since += max((record.seconds for record in records), default=0.0)
    return [record for record in records
            if (levels is None or record.level in levels or record.level < 0)
            and (since is None or record.ts_ns < 0 or record.seconds >= since)]


def _lines(record: LogRecord, arguments: argparse.Namespace, boot: float | None) -> Iterator[str]:
    stamp = "" if arguments.notime else record.prefix(callers=arguments.callers)
    if boot is not None and record.ts_ns >= 0 and not arguments.notime:
        stamp = time.strftime("[%a %b %e %H:%M:%S %Y] ", time.gmtime(boot + record.seconds))
        if arguments.callers and record.caller:
            stamp += f"[{record.caller:>6}] "
    if arguments.decode and record.level >= 0:
        stamp = f"{LEVELS[record.level]:<6}: {stamp}"
    colour = _LEVEL_COLOURS.get(record.level, "") if colourful() else ""
    if colourful() and stamp:
        stamp = f"{_TIME_COLOUR}{stamp}{_PLAIN}"
    for line in record.text.split("\n"):
        text = printable(line)
        yield f"{stamp}{colour}{text}{_PLAIN}" if colour else stamp + text


def _tell_losses(log: KernelLog) -> int:
    if log.source == "salvage":
        print(f"kdumpy: this is what a scan of memory found, without times and levels: {log.why}", file=sys.stderr)
        return 1
    if log.unreadable:
        print(f"kdumpy: {log.unreadable} records could not be read: {log.why}", file=sys.stderr)
        return 1
    return 0
