"""What takes long to make of a kernel's tables, kept on disk from one dump of a kernel to the next.

An entry is named by a hash of what it was made of, or holds one, so that neither another kernel nor a
damaged dump can bring a wrong one. An entry or a folder that is not this user's, or that others
can write, is not used; a broken entry counts as none. `KDUMPY_CACHE` names another folder; empty
turns the cache off.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import re
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from kdumpy.debuginfo.btf import Btf, BtfIndex
from kdumpy.errors import DamagedDump

_FORMAT = 5
"""Part of an entry's name: rises when what an entry of BTF holds changes."""
MOST_ENTRIES = 16
"""Entries that are kept of a kind, of 1 to 2 MB (BTF) or 3 to 10 MB (symbols) each; the oldest go."""
_ENTRY = re.compile(r"[0-9a-f]{40}\.(?P<kind>symbols\.)?\d+(\.\d+\.new)?")
"""Names of entries of any format, and of unfinished ones; other files are not ours to remove."""
_CHECK = 4
"""Bytes of CRC-32 in front of an entry."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def folder() -> Path | None:
    """Return the cache's folder, or None when it is turned off."""
    named = os.environ.get("KDUMPY_CACHE")
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kdumpy" / "btf"


def is_on() -> bool:
    """Whether anything is kept."""
    return _where() is not None


def _where() -> Path | None:
    try:
        return folder()
    except RuntimeError:                    # no home directory
        return None


def load_index(data: bytes) -> Btf:
    """Return the indexed BTF of a blob, with the help of the cache.

    Raises:
        DamagedDump: the blob breaks the rules of BTF.
    """
    if not is_on():
        return Btf(data)
    name = f"{hashlib.blake2b(data, digest_size=20).hexdigest()}.{_FORMAT}"
    body = read(name)
    if body is not None:
        with contextlib.suppress(DamagedDump, ValueError, EOFError, TypeError):
            records, *rest = marshal.loads(body)
            return Btf(data, index=BtfIndex(array("I", records), *rest))
    btf = Btf(data)
    write(name, marshal.dumps((btf.index.records.tobytes(), *btf.index[1:])))
    return btf


@contextlib.contextmanager
def _opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    """Open a file or folder that nobody but this user can have written.

    Raises:
        OSError: there is none, or it is not trusted.
    """
    handle = os.open(path, flags, dir_fd=folder)
    try:
        status = os.fstat(handle)
        if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
            raise PermissionError(f"{path} is another user's, or others can write it")
        yield handle
    finally:
        os.close(handle)


def read(name: str) -> memoryview | None:
    """Return what an entry holds; None where there is none, or none that is whole and trusted."""
    where = _where()
    if where is None:
        return None
    try:
        with (_opened(where, os.O_DIRECTORY) as folder, _opened(name, os.O_NOFOLLOW, folder) as handle,
              os.fdopen(handle, "rb", closefd=False) as file):
            stored = memoryview(file.read())
    except OSError:
        return None
    body = stored[_CHECK:]
    return body if stored[:_CHECK] == crc32(body).to_bytes(_CHECK, "little") else None


def write(name: str, body: bytes) -> None:
    """Keep an entry, and remove the oldest of its kind."""
    where = _where()
    if where is None:
        return
    unfinished = f"{name}.{os.getpid()}.new"
    with contextlib.suppress(OSError):      # a full or read-only disk costs time, not the answer
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(where, os.O_DIRECTORY) as folder:
            try:
                handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
                with os.fdopen(handle, "wb") as file:
                    file.write(crc32(body).to_bytes(_CHECK, "little"))
                    file.write(body)
                os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(unfinished, dir_fd=folder)
                raise
            _remove_oldest(folder, name)


def _remove_oldest(folder: int, newest: str) -> None:
    kind = _kind(newest)
    with os.scandir(folder) as files:
        entries = sorted((file for file in files if _ENTRY.fullmatch(file.name) and _kind(file.name) == kind),
                         key=lambda file: file.stat(follow_symlinks=False).st_mtime_ns)
    for file in entries[:-MOST_ENTRIES]:
        os.unlink(file.name, dir_fd=folder)


def _kind(name: str) -> str | None:
    found = _ENTRY.fullmatch(name)
    return found["kind"] if found else None
