"""Block devices by what people call them: UUID, LABEL, PARTUUID, PARTLABEL or a path; with and without udev."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

from kdumpy.capture.targets.superblock import Content, probe
from kdumpy.errors import HostError, UsageError

TAGS = ("UUID", "LABEL", "PARTUUID", "PARTLABEL")

_LINKS = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
_PAUSE = 0.25
"""Seconds between two looks."""


def split(text: str) -> tuple[str, str]:
    """Split `UUID=…/dir` into device and directory; a device's own path is split where the device is found.

    UsageError when it is neither a tag nor a path.
    """
    tag, equals, rest = text.partition("=")
    if equals and tag in TAGS:
        value, slash, directory = rest.partition("/")
        if not value:
            raise UsageError(f"{tag}= names nothing: {text!r}")
        return f"{tag}={unquote(value)}", unquote(slash + directory)
    if text.startswith("/dev/"):
        return text, ""
    raise UsageError(f"not a device: {text!r}", mend=f"write /dev/… or one of {', '.join(tag + '=…' for tag in TAGS)}")


def find(device: str) -> tuple[Path, str] | None:
    """Return the device's node and what follows it in a path (a directory on it), or None when it is not there."""
    tag, equals, value = device.partition("=")
    if equals and tag in TAGS:
        node = _by_link(tag, value) or _by_looking(tag, value)
        return None if node is None else (node, "")
    # /dev/mapper/vg-crash/dumps: the longest beginning that is a block device.
    path = Path(device)
    for candidate in (path, *path.parents):
        if is_block(candidate):
            rest = str(path.relative_to(candidate))
            return candidate.resolve(), "" if rest == "." else f"/{rest}"
    return None


def is_block(path: Path) -> bool:
    """Tell whether a path is a block device."""
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return False


def wait(device: str, seconds: float, tick: Callable[[], None] = lambda: None) -> tuple[Path, str]:
    """Do as `find`, again and again until the device appears; HostError when it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := find(device)) is None:
        if time.monotonic() >= deadline:
            raise HostError("the device did not appear", where=device, why=f"waited {seconds:.0f} s; "
                            f"there are {', '.join(sorted(node.name for node in _all())) or 'no block devices'}",
                            mend="check that its driver is in the capture image: kdumpy image")
        tick()
        time.sleep(_PAUSE)
    return found


def content(node: Path) -> Content:
    """Return what lies on a device; HostError when it cannot be read."""
    try:
        return probe(node)
    except OSError as error:
        raise HostError("cannot read the device", where=str(node), why=error.strerror or str(error)) from error


def _by_link(tag: str, value: str) -> Path | None:
    # udev escapes what is not plain in a link's name: \x20.
    escaped = "".join(letter if letter.isalnum() or letter in "#+-.:=@_" or ord(letter) > 127
                      else "".join(f"\\x{byte:02x}" for byte in letter.encode()) for letter in value)
    name = value.lower() if tag in ("UUID", "PARTUUID") and "-" in value and len(value) > 9 else escaped
    link = Path("/dev/disk", _LINKS[tag], name)
    return link.resolve() if is_block(link) else None


def _by_looking(tag: str, value: str) -> Path | None:
    for node in _all():
        if tag in ("PARTUUID", "PARTLABEL"):
            if _uevent(node).get("PARTUUID" if tag == "PARTUUID" else "PARTNAME", "").lower() == value.lower():
                return node
            continue
        try:
            found = probe(node)
        except OSError:
            continue
        if (tag == "UUID" and found.uuid.lower() == value.lower()) or (tag == "LABEL" and found.label == value):
            return node
    return None


def _uevent(node: Path) -> dict[str, str]:
    try:
        text = Path("/sys/class/block", node.name, "uevent").read_text()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _all() -> Iterator[Path]:
    """Yield the nodes of all block devices with something in them; device-mapper and md first, their parts last."""
    folder = Path("/sys/class/block")
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    # A file system in a mirror's half or below LUKS must not be taken for the one above it.
    for name in sorted(names, key=lambda name: (not name.startswith(("dm-", "md")), name)):
        node = Path("/dev", name.replace("!", "/"))
        try:
            empty = Path("/sys/class/block", name, "size").read_text().strip() == "0"
        except OSError:
            empty = True
        if not empty and is_block(node):
            yield node
