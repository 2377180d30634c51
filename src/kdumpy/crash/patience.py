"""A sign of life on a terminal while nothing has come out yet: what is being done, and for how long."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TextIO

AFTER = 1.0
"""Seconds of silence before the first sign."""
_EVERY = 0.5
_WIDTH = 60
"""Characters of what is being done."""


class Patience:
    """Writes to one stream, if that is a terminal; else it does nothing."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._over.set()
        self._drawn = False

    @contextlib.contextmanager
    def watching(self, words: str) -> Iterator[None]:
        """Tell what goes on, from a second on, until something is heard or it ends. Within another one: nothing."""
        if not self._over.is_set() or not self.stream.isatty():
            yield
            return
        self._over.clear()
        threading.Thread(target=self._draw, args=(words[:_WIDTH],), daemon=True).start()
        try:
            yield
        finally:
            self.heard()

    def heard(self) -> None:
        """Take the sign away: something came out. Asked for every line, so it is quick."""
        if self._over.is_set():
            return
        with self._lock:
            self._over.set()
            if self._drawn:
                self._drawn = False
                self.stream.write("\r\033[K")
                self.stream.flush()

    def _draw(self, words: str) -> None:
        started, wait = time.monotonic(), AFTER
        while not self._over.wait(wait):
            wait = _EVERY
            with self._lock:
                if self._over.is_set():
                    return
                self._drawn = True
                self.stream.write(f"\r\033[K{words} … {time.monotonic() - started:.0f} s")
                self.stream.flush()
