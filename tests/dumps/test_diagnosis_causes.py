"""Each cause on three dumps: one that it fits, a near miss that another cause explains, and one of another kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import kdumpy
import lab
from kdumpy.diagnosis.causes import Finding, causes
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.verdict import judge

# cause -> (a fault that it fits, a near miss, one of another kind)
CASES = {
    "sysrq": ("sysrq", "nmi", "bug"),
    "null-dereference": ("null-timer", "bad-address", "warn"),
    "bad-address": ("bad-address", "null-procread", "sysrq"),
    "general-protection": ("general-protection", "bad-address", "hung-task"),
    "user-access": ("user-access", "bad-address", "sysrq"),
    "jump-to-null": ("jump-to-null", "null-workqueue", "refcount"),
    "nx-execute": ("nx-execute", "jump-to-null", "soft-lockup"),
    "write-to-readonly": ("write-to-readonly", "bad-address", "bug"),
    "use-after-free": ("use-after-free", "general-protection", "driver-panic"),
    "double-free": ("double-free", "bug", "null-timer"),
    "list-corruption": ("list-corruption", "bug", "sysrq"),
    "refcount": ("refcount", "warn", "bug"),
    "bug": ("bug", "invalid-opcode", "driver-panic"),
    "warn": ("warn", "bug", "sysrq"),
    "divide-error": ("divide-error", "invalid-opcode", "sysrq"),
    "invalid-opcode": ("invalid-opcode", "divide-error", "hung-task"),
    "stack-overflow": ("stack-overflow", "stack-corruption", "bug"),
    "stack-corruption": ("stack-corruption", "driver-panic", "bad-address"),
    "driver-panic": ("driver-panic", "sysrq", "null-timer"),
    "hung-task": ("hung-task", "soft-lockup", "bug"),
    "deadlock": ("deadlock", "hung-task", "sysrq"),
    "soft-lockup": ("soft-lockup", "rcu-stall", "hung-task"),
    "rcu-stall": ("rcu-stall", "soft-lockup", "warn"),
    "hard-lockup": ("hard-lockup", "nmi", "bug"),
    "out-of-memory": ("out-of-memory", "init-exit", "bug"),
    "memory-leak": ("memory-leak", "out-of-memory", "bug"),
    "init-exit": ("init-exit", "sysrq", "bug"),
    "no-root": ("no-root", "init-exit", "bug"),
    "nmi": ("nmi", "hard-lockup", "soft-lockup"),
    # The kernel that knows machine checks is a package of its own: in the full matrix only.
    "machine-check": ("machine-check" if lab.FULL else None, "nmi", "bug"),
    "unknown": (None, "driver-panic", "live"),
}
"""None: no dump for it; tests/unit/diagnosis/test_verdict.py has it from a log."""


@contextmanager
def opened(fault: str) -> Iterator[Crash]:
    with kdumpy.open(lab.dump("6.1", fault).path) as kernel:
        yield Crash(kernel.path, kernel, kernel.log)



def test_every_cause_has_its_three() -> None:
    assert set(CASES) == {cause.kind for cause in causes()}


@pytest.mark.parametrize(("kind", "fault"), [(kind, case[0]) for kind, case in CASES.items() if case[0]])
def test_it_fits(kind: str, fault: str) -> None:
    with opened(fault) as crash:
        judgement = judge(crash)
        assert judgement is not None
        assert judgement.cause == kind


@pytest.mark.parametrize(("kind", "fault"), [(kind, case[1]) for kind, case in CASES.items()])
def test_a_near_miss_is_explained_by_another_cause(kind: str, fault: str) -> None:
    with opened(fault) as crash:
        judgement = judge(crash)
        assert judgement is not None
        assert judgement.cause != kind


@pytest.mark.parametrize(("kind", "fault"), [(kind, case[2]) for kind, case in CASES.items()])
def test_another_kind_of_crash_is_no_match(kind: str, fault: str) -> None:
    with opened(fault) as crash:
        answer = next(cause for cause in causes() if cause.kind == kind).match(crash)
        assert not isinstance(answer, Finding)
