"""The clock of a diagnosis: a step that does not end costs itself, and neither the verdict nor the other steps."""

from __future__ import annotations

import signal
import sys
import time
from typing import NoReturn

import pytest

import lab
from kdumpy.diagnosis import diagnose, findings, verdict
from kdumpy.diagnosis.causes import Cause, causes
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.findings.base import Check
from kdumpy.diagnosis.steps import OutOfTime, Steps
from kdumpy.kernel import Kernel, open_kernel
from kdumpy.report import text


def endless(*_: object) -> NoReturn:
    """Never end, and take what would end it for an error of the dump's."""
    while True:
        try:
            hash(None)
        except Exception:    # as code does that reads a damaged dump
            continue


class Endless(Cause):
    kind = "endless"

    def match(self, crash: Crash) -> None:
        endless()


def test_a_step_is_stopped_and_the_next_one_has_its_own_time() -> None:
    steps = Steps({}, 0.2)
    for _ in range(2):
        with pytest.raises(OutOfTime, match=r"stopped after 0\.2 s of CPU time"), steps.step():
            endless()
    assert steps.get("words", lambda: "made", "otherwise") == "made"
    assert steps.problems == {}
    assert steps.get("words", endless, None) is None
    assert "0.2 s" in steps.problems["words"]


def test_a_step_that_fails_in_a_way_nobody_thought_of_costs_itself_alone() -> None:
    steps = Steps({})
    assert steps.get("words", lambda: str(compile("9p", "", "eval")), "other") == "other"
    assert steps.problems["words"].startswith("SyntaxError: ")


def test_all_steps_together_have_a_bound_too() -> None:
    steps = Steps({}, 0.1)
    started = time.process_time()
    for _ in range(30):
        steps.get("words", endless, None)
    assert time.process_time() - started < 2        # not 30 times 0.1: 6 of them, then a tenth each
    assert "0.01 s" in steps.problems["words"]


def test_no_bound_and_another_clock_that_runs() -> None:
    with Steps({}, 0).step():
        assert signal.getitimer(signal.ITIMER_PROF)[0] == 0
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)      # a profiler's
    try:
        signal.setitimer(signal.ITIMER_PROF, 1000)
        with Steps({}, 0.1).step():
            assert signal.getitimer(signal.ITIMER_PROF)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def test_the_verdict_is_given_whatever_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "causes", lambda: (Endless(), *causes()))
    monkeypatch.setattr(findings, "CHECKS", (Check("endless", endless), *findings.CHECKS))
    monkeypatch.setattr(sys.modules["kdumpy.diagnosis.diagnose"], "memory_account", endless)
    with open_kernel(lab.bundled()) as kernel:
        found = diagnose(kernel, seconds=1)
    assert (found.verdict.cause, found.verdict.confidence) == ("null-dereference", "certain")
    assert "1 s of CPU time" in next(item.why for item in found.verdict.not_judged if item.cause == "endless")
    assert "in endless" not in str(found)           # the place is told where it is kdumpy's own
    assert {"memory", "the check of endless"} <= set(found.dump.missing)
    assert found.memory.account is None
    assert any(item.check == "endless" for item in found.unchecked)
    assert len(found.findings) > 0
    shown = " ".join(text.render(found).split())
    assert "not judged, whether it is endless: stopped after 1 s of CPU time" in shown
    assert "the check of endless: stopped after 1 s of CPU time" in shown


@pytest.mark.parametrize("what", ["event", "waits"])
def test_what_several_share_does_not_cost_all(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Where what all rest on does not end, it still ends, and says so."""
    monkeypatch.setattr(Crash, what, property(endless))
    with open_kernel(lab.bundled()) as kernel:
        found = diagnose(kernel, seconds=0.2)
    assert found.verdict.cause in ("null-dereference", "unknown", "none")
    assert found.dump.missing or found.verdict.not_judged
    if what == "waits":
        assert found.verdict.cause == "null-dereference"


def test_what_the_dump_gives_does_not_cost_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "log", property(endless))
    with open_kernel(lab.bundled()) as kernel:
        found = diagnose(kernel, seconds=0.2)
    assert (found.verdict.cause, found.verdict.confidence) == ("null-dereference", "likely")
    assert "of CPU time" in found.dump.missing["log"]
