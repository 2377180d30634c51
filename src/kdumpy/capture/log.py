"""The crashed kernel's log as vmcore-dmesg.txt, and the name of the crash's directory. No numpy, little memory."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.dmesg import LogRecord, Progress, open_log, read_log
from kdumpy.errors import KdumpyError

NAME = "vmcore-dmesg.txt"

_LARGEST = 32 << 20
"""Bytes of text; of a longer log the end is kept, which tells of the crash."""

_NAMELESS = ("", "(none)", "localhost", "localhost.localdomain")
"""Host names that tell nothing."""


@dataclass(frozen=True, slots=True)
class CrashLog:
    """The text, and what is to be said of it."""

    data: bytes | bytearray
    """As dmesg prints it, UTF-8."""
    lines: int
    losses: str
    """What is missing and why; empty when nothing is."""


def crash_log(dump: Dump) -> CrashLog:
    """Return the kernel log of the crashed kernel; KdumpyError when there is nothing to give."""
    progress = Progress()
    text = _Text()
    try:
        # One record after the other: a log of 16 MiB held as records would take all memory that there is.
        for record in open_log(dump, progress)[1]:
            text.add(record)
    except KdumpyError as error:
        progress.lost(1, error)
    if not text.lines:
        return _salvaged(dump)
    losses = [f"{progress.unreadable} records could not be read: {progress.why}"] if progress.unreadable else []
    losses += [f"the oldest {text.dropped} bytes are left out: it is too long"] if text.dropped else []
    return CrashLog(text.data, text.lines, "; ".join(losses))


def _salvaged(dump: Dump) -> CrashLog:
    """Return what can be had when the log cannot be read as it should: the tolerant reader scans memory for it."""
    log = read_log(dump)
    text = _Text()
    for record in log.records:
        text.add(record)
    return CrashLog(text.data, text.lines, f"found by {log.source}, because {log.why}" if log.why else "")


class _Text:
    """The lines so far, the newest of them if there are too many."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lines = 0
        self.dropped = 0

    def add(self, record: LogRecord) -> None:
        """Add a record's lines."""
        for line in record.lines():
            self.data += line.encode("utf-8", "backslashreplace") + b"\n"
            self.lines += 1
        if len(self.data) > _LARGEST:
            cut = self.data.index(b"\n", _LARGEST // 4) + 1
            self.lines -= self.data.count(b"\n", 0, cut)
            del self.data[:cut]
            self.dropped += cut


def directory_name(dump: Dump, path_name: str = "") -> str:
    """Return `<host>-YYYY-MM-DD-HH:MM:SS` (UTC), the same for every attempt at one crash.

    The host's name is the configured one, else the crashed kernel's, else this kernel's, else its address.
    """
    when = dump.crash_time
    if when is None or when <= 0:
        when = int(time.time())
    moment = time.strftime("%Y-%m-%d-%H:%M:%S", time.gmtime(when))
    return f"{_host(dump, path_name)}-{moment}"


def _host(dump: Dump, path_name: str) -> str:
    crashed = dump.utsname if not path_name else None
    candidates = (path_name, crashed.nodename if crashed else "", socket.gethostname())
    for name in candidates:
        # What a damaged dump holds must not become a path.
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".-")[:64]
        if name not in _NAMELESS and plain:
            return plain
    return _address()


def _address() -> str:
    """Return the address that this machine would send from, or the one that peers use for none: 127.0.0.1."""
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent: it only asks the routes
                probe.connect((far, 9))
                return str(probe.getsockname()[0]).replace("%", "_")
        except OSError:
            continue
    return "127.0.0.1"
