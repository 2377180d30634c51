"""Text out of a dump, made harmless for a page: shown as it is, and never obeyed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from typing import Any

from markupsafe import Markup

from kdumpy.units import printable

PLAIN_LIMIT = 200_000
"""Characters of data that stand in the page as readable JSON; more is packed."""

_PILED = re.compile("([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{2})"
                    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
"""Marks that pile up on one letter and run over the lines around it: two are enough for any language."""


def visible(text: str) -> str:
    """Return text with what a browser would obey or hide shown as \\xNN or \\uNNNN."""
    return _PILED.sub(r"\1", printable(text))


def shown(value: Any) -> Any:
    """Return what an expression of a template puts into the page; Jinja escapes it after this."""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value


def harmless(value: Any) -> Any:
    """Return plain JSON values with every text in them made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): harmless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [harmless(item) for item in value]
    return value


def data_block(name: str, value: Any) -> Markup:
    """Return a data block for the page's script: readable JSON where it is small, else packed.

    Neither form can hold what ends a script element: `<`, `>` and `&` are written as \\uNNNN.
    """
    text = json.dumps(harmless(value), ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    if len(text) <= PLAIN_LIMIT:
        return Markup(f'<script type="application/json" id="{name}">{text}</script>')
    packed = base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")
    return Markup(f'<script type="application/gzip" id="{name}">{packed}</script>')


def digest(text: str) -> str:
    """Return the source expression that allows an inline script or style (CSP level 2)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
