"""What the last rehearsal measured: /var/lib/kdumpy/rehearsal.json, written by `kdumpy rehearse`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

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


def save(system: System, values: Mapping[str, object]) -> None:
    """Write the file, whole or not at all, with its directory where that is missing."""
    path = system.path(PATH)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(json.dumps(values, indent=1) + "\n")
    partial.replace(path)
