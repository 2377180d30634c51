"""Whether a target is there, can be written to, and how much room it has: as far as this side can tell.

Nothing is written and nobody logs in: `kdumpy rehearse` and `kdumpy test` do.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from kdumpy.capture.config import CaptureConfig
from kdumpy.capture.targets import devices
from kdumpy.errors import HostError, KdumpyError
from kdumpy.host import storage
from kdumpy.host.system import System

PORTS = {"nfs": 2049, "ssh": 22, "http": 80, "https": 443}

CONNECT_S = 1.0
"""A server that takes longer is told as not reached."""


@dataclass(frozen=True, slots=True)
class TargetState:
    """One target, now."""

    url: str
    good: bool | None
    """None: it could not be looked at."""
    reason: str
    mend: str = ""
    free: int | None = None
    """Bytes that root, as whom the capture runs, can write; None: not known from here."""
    size: int | None = None
    """Bytes of the whole file system or device."""
    kept_back: int = 0
    """Bytes of `free` that the file system keeps for root: programs want them, a dump may take them."""


def look(system: System, config: CaptureConfig) -> tuple[TargetState, ...]:
    """Look at all targets of a configuration."""
    return tuple(_one(system, url, config) for url in config.targets)


def _one(system: System, url: str, config: CaptureConfig) -> TargetState:
    try:
        if url.startswith(("/", "file:")):
            return _directory(system, url, url if url.startswith("/") else unquote(urlsplit(url).path))
        scheme = url.partition(":")[0]
        if scheme == "disk":
            return _disk(system, url)
        if scheme == "raw":
            return _raw(system, url)
        return _server(url, scheme, config)
    except (KdumpyError, OSError) as error:
        why = f"{error.what}: {error.why}" if isinstance(error, KdumpyError) else error.strerror or str(error)
        refused = isinstance(error, PermissionError) or "permitted" in why or "denied" in why
        return TargetState(url, None if refused else False, why,
                           (error.mend if isinstance(error, KdumpyError) else "") or
                           (_refused() if refused else "mend it, or name another target"))


def _refused() -> str:
    return "run it as root" if os.geteuid() != 0 else \
        "a container's rules or a security module forbid it even to root: see the audit log"


def _directory(system: System, url: str, path: str) -> TargetState:
    """Look at a directory of this host; one that is not there yet is made by the capture."""
    there = PurePosixPath(path)
    while not system.exists(str(there)) and there != there.parent:
        there = there.parent
    # The capture kernel has to find the file system by itself: a tmpfs or an overlay is lost with the crash.
    place = storage.place_of(system, str(there))
    return _filesystem(system, url, str(there), f"{place.mount.kind} on {place.mount.source}")


def _filesystem(system: System, url: str, path: str, what: str) -> TargetState:
    found = os.statvfs(system.path(path))
    free, size = found.f_bfree * found.f_frsize, found.f_blocks * found.f_frsize
    kept_back = free - found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        return TargetState(url, False, f"{what} is mounted read-only", "see `dmesg` for errors of the file system, "
                           "then mount it for writing", free, size)
    if found.f_files and not found.f_favail:
        return TargetState(url, False, f"{what} has no inodes left", "remove files", free, size)
    if os.geteuid() != 0 and not os.access(system.path(path), os.W_OK):
        return TargetState(url, None, "whether it can be written to is for root to see", "run it as root", free, size)
    return TargetState(url, True, what, "", free, size, kept_back)


def _disk(system: System, url: str) -> TargetState:
    device, _inside = devices.split(url.removeprefix("disk:"))
    found = storage.find_device(system, device)
    node = storage.node_of(found.name)
    if not found.content.kind:
        return TargetState(url, False, f"nothing was recognised on {node}", "make a file system on it, or use raw:")
    number = system.value(f"/sys/class/block/{found.name}/dev")
    mounted = next((mount for mount in storage.mounts(system) if mount.device == number), None)
    if mounted is None:
        return TargetState(url, True, f"{found.content.kind} on {node}, not mounted here", "", None, _size(system,
                           found.name))
    return _filesystem(system, url, mounted.point, f"{found.content.kind} on {node}")


def _raw(system: System, url: str) -> TargetState:
    found = storage.find_device(system, url.removeprefix("raw:"))
    node, size = storage.node_of(found.name), _size(system, found.name)
    number = system.value(f"/sys/class/block/{found.name}/dev")
    if any(mount.device == number for mount in storage.mounts(system)):
        return TargetState(url, False, f"{node} is mounted: the capture does not overwrite it", "name another device")
    return TargetState(url, True, f"{node}, without a file system", "", size, size)


def _size(system: System, name: str) -> int | None:
    text = system.value(f"/sys/class/block/{name}/size")
    return int(text) * 512 if text and text.isdecimal() else None


def _server(url: str, scheme: str, config: CaptureConfig) -> TargetState:
    parts = urlsplit(url)
    port = parts.port or PORTS[scheme]
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_S):
            pass
    except OSError as error:
        raise HostError("the server does not answer", where=url, why=f"{parts.hostname} port {port}: "
                        f"{error.strerror or error}", mend="see to the network, the server and its firewall") from error
    return TargetState(url, True, f"{parts.hostname} answers on port {port}; its room and its rights are not seen "
                       f"from here")
