"""What the last rehearsal measured: /var/lib/kdumpy/rehearsal.json, written by `kdumpy rehearse`."""

from __future__ import annotations

import json

from kdumpy.host.system import System

PATH = "/var/lib/kdumpy/rehearsal.json"


def need(system: System, release: str) -> int | None:
    """Return the smallest safe reservation for a kernel, in bytes; None where none was measured for it."""
    text = system.read(PATH)
    if text is None:
        return None
    try:
        values = json.loads(text)
        return int(values["smallest_safe_crashkernel"]) if values["release"] == release else None
    except (ValueError, KeyError, TypeError):
        return None
