"""The diagnoses of the laboratory's dumps, each made once for all files of tests that a process runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import kdumpy
import lab
from kdumpy.diagnosis import Diagnosis, diagnose
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.waits.locks import Waits
from kdumpy.vm.faults import Fault


@cache
def diagnosed(kernel: str, fault: str) -> Diagnosis:
    """Diagnose a dump. The dump is closed, and the values are small."""
    with kdumpy.open(lab.dump(kernel, fault).path) as opened:
        return diagnose(opened)


@contextmanager
def waits_of(kernel: str, fault: str) -> Iterator[Waits]:
    """Open a dump, and give who waits for whom in it."""
    with kdumpy.open(lab.dump(kernel, fault).path) as opened:
        waits = Crash(opened.path, opened, opened.log).waits
        assert waits is not None
        yield waits


def holds(kernel: str, fault: Fault) -> None:
    """Hold the verdict on a dump against what stands beside its fault; no cause may have failed."""
    verdict = diagnosed(kernel, fault.name).verdict
    assert verdict.cause == fault.cause
    assert verdict.culprit is not None
    assert verdict.culprit.module == fault.module
    assert verdict.culprit.function in (fault.culprits or ("",))
    assert [item for item in verdict.not_judged if "Error" in item.why] == []
