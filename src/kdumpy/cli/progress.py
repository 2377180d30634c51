"""A progress bar on standard error, where that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from kdumpy.units import human_bytes, human_seconds

_WIDTH = 30
_SECONDS = 0.1
"""Between two drawings."""


def bar(unit: int) -> Callable[[int, int, int], None] | None:
    """Return what draws (pages done, pages in all, bytes written), for pages of `unit` bytes; None off a terminal."""
    if not sys.stderr.isatty():
        return None
    started = time.monotonic()
    drawn = 0.0

    def draw(done: int, total: int, written: int) -> None:
        nonlocal drawn
        now = time.monotonic()
        if now - drawn < _SECONDS and done < total:
            return
        drawn = now
        share = done / max(total, 1)
        filled = int(_WIDTH * share)
        text = f"[{'#' * filled}{' ' * (_WIDTH - filled)}] {share:4.0%}  {human_bytes(done * unit)} read"
        if written:
            text += f", {human_bytes(written)} written"
        if 0 < done < total and now - started > 0.5:
            text += f", {human_seconds((now - started) * (total - done) / done)} left"
        end = "\n" if done >= total else ""
        print(f"\r\033[K{text}", end=end, file=sys.stderr, flush=True)

    return draw
