"""The table at a raw target's end: what lies where on the device, in plain text.

    kdumpy raw 1
    directory web-3-2026-11-23-17:58:57
    start 4b44554d50202020060000004c696e75
    file 0 65011712 vmcore
    file 1056964608 27159 vmcore-dmesg.txt
    end

`start` are the dump's first 16 bytes: while the device begins so, it is as the capture left it.
Offset and size in bytes. The last megabytes before the table are two halves for the small files, written in turn,
so that a loss of power leaves the former ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kdumpy.capture.targets.files import told
from kdumpy.errors import HostError

TABLE_BYTES = 4096
START_BYTES = 16
"""Of the dump, kept in the table."""
_MAGIC = "kdumpy raw 1"
_END = "end"
_LARGEST_HALF = 16 << 20
_PART = 32
"""A half takes at most this part of the device."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file."""

    name: str
    offset: int
    size: int
    """Bytes."""

    @property
    def is_dump(self) -> bool:
        """The dump is what lies at the device's start."""
        return self.offset == 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where on a device of some size what may lie."""

    size: int
    """Of the device, bytes."""

    @property
    def half_bytes(self) -> int:
        """Room for the small files, twice."""
        return min(_LARGEST_HALF, self.size // _PART) // 4096 * 4096

    @property
    def table_at(self) -> int:
        """Offset of the table."""
        return self.size - TABLE_BYTES

    @property
    def dump_limit(self) -> int:
        """Bytes for the dump."""
        return (self.table_at - 2 * self.half_bytes) // 4096 * 4096

    def other_half(self, table: Table) -> int:
        """Return the offset of the half that the table's files do not lie in."""
        second = self.dump_limit + self.half_bytes
        return self.dump_limit if any(entry.offset >= second for entry in table.entries) else second


@dataclass(slots=True)
class Table:
    """The table's contents."""

    directory: str
    """Name of the crash's directory, as on other targets."""
    entries: list[Entry] = field(default_factory=list)
    start: str = ""
    """The dump's first bytes in hexadecimal; empty while there is none."""

    def forget_dump(self) -> None:
        """Have no dump."""
        self.start = ""
        self.entries = [entry for entry in self.entries if not entry.is_dump]

    def set_dump(self, entry: Entry, start: bytes) -> None:
        """Have this dump, which begins so."""
        self.forget_dump()
        self.start = start.hex()
        self.entries.insert(0, entry)

    def set_files(self, entries: list[Entry]) -> None:
        """Have these small files."""
        self.entries = [entry for entry in self.entries if entry.is_dump] + entries

    def as_bytes(self) -> bytes:
        """Return the table as it lies on the device."""
        lines = [_MAGIC, f"directory {self.directory}", *((f"start {self.start}",) if self.start else ()),
                 *(f"file {entry.offset} {entry.size} {entry.name}" for entry in self.entries), _END]
        text = ("\n".join(lines) + "\n").encode()
        if len(text) > TABLE_BYTES:
            raise HostError("too many files for a raw target", why=f"{len(self.entries)}")
        return text.ljust(TABLE_BYTES, b"\0")

    @classmethod
    def parse(cls, raw: bytes) -> Table | None:
        """Read a table; None when it is none, or was not written whole."""
        lines = raw.rstrip(b"\0").decode("utf-8", "replace").splitlines()
        if len(lines) < 3 or lines[0] != _MAGIC or lines[-1] != _END or not lines[1].startswith("directory "):
            return None
        entries = []
        start = lines.pop(2).removeprefix("start ") if lines[2].startswith("start ") else ""
        for line in lines[2:-1]:
            kind, offset, size, name = line.split(" ", 3)
            if kind != "file" or not offset.isdigit() or not size.isdigit() or "/" in name:
                return None
            entries.append(Entry(name, int(offset), int(size)))
        return cls(lines[1].removeprefix("directory "), entries, start)


def read(node: Path) -> Table | None:
    """Return a device's table, or None when it carries none."""
    with told("cannot read the device", node), node.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < TABLE_BYTES:
            return None
        file.seek(size - TABLE_BYTES)
        return Table.parse(file.read(TABLE_BYTES))


def contents(node: Path, entry: Entry) -> bytes:
    """Return a small file."""
    with told("cannot read the device", node), node.open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.size)


def collect(node: Path, into: Path) -> Path:
    """Copy a crash from a device into `<into>/<directory>` and return that; HostError when there is none.

    The device keeps it: the next crash overwrites it.
    """
    from kdumpy.capture.targets.base import DIRECTORY_MODE
    from kdumpy.capture.targets.directory import FileStream

    table = read(node)
    if table is None or not table.entries:
        raise HostError("there is no crash on the device", where=str(node))
    directory = into / Path(table.directory).name
    with told("cannot make the crash's directory", directory):
        directory.mkdir(DIRECTORY_MODE, exist_ok=True)
    for entry in table.entries:
        stream = FileStream(directory / Path(entry.name).name)
        with told("cannot read the device", node), node.open("rb") as file:
            file.seek(entry.offset)
            left = entry.size
            while left and (piece := file.read(min(left, 1 << 20))):
                stream.write(piece)
                left -= len(piece)
        stream.finish()
    return directory
