"""Indexes of BTF blobs, kept on disk from one dump of a kernel to the next.

An entry is named by a hash of the blob that it describes, so that neither another kernel nor a
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

from kdumpy.debuginfo.btf import Btf, BtfIndex
from kdumpy.errors import DamagedDump

_FORMAT = 4
"""Part of an entry's name: rises when what an entry holds changes."""
MOST_ENTRIES = 16
"""Entries that are kept, of 1 to 2 MB each; the oldest go."""
_ENTRY = re.compile(r"[0-9a-f]{40}\.\d+(\.\d+\.new)?")
"""Names of entries of any format, and of unfinished ones; other files are not ours to remove."""
_DIGEST = 16
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def folder() -> Path | None:
    """Return the cache's folder, or None when it is turned off."""
    named = os.environ.get("KDUMPY_CACHE")
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kdumpy" / "btf"


def load_index(data: bytes) -> Btf:
    """Return the indexed BTF of a blob, with the help of the cache.

    Raises:
        DamagedDump: the blob breaks the rules of BTF.
    """
    try:
        where = folder()
    except RuntimeError:                    # no home directory
        where = None
    if where is None:
        return Btf(data)
    name = f"{hashlib.blake2b(data, digest_size=20).hexdigest()}.{_FORMAT}"
    index = _read(where, name)
    if index is not None:
        with contextlib.suppress(DamagedDump):
            return Btf(data, index=index)
    btf = Btf(data)
    _write(where, name, btf.index)
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


def _read(where: Path, name: str) -> BtfIndex | None:
    try:
        with (_opened(where, os.O_DIRECTORY) as folder, _opened(name, os.O_NOFOLLOW, folder) as handle,
              os.fdopen(handle, "rb", closefd=False) as file):
            stored = file.read()
        digest, body = stored[:_DIGEST], stored[_DIGEST:]
        if hashlib.blake2b(body, digest_size=_DIGEST).digest() != digest:
            return None
        records, *rest = marshal.loads(body)
        return BtfIndex(array("I", records), *rest)
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _write(where: Path, name: str, index: BtfIndex) -> None:
    body = marshal.dumps((index.records.tobytes(), *index[1:]))
    unfinished = f"{name}.{os.getpid()}.new"
    with contextlib.suppress(OSError):      # a full or read-only disk costs time, not the answer
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(where, os.O_DIRECTORY) as folder:
            try:
                handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.blake2b(body, digest_size=_DIGEST).digest() + body)
                os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(unfinished, dir_fd=folder)
                raise
            _remove_oldest(folder)


def _remove_oldest(folder: int) -> None:
    with os.scandir(folder) as files:
        entries = sorted((file for file in files if _ENTRY.fullmatch(file.name)),
                         key=lambda file: file.stat(follow_symlinks=False).st_mtime_ns)
    for file in entries[:-MOST_ENTRIES]:
        os.unlink(file.name, dir_fd=folder)
