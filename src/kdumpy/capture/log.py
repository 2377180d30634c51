"""The crashed kernel's log as vmcore-dmesg.txt, and the name of the crash's directory. No numpy, little memory."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.dmesg import read_log

NAME = "vmcore-dmesg.txt"

_NAMELESS = ("", "(none)", "localhost", "localhost.localdomain")
"""Host names that tell nothing."""


@dataclass(frozen=True, slots=True)
class CrashLog:
    """The text, and what is to be said of it."""

    data: bytes
    """As dmesg prints it, UTF-8."""
    lines: int
    losses: str
    """What is missing and why; empty when nothing is."""


def crash_log(dump: Dump) -> CrashLog:
    """Return the kernel log of the crashed kernel; KdumpyError when there is nothing to give."""
    log = read_log(dump)
    text = bytearray()
    lines = 0
    for line in log.lines():
        text += line.encode("utf-8", "backslashreplace") + b"\n"
        lines += 1
    losses = ""
    if log.source == "salvage":
        losses = f"found by a scan of memory, without times and levels, because {log.why}"
    elif log.unreadable:
        losses = f"{log.unreadable} records could not be read: {log.why}"
    return CrashLog(bytes(text), lines, losses)


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
