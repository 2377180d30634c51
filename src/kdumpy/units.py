"""Numbers as people read them. Inside, sizes are bytes, times are nanoseconds, addresses are int."""

from __future__ import annotations

import re
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


# What a terminal or a browser would obey or hide: control characters (but for tab and newline), overrides of the
# direction of writing and its marks, joiners and other characters without width, separators of lines, tags, lone
# surrogates, and characters that Unicode will never assign.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
                     "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\uffff\ud800-\udfff"
                     "\U000e0000-\U000e0fff]")


def printable(text: str) -> str:
    """Return text out of a dump with what a terminal or browser would obey or hide shown as \\xNN or \\uNNNN."""
    return _OBEYED.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
