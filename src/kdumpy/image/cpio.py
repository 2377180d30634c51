"""The newc cpio format of Linux initramfs images: a reproducible writer, and its reader.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kdumpy.errors import HostError

MAGIC = b"070701"
"""newc without checksums; "070702" has them, which the kernel ignores."""

HEADER_BYTES = 110
"""The magic and 13 fields of 8 hexadecimal digits."""

TRAILER = "TRAILER!!!"
"""The name of the entry that ends an archive."""


@dataclass(frozen=True)
class Entry:
    """One file of an archive."""

    name: str
    """Path without a leading slash."""
    mode: int
    """Type and permissions, as in st_mode."""
    data: bytes | Path = b""
    """Contents, the target of a symbolic link, or the file on this machine to copy."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""
    inode: int = 0
    """As read: files of one archive with the same are one, and only the last of them has the contents."""

    def size(self) -> int:
        """Return the length of the contents in bytes."""
        return self.data.stat().st_size if isinstance(self.data, Path) else len(self.data)

    def contents(self) -> bytes:
        """Return the contents."""
        return self.data.read_bytes() if isinstance(self.data, Path) else self.data


class Archive:
    """Files to be written as one newc archive; the same entries always give the same bytes.

    Owner is root and the time is 0 everywhere, inode numbers count from 1,
    parent directories are added, entries are sorted by path.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __contains__(self, name: str) -> bool:
        return _clean(name) in self._entries

    def add_file(self, name: str, data: bytes | Path, mode: int = 0o644) -> None:
        """Add a regular file from its bytes, or from a file of this machine (links are followed)."""
        self._add(Entry(_clean(name), stat.S_IFREG | mode, data))

    def add_directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory."""
        self._add(Entry(_clean(name), stat.S_IFDIR | mode))

    def add_symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(Entry(_clean(name), stat.S_IFLNK | 0o777, target.encode()))

    def add_device(self, name: str, kind: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a device node; kind is "c" or "b"."""
        form = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}[kind]
        self._add(Entry(_clean(name), form | mode, device=(major, minor)))

    def entries(self) -> list[Entry]:
        """Return the entries in the order in which they are written."""
        return [self._entries[name] for name in sorted(self._entries)]

    def write(self, stream: BinaryIO) -> None:
        """Write the archive with its trailer, padded to 512 bytes."""
        written = 0
        for inode, entry in enumerate(self.entries(), start=1):
            written += _write_entry(stream, entry, inode)
        written += _write_entry(stream, Entry(TRAILER, 0), 0)
        stream.write(bytes(-written % 512))

    def _add(self, entry: Entry) -> None:
        for parent in PurePosixPath(entry.name).parents:
            if str(parent) != "." and str(parent) not in self._entries:
                self._entries[str(parent)] = Entry(str(parent), stat.S_IFDIR | 0o755)
        self._entries[entry.name] = entry


def read(data: bytes, at: int = 0) -> Generator[Entry, None, int]:
    """Yield the entries of a newc archive that begins at an offset, without the trailer; return where it ends.

    Raises:
        HostError: the archive is cut short or not newc.
    """
    while True:
        header = data[at:at + HEADER_BYTES]
        if len(header) < HEADER_BYTES or header[:6] != MAGIC:
            raise HostError("not a newc cpio archive", where=f"offset {at}",
                            why=f"magic {header[:6]!r}, expected {MAGIC!r}")
        fields = [int(header[6 + 8 * i:14 + 8 * i], 16) for i in range(13)]
        mode, size, major, minor, name_bytes = fields[1], fields[6], fields[9], fields[10], fields[11]
        name_end = at + HEADER_BYTES + name_bytes
        name = data[at + HEADER_BYTES:name_end - 1].decode()
        if name == TRAILER:
            return _align4(name_end)
        start = _align4(name_end)
        if start + size > len(data):
            raise HostError("cpio archive is cut short", where=f"offset {at}", why=f"{name}: {size} bytes")
        yield Entry(name, mode, data[start:start + size], (major, minor), fields[0])
        at = _align4(start + size)


def _clean(name: str) -> str:
    path = PurePosixPath("/", name).relative_to("/")
    if ".." in path.parts:
        raise ValueError(f"path leaves the archive: {name}")
    return str(path)


def _align4(offset: int) -> int:
    return (offset + 3) & ~3


def _write_entry(stream: BinaryIO, entry: Entry, inode: int) -> int:
    """Write one entry and return its bytes, padding included."""
    name = entry.name.encode() + b"\0"
    size = entry.size()
    if size > 0xFFFFFFFF:
        raise HostError("file is too large for a newc archive", where=entry.name, why=f"{size} bytes")
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, size, 0, 0, *entry.device, len(name), 0)
    stream.write(MAGIC + b"".join(b"%08X" % field for field in fields) + name)
    head = HEADER_BYTES + len(name)
    stream.write(bytes(_align4(head) - head))
    if isinstance(entry.data, Path):
        with entry.data.open("rb") as source:
            shutil.copyfileobj(source, stream, 1 << 20)
            if source.tell() != size:
                raise HostError("file changed while it was archived", where=os.fspath(entry.data))
    else:
        stream.write(entry.data)
    stream.write(bytes(_align4(size) - size))
    return _align4(head) + _align4(size)
