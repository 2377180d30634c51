"""The crashes that lie on this host: the folders below the targets that are directories here, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kdumpy.capture.config import CaptureConfig
from kdumpy.host.system import System

JOURNAL = "kexec-dmesg.log"

_DUMPS = ("vmcore", "vmcore.flat", "vmcore.age", "vmcore.gpg", "vmcore.flat.age", "vmcore.flat.gpg")
_LOGS = ("vmcore-dmesg.txt", "vmcore-dmesg-incomplete.txt", "dmesg.txt")


@dataclass(frozen=True, slots=True)
class Crash:
    """One crash's folder."""

    path: str
    at: float
    """When its newest file was written, in seconds since 1970: shortly after the crash."""
    state: str
    """`complete`, `incomplete`, `log` (the kernel's log alone) or `nothing`."""
    dump: str = ""
    """The dump's path, whole or not."""
    bytes: int = 0
    """Of all its files."""
    log: str = ""
    """The crashed kernel's log."""
    journal: str = ""
    """What the capture wrote of its steps."""


def folders(config: CaptureConfig) -> tuple[str, ...]:
    """Return the directories of this host that are targets."""
    return tuple(url if url.startswith("/") else unquote(urlsplit(url).path) for url in config.targets
                 if url.startswith(("/", "file:")))


def find(system: System, places: tuple[str, ...]) -> list[Crash]:
    """Return the crashes below some directories, the newest first.

    Raises:
        OSError: a directory may not be read.
    """
    found = [crash for place in places for crash in _below(system, place)]
    return sorted(found, key=lambda crash: crash.at, reverse=True)


def _below(system: System, place: str) -> Iterator[Crash]:
    root = system.path(place)
    if not root.is_dir():
        return
    for folder in root.iterdir():
        if folder.is_dir() and not folder.is_symlink():
            crash = describe(folder, f"{place.rstrip('/')}/{folder.name}")
            if crash is not None:
                yield crash


def describe(folder: Path, name: str) -> Crash | None:
    """Return what a folder holds; None where it is no crash's."""
    files = {path.name: path.stat() for path in folder.iterdir() if path.is_file()}
    # kdump-tools: dump.202611231730 and dmesg.202611231730.
    whole = next((one for one in (*_DUMPS, f"dump.{folder.name}") if one in files), "")
    part = next((one for one in sorted(files) if one.startswith(("vmcore-incomplete", "dump-incomplete"))), "")
    log = next((one for one in (*_LOGS, f"dmesg.{folder.name}") if one in files), "")
    journal = JOURNAL if JOURNAL in files else ""
    if not (whole or part or log or journal):
        return None
    state = "complete" if whole else "incomplete" if part else "log" if log else "nothing"
    # A report that was added later is not the crash.
    newest = files[whole].st_mtime if whole else max(status.st_mtime for file, status in files.items()
                                                     if not file.startswith("report."))

    def at(one: str) -> str:
        return f"{name}/{one}" if one else ""

    return Crash(name, newest, state, at(whole or part), sum(status.st_size for status in files.values()), at(log),
                 at(journal))
