"""Where a dump's bytes come from: a file (or device), read at any offset, never beyond its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from kdumpy.errors import DamagedDump, DumpFormatError, HostError


class Source(Protocol):
    """Random access to a dump's bytes, as the format's document numbers them."""

    @property
    def name(self) -> str:
        """What errors call it: the file's path."""

    @property
    def size(self) -> int:
        """Bytes that can be read; nothing a header claims may lie beyond."""

    @property
    def file_size(self) -> int:
        """Bytes of the file itself (differs from `size` where the file is a stream of records)."""

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes; DamagedDump when they are not all there."""

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` (bytes, contiguous) from `offset`; DamagedDump when they are not all there."""

    def close(self) -> None:
        """Let go of the file."""


class FileSource:
    """A regular file, a block device, or /proc/vmcore.

    Read by pread and not by mmap: a file that shrinks, or a bad sector, is then an error and not a SIGBUS.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise DumpFormatError("a directory, not a dump", where=str(path),
                                  mend="name the file in it, most often vmcore")
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError("cannot open the dump", where=str(path), why=error.strerror or str(error),
                            mend="check the path and who may read it; dumps are 0600 root") from error
        try:
            # A block device's st_size is 0, so ask for the end; /proc/vmcore answers both.
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            os.close(self._fd)
            self._fd = -1
            raise DumpFormatError("not a file that can be read at any offset", where=str(path),
                                  why=error.strerror or str(error),
                                  mend="save the stream to a file first") from error
        self.file_size = self.size

    @property
    def name(self) -> str:
        """The path, for errors."""
        return str(self.path)

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise beyond_end(self, offset, size)
        try:
            data = os.pread(self._fd, size, offset)
            while len(data) < size:
                more = os.pread(self._fd, size - len(data), offset + len(data))
                if not more:
                    raise beyond_end(self, offset, size)
                data += more
        except OSError as error:
            raise DamagedDump("cannot read the dump", where=f"{self.name} at {offset:#x}",
                              why=error.strerror or str(error)) from error
        return data

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` without a copy in between."""
        done = 0
        try:
            while done < len(target):
                count = os.preadv(self._fd, [target[done:]], offset + done)
                if not count:
                    raise beyond_end(self, offset, len(target))
                done += count
        except OSError as error:
            raise DamagedDump("cannot read the dump", where=f"{self.name} at {offset:#x}",
                              why=error.strerror or str(error)) from error

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)
            self._fd = -1


class BytesSource:
    """A dump held in memory, for tests and for small files unpacked from an archive."""

    def __init__(self, data: bytes, name: str = "memory") -> None:
        self._data = data
        self.name = name
        self.size = self.file_size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise beyond_end(self, offset, size)
        return self._data[offset:offset + size]

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target`."""
        target[:] = self.read(offset, len(target))

    def close(self) -> None:
        """Do nothing; the bytes belong to the caller."""


def beyond_end(source: Source, offset: int, size: int) -> DamagedDump:
    """Return the error for bytes that a header points at and the file does not have."""
    return DamagedDump(f"{size} bytes are wanted and the file ends before them",
                       where=f"{source.name} at {offset:#x}",
                       why=f"the file has {source.size} bytes: it was cut short, or a header is wrong",
                       mend="copy the dump again from where it was captured")
