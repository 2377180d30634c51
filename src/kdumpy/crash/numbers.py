"""Numbers as crash's users type them.

Source: crash's tools.c, htol(), stol(), calculate().
"""

from __future__ import annotations

import re

from kdumpy.errors import UsageError

_UNITS = {"k": 10, "m": 20, "g": 30}
WORD = (1 << 64) - 1
"""The largest number; whatever is larger wraps, as in C."""


def hexadecimal(text: str) -> int:
    """Return a number that is hexadecimal with or without 0x.

    Raises:
        UsageError: it is none, or has more than 64 bits.
    """
    if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]+", text):
        raise UsageError(f"{text!r} is no hexadecimal number")
    return _within(int(text, 16), text)


def number(text: str) -> int:
    """Return a number that is decimal, or hexadecimal where only that is possible, with k, m or g behind it.

    Raises:
        UsageError: it is none, or has more than 64 bits.
    """
    bare, unit = (text[:-1], _UNITS[text[-1].lower()]) if text[-1:].lower() in _UNITS else (text, 0)
    if re.fullmatch(r"[0-9]+", bare):
        return _within(int(bare) << unit, text)
    if re.fullmatch(r"(0[xX])?[0-9a-fA-F]+", bare):
        return _within(int(bare, 16) << unit, text)
    raise UsageError(f"{text!r} is no number")


def _within(value: int, text: str) -> int:
    if value > WORD:
        raise UsageError(f"{text!r} has more than 64 bits")
    return value
