"""The diagnoses of the laboratory's dumps, each made once for all files of tests that a process runs."""

from __future__ import annotations

from functools import cache

import kdumpy
import lab
from kdumpy.diagnosis import Diagnosis, diagnose


@cache
def diagnosed(kernel: str, fault: str) -> Diagnosis:
    """Diagnose a dump. The dump is closed, and the values are small."""
    with kdumpy.open(lab.dump(kernel, fault).path) as opened:
        return diagnose(opened)
