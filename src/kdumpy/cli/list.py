"""List the dumps of this machine, newest first: when, which kernel, how large, why.

examples:
  kdumpy list                     what lies in the directories of /etc/kdumpy.toml, or in /var/crash
  kdumpy list /srv/dumps a/vmcore other folders and files
  kdumpy list --json

The cause is the line of the kernel's log that tells it; `kdumpy report` says more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kdumpy.cli.common import add_json, print_json
from kdumpy.crash.panicline import fatal_line
from kdumpy.errors import KdumpyError
from kdumpy.units import human_bytes, printable

DEFAULT_FOLDER = Path("/var/crash")
_NAMES = ("vmcore", "vmcore-incomplete", "vmcore-incomplete.*", "dump.*", "vmcore.*", "*.vmcore", "*.kdump")
"""What makedumpfile, kdump-utils, kdump-tools (dump.TIME) and kdumpy call a dump."""
_NOT_DUMPS = (".txt", ".json", ".html", ".log", ".md5", ".sha256", ".gz", ".xz", ".tmp")
_DEEPEST = 3
_MOST = 10_000
"""Dumps that are looked for."""
_LOG_NAMES = ("vmcore-dmesg.txt", "vmcore-dmesg-incomplete.txt", "dmesg.txt")
_WORDS = 60
"""Columns for why a dump cannot be read."""
_LONGEST_LOG = 16 << 20
_STAMP = re.compile(r"\[\s*(\d+\.\d+)\] (?:\[\s*[TC]\d+\] )?")


@dataclass(frozen=True)
class DumpRow:
    """A dump."""

    path: str
    time: int | None
    """When the kernel crashed, in seconds since 1970; when the file was written, where the dump does not tell."""
    kernel: str | None
    host: str | None
    size: int
    """Bytes of the file."""
    cause: str | None
    state: str
    """complete, incomplete (its writer stopped early), damaged, unreadable, log (only the kernel's log was saved), or
    nothing (only the capture's own log)."""
    problem: str
    """Why it is not complete, or empty."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", default=[],
                        help="dumps, and folders that hold some; if none is given, the directories that dumps go to")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the list; an empty one is an answer too."""
    missing = [path for path in arguments.paths if not path.exists()]
    if missing:
        raise KdumpyError("no such file or folder", where=str(missing[0]))
    paths = arguments.paths or _configured()
    rows = sorted((*map(describe, find(paths)), *without_dump(paths)), key=lambda row: row.time or 0, reverse=True)
    if arguments.json:
        print_json([asdict(row) for row in rows])
    elif rows:
        _show(rows)
    else:
        print("no dumps", file=sys.stderr)
    return 0


def _configured() -> list[Path]:
    from kdumpy.host import settings
    from kdumpy.host.crashes import folders
    from kdumpy.host.system import System

    try:
        found = folders(settings.load(System()).capture)
    except KdumpyError:                 # its keys are `kdumpy status`' business
        found = ()
    return list(map(Path, found)) or [DEFAULT_FOLDER]


def without_dump(paths: Iterable[Path]) -> Iterator[DumpRow]:
    """Yield the crashes in some folders of which the capture saved no dump: what is there, and why."""
    from kdumpy.host import crashes, lastcrash
    from kdumpy.host.system import System

    system = System()
    found: list[crashes.Crash] = []
    for path in paths:
        with contextlib.suppress(OSError):      # `find` has told it
            found += crashes.find(system, (str(path.absolute()),)) if path.is_dir() else []
    for crash in found:
        if crash.state in ("log", "nothing"):
            cause = fatal_line(_log_beside(Path(crash.path) / _NAMES[0])) or None
            yield DumpRow(crash.log or crash.journal, int(crash.at), None, None, crash.bytes, cause, crash.state,
                          lastcrash.why_not_whole(system, crash)[0])


def find(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that look like dumps: those named, and those in the folders that are named."""
    seen: set[Path] = set()
    for path in paths:
        for file in [path] if path.is_file() else _inside(path, _DEEPEST):
            real = file.resolve()
            if real not in seen and len(seen) < _MOST:
                seen.add(real)
                yield file


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        if folder.exists():
            print(f"kdumpy: {folder}: {error.strerror}", file=sys.stderr)
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink() and depth > 1:
            yield from _inside(entry, depth - 1)
        elif entry.is_file() and any(entry.match(name) for name in _NAMES) and entry.suffix not in _NOT_DUMPS:
            yield entry


def describe(path: Path) -> DumpRow:
    """Return what can be said of a dump without reading much of it."""
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.health import health

    status = path.stat()
    incomplete = "incomplete" in path.name
    try:
        with open_dump(path) as dump:
            info = dump.vmcoreinfo
            try:
                names = dump.utsname
            except KdumpyError:
                names = None
            found = health(dump)
            state = "incomplete" if incomplete or dump.incomplete else found.state.value
            problem = "its writer stopped before the end" if state == "incomplete" else \
                "; ".join(reason.what for reason in found.reasons)
            lines = _log_beside(path) or _log_inside(path)
            return DumpRow(str(path), dump.crash_time or int(status.st_mtime),
                           info.osrelease or (names.release if names else None), names.nodename if names else None,
                           status.st_size, _reported(path) or fatal_line(lines) or None, state, problem)
    except (KdumpyError, OSError) as error:
        return DumpRow(str(path), int(status.st_mtime), None, None, status.st_size,
                       fatal_line(_log_beside(path)) or None, "unreadable", _in_words(error))


def _in_words(error: KdumpyError | OSError) -> str:
    """Return what went wrong; the path stands beside it."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error.what}: {error.why}" if error.why else error.what


def _reported(path: Path) -> str:
    """Return the title of the report that stands beside a dump, or empty."""
    for name in ("report.json", f"{path.name}.report.json"):
        try:
            with (path.parent / name).open() as file:
                verdict = json.load(file).get("verdict", {})
            # Where the report found nothing the log may.
            return str(verdict.get("title") or "") if verdict.get("cause") != "unknown" else ""
        except (OSError, ValueError, AttributeError):
            continue
    return ""


def _log_beside(path: Path) -> list[tuple[float, str]]:
    """Return (seconds, line) of the log that the capture saved beside the dump."""
    # kdump-tools: dump.202611231730 and dmesg.202611231730 in one folder.
    names = [*_LOG_NAMES, path.name.replace("dump.", "dmesg.", 1)]
    for name in names:
        log = path.parent / name
        if log != path and log.is_file():
            try:
                with log.open(errors="replace") as file:
                    return [_timed(line) for line in file.read(_LONGEST_LOG).splitlines()]
            except OSError:
                continue
    return []


def _timed(line: str) -> tuple[float, str]:
    match = _STAMP.match(line)
    return (float(match[1]), line[match.end():]) if match else (-1.0, line)


def _log_inside(path: Path) -> list[tuple[float, str]]:
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.dmesg import read_log

    try:
        with open_dump(path) as dump:
            return [(record.ts_ns / 1e9, record.text) for record in read_log(dump, allow_salvage=False).records]
    except KdumpyError:
        return []


def _show(rows: list[DumpRow]) -> None:
    table = [("TIME (UTC)", "KERNEL", "HOST", "SIZE", "CAUSE", "DUMP")]
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.time)) if row.time is not None else "-"
        mark = "" if row.state == "complete" else f"[{row.state}] "
        cause = row.cause or (textwrap.shorten(row.problem, _WORDS, placeholder="…") if mark else "-")
        table.append((when, row.kernel or "-", row.host or "-", human_bytes(row.size),
                      mark + cause, row.path))
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    for line in table:
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(line[:5], widths, strict=True))
        print(printable(f"{cells}  {line[5]}"))
