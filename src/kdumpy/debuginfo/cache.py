"""Indexes of BTF blobs, kept on disk from one dump of a kernel to the next.

An entry is named by a hash of the blob that it describes, so that neither another kernel nor a
damaged dump can bring a wrong one. Only this user can write or read it; a broken entry counts as
none. `KDUMPY_CACHE` names another folder; empty turns the cache off.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import tempfile
from array import array
from pathlib import Path

from kdumpy.debuginfo.btf import Btf, BtfIndex
from kdumpy.errors import DamagedDump

_FORMAT = 4
"""Part of an entry's name: rises when what an entry holds changes."""


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
    path = where / f"{hashlib.blake2b(data, digest_size=20).hexdigest()}.{_FORMAT}"
    index = _read(path)
    if index is not None:
        with contextlib.suppress(DamagedDump):
            return Btf(data, index=index)
    btf = Btf(data)
    _write(path, btf.index)
    return btf


def _read(path: Path) -> BtfIndex | None:
    try:
        stored = path.read_bytes()
        digest, body = stored[:16], stored[16:]
        if hashlib.blake2b(body, digest_size=16).digest() != digest:
            return None
        records, *rest = marshal.loads(body)
        return BtfIndex(array("I", records), *rest)
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _write(path: Path, index: BtfIndex) -> None:
    body = marshal.dumps((index.records.tobytes(), *index[1:]))
    with contextlib.suppress(OSError):      # a full or read-only disk costs time, not the answer
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.blake2b(body, digest_size=16).digest() + body)
        os.replace(temporary, path)         # noqa: PTH105
