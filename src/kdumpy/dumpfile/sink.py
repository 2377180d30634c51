"""Where a written dump's bytes go: a file or a device, or a pipe as a stream of flattened records.

The sibling of `source`. A sink takes bytes at any offset; bytes that nothing was written to read as zero
afterwards (`clear` sees to it where the place had a content before).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from kdumpy.dumpfile.flattened import END_RECORD, HEADER, record
from kdumpy.errors import HostError, NoSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Buffer: TypeAlias = "bytes | bytearray | memoryview | NDArray[np.generic]"
"""Contiguous bytes (collections.abc.Buffer is Python 3.12's)."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PIECE = 1 << 20
"""Bytes written at a time while a device is cleared."""


class Sink(Protocol):
    """Where a written dump's bytes go."""

    @property
    def name(self) -> str:
        """What errors call it: the file's path, or the URL."""

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset` (bytes); NoSpace when the place is full, HostError when it fails."""

    def sync(self) -> None:
        """Return when all that was written will outlive a loss of power; HostError when that cannot be had."""

    def close(self) -> None:
        """Let go of the place; a second time does nothing."""


def flat_bytes(data: Buffer) -> memoryview:
    """Return any contiguous buffer as a memoryview of single bytes, without a copy."""
    view = memoryview(cast("bytes", data))  # numpy's arrays are buffers, which mypy learns with Python 3.12
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def clear(sink: Sink, offset: int, size: int) -> None:
    """Have bytes that will perhaps never be written read as zero.

    A new file and a stream read so by themselves; a device holds what somebody wrote before.
    """
    if not getattr(sink, "keeps_old_bytes", False):
        return
    zeros = bytes(min(_PIECE, size))
    for start in range(offset, offset + size, _PIECE):
        sink.write_at(start, zeros[:offset + size - start])


def is_one_way(sink: Sink) -> bool:
    """Tell whether what was written once had better not be written again (`StreamSink.one_way`)."""
    return bool(getattr(sink, "one_way", False))


class FileSink:
    """A regular file, made anew with mode 0600, or a block device.

    Written with pwrite alone, which holds no position: workers forked after it was opened may write as well.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = str(path)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(self.name, "cannot write the dump", error) from error
        self.keeps_old_bytes = not stat.S_ISREG(os.fstat(self._fd).st_mode)
        """True for a device: what is not written there is not zero."""

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`."""
        view = flat_bytes(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            raise _failed(f"{self.name} at {offset:#x}", "cannot write the dump", error) from error

    def sync(self) -> None:
        """Have the disk hold it."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _failed(self.name, "the dump did not reach the disk", error) from error

    def close(self) -> None:
        """Close the file; an error that only shows now (NFS, a quota) is raised."""
        if self._fd >= 0:
            descriptor, self._fd = self._fd, -1
            try:
                os.close(descriptor)
            except OSError as error:
                raise _failed(self.name, "the dump did not reach the disk", error) from error

    def __enter__(self) -> FileSink:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class StreamSink:
    """A pipe, as makedumpfile -F writes it: each piece of bytes with its offset before it.

    `write` takes bytes and returns when it has taken all of them (a file object's write, a socket's sendall);
    `finish`, if given, is called after the record that ends the stream. Not to be shared between threads or
    processes. Read by `flattened.FlattenedSource`, `makedumpfile -R` and crash; crash sorts the records one by
    one against all others, so send them in pieces of a megabyte, not page by page.
    """

    one_way = True
    """What was sent stays as it is: crash reads the first of two records for the same place, others the last."""

    def __init__(self, write: Callable[[memoryview], Any], name: str = "stream", *,
                 finish: Callable[[], Any] | None = None) -> None:
        self.name = name
        self.written = 0
        """Bytes given to `write` so far, the records' headers included."""
        self._write = write
        self._finish = finish
        self._open = True
        self._send(HEADER)

    def _send(self, data: Buffer) -> None:
        view = flat_bytes(data)
        try:
            self._write(view)
        except OSError as error:
            raise _failed(self.name, "cannot send the dump", error) from error
        self.written += len(view)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Send one record; where two overlap, the later one counts."""
        view = flat_bytes(data)
        if view:  # a record of no bytes would be read as damage
            self._send(record(offset, len(view)))
            self._send(view)

    def sync(self) -> None:
        """Do nothing: the other end alone knows when the bytes are safe."""

    def close(self) -> None:
        """Send the record that ends the stream."""
        if self._open:
            self._open = False
            self._send(END_RECORD)
            if self._finish is not None:
                self._finish()


def _failed(where: str, what: str, error: OSError) -> HostError:
    why = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpace(what, where=where, why=why, mend="free space there, or write less: a higher dump level")
    return HostError(what, where=where, why=why)
