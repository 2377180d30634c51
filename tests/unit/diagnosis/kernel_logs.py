"""Logs of real crashes, as records and as a `Crash` without a dump."""

from __future__ import annotations

import re
from pathlib import Path

from kdumpy.diagnosis.crash import Crash
from kdumpy.dumpfile.logrecord import LogRecord

LOGS = Path(__file__).with_name("logs")
_STAMP = re.compile(r"^\[\s*(\d+)\.(\d{6})\] ?(?:\[\s*[TC]\d+\] )?(.*)$")


def records(text: str, facility: int = 0) -> list[LogRecord]:
    """Return records of a log as dmesg prints it."""
    found = []
    for number, line in enumerate(text.splitlines()):
        stamp = _STAMP.match(line)
        ns = int(stamp[1]) * 1_000_000_000 + int(stamp[2]) * 1000 if stamp else -1
        found.append(LogRecord(number, ns, 1, facility, "", stamp[3] if stamp else line))
    return found


def log(name: str) -> list[LogRecord]:
    """Return the records of a stored log."""
    return records((LOGS / f"{name}.txt").read_text())


def crash(text: str) -> Crash:
    """Return the crash that a log tells of."""
    return Crash(Path("vmcore"), None, records(text))


def stored_crash(name: str) -> Crash:
    """Return the crash that a stored log tells of."""
    return Crash(Path("vmcore"), None, log(name))
