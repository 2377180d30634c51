"""Boot loader entries, type #1: one file a kernel, read by systemd-boot, by GRUB's blscfg, by zipl.

Source: UAPI.1, The Boot Loader Specification. `options` may be there several times; the lines are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cmp_to_key

from kdumpy.host.bootloaders.files import changed, set_in_lines, text_of
from kdumpy.host.changes import FileChange
from kdumpy.host.system import System

OPTIONS = re.compile(r"[ \t]*options[ \t]+")

WHY = "parameters of a boot entry"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry that starts a Linux."""

    path: str
    id: str
    """The file's name without `.conf`, and without the tries left (`+3-0`)."""
    version: str
    sort_key: str
    machine_id: str
    title: str
    linux: str
    options: str
    """All option lines, joined with blanks."""
    failed: bool
    """Its tries are used up: it comes last."""


def read(system: System, folder: str) -> list[Entry]:
    """Return the entries of a folder that start a Linux, in the order in which a menu shows them."""
    found = []
    for path in system.glob(f"{folder}/*.conf"):
        text = text_of(system, path)
        fields = dict(reversed([*_fields(text or "")]))          # of keys that are there twice the first counts
        if "linux" not in fields:
            continue
        stem, _, tries = path.rpartition("/")[2].removesuffix(".conf").partition("+")
        found.append(Entry(path, stem, fields.get("version", ""), fields.get("sort-key", ""),
                           fields.get("machine-id", ""), fields.get("title", ""), fields["linux"],
                           " ".join(value for name, value in _fields(text or "") if name == "options"),
                           tries.partition("-")[0] == "0"))
    return sorted(found, key=cmp_to_key(_order))


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, *rest = line.strip().split(None, 1)[:2] or [""]
        if name and not name.startswith("#"):
            yield name, rest[0] if rest else ""


def plan(system: System, entries: list[Entry], parameters: Mapping[str, str | None]) -> Iterator[FileChange]:
    """Yield the changes that set parameters in entries, in their options lines or a new one."""
    for entry in entries:
        text = text_of(system, entry.path) or ""
        lines = text.splitlines(keepends=True)
        for name, value in parameters.items():
            _set(lines, name, value)
        yield from changed(system, entry.path, "".join(lines), WHY)


def _set(lines: list[str], name: str, value: str | None) -> None:
    """Set a parameter in an entry's lines."""
    found = {at: match.end() for at, line in enumerate(lines) if (match := OPTIONS.match(line))}
    if not found and value is not None:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append("options \n")
        found = {len(lines) - 1: len("options ")}
    for skip in sorted(set(found.values())):
        usable = [at for at, length in found.items() if length == skip]
        last = max(found) in usable
        set_in_lines(lines, usable, name, value if last else None, skip)


def _order(left: Entry, right: Entry) -> int:
    """Compare two entries as the specification sorts them: what is to be started by default comes first."""
    if left.failed != right.failed:
        return 1 if left.failed else -1
    if bool(left.sort_key) != bool(right.sort_key):
        return -1 if left.sort_key else 1
    if left.sort_key:
        for mine, other in ((left.sort_key, right.sort_key), (left.machine_id, right.machine_id)):
            if mine != other:
                return -1 if mine < other else 1
        order = -compare(left.version, right.version)
        if order:
            return order
    return -compare(left.id, right.id)


def newest_first(names: Iterable[str]) -> list[str]:
    """Return names that hold a version, the newest first."""
    return sorted(names, key=cmp_to_key(compare), reverse=True)


def compare(left: str, right: str) -> int:
    """Compare two versions: -1, 0, 1. Source: UAPI.10, Version Format Specification."""
    pieces = [re.findall(r"[0-9]+|[A-Za-z]+|[~^.-]", text) for text in (left, right)]
    ranks = {"~": 0, "": 1, "-": 2, "^": 3, ".": 4}
    for at in range(max(map(len, pieces))):
        mine, other = (piece[at] if at < len(piece) else "" for piece in pieces)
        if mine == other:
            continue
        if mine in ranks or other in ranks:
            order = ranks.get(mine, 5) - ranks.get(other, 5)
        elif mine.isdigit() and other.isdigit():
            order = int(mine) - int(other)
        elif mine.isdigit() or other.isdigit():
            order = 1 if mine.isdigit() else -1
        else:
            order = -1 if mine < other else 1
        if order:
            return 1 if order > 0 else -1
    return 0
