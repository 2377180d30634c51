"""Numbers as people read them. Inside, sizes are bytes, times are nanoseconds, addresses are int."""

from __future__ import annotations

import time


def human_bytes(size: int) -> str:
    """Return a size in bytes as text with a binary unit: `1536` -> `1.5 KiB`."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """Return a duration as text: `93784` -> `1 day 02:03:04`, `12.3` -> `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02}:{minutes:02}:{rest:02}"
    if days:
        return f"{days} day{'s' if days > 1 else ''} {clock}"
    return clock


def human_time(seconds: int | None) -> str:
    """Return a time (seconds since 1970) as a date in UTC; empty where unknown, the number where no year has it."""
    if seconds is None:
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def address(value: int) -> str:
    """Return an address as 16 hex digits, as kernel people write it."""
    return f"{value:016x}"


_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Return text out of a dump with its control characters shown as \\xNN: a terminal obeys none of them."""
    return text.translate(_UNPRINTABLE)
