"""Where the laboratory keeps its things: outside of the checkout, to be deleted at any time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def laboratory_home() -> Path:
    """Return $KDUMPY_LAB, or ~/.cache/kdumpy/lab (XDG_CACHE_HOME is honoured); made when missing."""
    chosen = os.environ.get("KDUMPY_LAB")
    if chosen:
        home = Path(chosen)
    else:
        cache = os.environ.get("XDG_CACHE_HOME")
        home = (Path(cache) if cache else Path.home() / ".cache") / "kdumpy" / "lab"
    home.mkdir(parents=True, exist_ok=True)
    return home.resolve()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock of the laboratory across processes; the kernel frees it when a holder dies."""
    directory = laboratory_home() / "locks"
    directory.mkdir(exist_ok=True)
    with (directory / f"{name.replace('/', '_')}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
