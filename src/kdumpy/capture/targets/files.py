"""Files written whole and for good: what `put` and `keep` mean on a file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdumpy.capture.targets.base import FILE_MODE
from kdumpy.errors import HostError, NoSpace

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def told(what: str, where: Path | str) -> Iterator[None]:
    """Turn an OSError into NoSpace or HostError that says what was done where."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            raise NoSpace(what, where=str(where), why=reason,
                          mend="make room, or name a second target") from error
        raise HostError(what, where=str(where), why=reason) from error


def write_whole(path: Path, data: bytes | bytearray) -> None:
    """Write a file so that after a power cut it is there whole, or as it was before."""
    with told("cannot write", path):
        partial = path.with_name(f".{path.name}.partial")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of it; a short write is followed by the rest, or by its error."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest):]


def sync_directory(path: Path) -> None:
    """Make the names in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems (FUSE, 9p) know no fsync of a directory
            raise
    finally:
        os.close(descriptor)
