"""The kernel's log, as it comes: what it said while a system call was made.

Source: Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import os
import re
from types import TracebackType
from typing import Self

from kdumpy.host.system import System

DEVICE = "/dev/kmsg"

_LINES = 200
"""Records that are read at most: a driver may fill the log meanwhile."""

_RECORDS = 20_000
"""Of the whole log."""

_ABOUT = re.compile(r"kexec|crash|lockdown|locked down|bzimage|purgatory|signature|integrity|\bima\b", re.IGNORECASE)
"""What the kernel says of a load that it refuses."""

_SIGNATURE = re.compile(r"PEFILE|PE binary|PKCS7|X\.?509", re.IGNORECASE)
"""What it says of every kernel that is not signed, refused or not."""


class KernelLog:
    """What the kernel writes from now on; empty where it may not be read. A context manager."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._descriptor = -1

    def __enter__(self) -> Self:
        if self._system.live:
            try:
                self._descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.lseek(self._descriptor, 0, os.SEEK_END)
            except OSError:
                self._close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._close()

    def about_loading(self, *, signature: bool = False) -> str:
        """Return the last lines that speak of loading a kernel, joined; empty where there are none.

        Args:
            signature: those of its signature too, which are there even where it does not matter.
        """
        found: list[str] = []
        for _ in range(_LINES if self._descriptor >= 0 else 0):
            try:
                record = os.read(self._descriptor, 8192)
            except BrokenPipeError:         # records were overwritten; the next read goes on
                continue
            except OSError:                 # BlockingIOError: that was all
                break
            text = record.decode(errors="replace").partition(";")[2].splitlines()
            if text and (_ABOUT.search(text[0]) or (signature and _SIGNATURE.search(text[0]))):
                found.append(text[0].strip())
        return " / ".join(found[-3:])[:400]

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def said_at_boot(system: System, pattern: str) -> str:
    """Return the first line of the kernel's log that matches; empty where there is none or it may not be read."""
    if not system.live:
        lines = (system.value("/var/log/dmesg") or "").splitlines()
        return next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), "")
    wanted = re.compile(pattern, re.IGNORECASE)
    try:
        descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        for _ in range(_RECORDS):
            try:
                record = os.read(descriptor, 8192)
            except BrokenPipeError:
                continue
            except OSError:
                break
            # The command line is in the log, too: it is asked for elsewhere.
            text = record.decode(errors="replace").partition(";")[2].partition("\n")[0]
            if wanted.search(text) and "ommand line:" not in text:
                return text.strip()
    finally:
        os.close(descriptor)
    return ""
