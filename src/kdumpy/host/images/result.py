"""A capture image that was built, and what it was made of: so that a change of any of it is noticed."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kdumpy import __version__
from kdumpy.capture import declared
from kdumpy.host.settings import Settings
from kdumpy.host.system import System
from kdumpy.image import python

STATE = "/var/lib/kdumpy"

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image and how it came about."""

    path: str
    """`/var/lib/kdumpy/capture-<release>.img`."""
    release: str
    """The capture kernel."""
    bytes: int
    """As it lies in the reserved memory until it is unpacked."""
    unpacked: int
    """Bytes of memory that its files take; a kernel unpacks into at most half of its memory."""
    builder: str
    """builtin, initramfs-tools, dracut or mkinitcpio."""
    why_builder: str
    modules: tuple[str, ...]
    """Kernel modules in it, by name."""
    targets: tuple[str, ...]
    """As the capture kernel gets them."""
    seconds: float
    """That building it took."""
    made_at: float
    """Seconds since 1970."""
    ingredients: Mapping[str, Any]
    """What it was made of; see `ingredients`."""
    unlock: int = 0
    """Bytes of memory that opening the targets' encrypted devices takes (Argon2), before the capture begins."""


def path_of(release: str) -> str:
    """Return where the image of a kernel lies."""
    return f"{STATE}/capture-{release}.img"


def release_of(path: str) -> str:
    """Return the kernel whose image lies at a path, as `path_of` made it."""
    return path.removeprefix(f"{STATE}/capture-").removesuffix(".img")


def record_of(release: str) -> str:
    """Return where it is written down what the image of a kernel was made of."""
    return f"{STATE}/capture-{release}.json"


def load(system: System, release: str) -> BuiltImage | None:
    """Return the image of a kernel that was built last; None where there is none, or an older kdumpy's."""
    text = system.read(record_of(release))
    if text is None or not system.exists(path_of(release)):
        return None
    try:
        values = json.loads(text)
        if values.pop("schema") != SCHEMA:
            return None
        lists = {name: tuple(values[name]) for name in ("modules", "targets")}
        return BuiltImage(**{**values, **lists})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def render(image: BuiltImage) -> str:
    """Return the record as JSON."""
    return json.dumps({"schema": SCHEMA, **asdict(image)}, indent=1) + "\n"


def ingredients(system: System, settings: Settings, release: str, files: Iterable[str],
                storage: Iterable[str], network: str) -> dict[str, Any]:
    """Return what an image is made of, as JSON values.

    Args:
        system: the host.
        settings: only what goes into the image counts.
        release: the capture kernel.
        files: of the host, that the image holds: programs, keys.
        storage: targets as the capture kernel gets them, and their drivers.
        network: a text that changes when the way to the servers does.
    """
    return {"kdumpy": __version__, "code": code(), "python": sys.version.split()[0], "libraries": _libraries(),
            "settings": _hash(declared.render(settings.capture) + declared.render(settings.image)),
            "kernel": _state_of(system, kernel_lists(release)),
            "files": _state_of(system, files), "storage": list(storage), "network": _hash(network)}


def kernel_lists(release: str) -> tuple[str, ...]:
    """Return the files that change when a kernel's modules do."""
    return (f"/lib/modules/{release}/modules.dep", f"/lib/modules/{release}/modules.builtin")


def _state_of(system: System, files: Iterable[str]) -> dict[str, list[int]]:
    found = {}
    for name in sorted(set(files)):
        try:
            state = system.path(name).stat()
        except OSError:
            continue
        found[name] = [state.st_size, state.st_mtime_ns]
    return found


def code() -> str:
    """Return a hash of kdumpy's files that make an image or go into one."""
    package = Path(python.__file__).parents[1]
    parts = [package / f"{name}.py" for name in python.SINGLE]
    parts += [path for part in (*python.PARTS, "image", "host") for path in sorted((package / part).rglob("*"))
              if path.is_file() and path.suffix != ".pyc"]
    digest = hashlib.sha256()
    for path in parts:
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _libraries() -> dict[str, str]:
    found = {}
    for name in sorted({"numpy", *(package for group in python.COMPRESSORS.values() for package in group)}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in words why an image is to be built again; empty: nothing has changed."""
    if before == now:
        return ""
    if before.get("kdumpy") != now["kdumpy"]:
        return f"kdumpy changed: {before.get('kdumpy')} to {now['kdumpy']}"
    if before.get("code") != now["code"]:
        return "kdumpy's own files changed"
    if before.get("python") != now["python"]:
        return f"Python changed: {before.get('python')} to {now['python']}"
    for key, what in (("libraries", "the libraries of Python"), ("kernel", "the kernel's modules"),
                      ("files", "what the image holds")):
        changed = _changed(before.get(key, {}), now[key])
        if changed:
            return f"{what} changed: {', '.join(changed)}"
    for key, what in (("settings", "the configuration changed"), ("storage", "the targets' disks changed"),
                      ("network", "the way to the targets' servers changed")):
        if before.get(key) != now[key]:
            return what
    return "it was made of something else"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)][:3]


FIELDS = tuple(field.name for field in fields(BuiltImage))
