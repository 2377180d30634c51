"""Where the laboratory keeps its things: outside of the checkout, to be deleted at any time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


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


@contextmanager
def room_for_a_guest() -> Iterator[None]:
    """Hold one of the places for guests, of which there are as many as CPUs.

    An emulated guest of two CPUs keeps three quarters of one of ours busy, from power on to power off; it is given
    minutes for what takes seconds. More guests than CPUs would miss deadlines of their own kernels.
    """
    directory = laboratory_home() / "locks"
    directory.mkdir(exist_ok=True)
    with contextlib.ExitStack() as opened:
        places = [opened.enter_context((directory / f"machine-{number}.lock").open("w"))
                  for number in range(os.cpu_count() or 1)]
        while not any(_taken(place) for place in places):
            time.sleep(0.2)
        yield


def _taken(place: IO[str]) -> bool:
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
