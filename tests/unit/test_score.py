"""How a score is counted: what is right, what is falsely certain, and the pairs of signatures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bench import score

from kdumpy.vm import laboratory
from kdumpy.vm.faults import FAULTS
from kdumpy.vm.scoring import SCORING

WANTED = score.Wanted("laboratory", "6.1", FAULTS["null-timer"])


def report(cause: str = "null-dereference", function: str | None = "flaky_watchdog_check", module: str | None = "flaky",
           confidence: str = "certain", signature: str = "a1") -> dict[str, Any]:
    culprit = {"function": function, "module": module} if function else None
    return {"verdict": {"cause": cause, "culprit": culprit, "confidence": confidence},
            "signature": {"id": signature, "parts": ["v1", cause]}}


def row(fault: str = "null-timer", **values: Any) -> score.Row:
    made = score.judge(replace(WANTED, fault=laboratory.KNOWN[fault]), report(), 0.5)
    return replace(made, **values)


@pytest.mark.parametrize(("found", "cause_right", "culprit_right"), [
    (report(), True, True),
    (report(function="flaky_watchdog_tick"), True, True),          # a second best is right as well
    (report(function="flaky_take_sample"), True, False),
    (report(module=None), True, False),
    (report(function=None), True, False),
    (report(cause="bad-address"), False, True),
])
def test_a_verdict_is_held_against_the_fault(found: dict[str, Any], cause_right: bool, culprit_right: bool) -> None:
    made = score.judge(WANTED, found, 0.5)
    assert (made.cause_right, made.culprit_right) == (cause_right, culprit_right)
    assert made.right == (cause_right and culprit_right)
    assert made.falsely_certain == (not made.right)


def test_only_the_certain_is_falsely_certain() -> None:
    assert not score.judge(WANTED, report(cause="bug", confidence="likely"), 0.5).falsely_certain


def test_a_fault_of_no_module_blames_none() -> None:
    wanted = replace(WANTED, fault=FAULTS["out-of-memory"])
    assert score.judge(wanted, report("out-of-memory", None), 0.5).right
    assert score.judge(wanted, report("out-of-memory", "alloc_pages", None), 0.5).right
    assert not score.judge(wanted, report("out-of-memory"), 0.5).right


def test_a_fault_without_a_function_wants_its_module() -> None:
    wanted = replace(WANTED, fault=SCORING["half-tasklet"])
    assert score.judge(wanted, report("jump-to-null", "anything", "sluice"), 0.5).right
    assert not score.judge(wanted, report("jump-to-null", None), 0.5).right


def test_the_pairs_of_signatures() -> None:
    rows = [row(), row(kernel="6.12"), row(kernel="newest", signature="b2"),       # one bug, two signatures
            row("bug", signature="c3"), row("warn", signature="c3"),               # two bugs, one signature
            row("nmi", signature=""), row("sysrq", signature=""),                  # no signature is no group
            row("live", wanted_cause="none", signature="a1")]                      # it did not crash
    found = score.pairs(rows)
    assert (found.same_bug, found.same_signature, found.both) == (3, 2, 1)
    assert (found.precision, found.recall) == (1 / 2, 1 / 3)
    assert len(list(score.split(rows))) == 3
    assert score.pairs([]) == score.Pairs(0, 0, 0)
    assert (score.pairs([]).precision, score.pairs([]).recall) == (1.0, 1.0)


def test_one_bug_that_two_checks_notice_is_one_bug() -> None:
    assert score.bug_of(FAULTS["double-free"]) == score.bug_of(FAULTS["double-free-debug"])
    assert score.bug_of(FAULTS["nmi"]) != score.bug_of(FAULTS["live"])
    assert len({score.bug_of(fault) for fault in SCORING.values()}) == len(SCORING)


def test_what_makes_it_fail() -> None:
    assert score.passed([row()])
    assert not score.passed([row(), row(cause_right=False, confidence="likely")])
    missed = row("deep", set="scoring", cause_right=False, confidence="likely")
    assert score.passed([row(), missed])                           # the scoring driver may have its misses,
    assert not score.passed([row(), replace(missed, confidence="certain")])     # but none that is certain


def test_the_matrix() -> None:
    short, full = (score.wanted(score.SETS, (), full=full, boots=1) for full in (False, True))
    assert {(want.kernel, want.fault.name) for want in short} < {(want.kernel, want.fault.name) for want in full}
    assert {want.fault.name for want in full} == {name for name, fault in laboratory.KNOWN.items() if fault.kernels}
    assert {want.kernel for want in score.wanted(["scoring"], ["6.12"], full=True, boots=1)} == {"6.12"}
    assert len(score.wanted(["scoring"], ["6.12"], full=False, boots=2)) == \
        2 * len(score.wanted(["scoring"], ["6.12"], full=False, boots=1))


def test_the_table_and_the_figures_say_what_was_found() -> None:
    rows = [row(), row("deep", set="scoring", cause="bug", cause_right=False)]
    lines = list(score.table(rows))
    assert "+ null-dereference" in lines[1]
    assert "- bug" in lines[2]
    assert lines[2].endswith("FALSELY CERTAIN")
    assert next(score.summary(rows)).startswith("laboratory: 1 of 1 right (100.0 %)")
    assert any("scoring: 0 of 1 right (0.0 %)" in line and "falsely certain 1" in line for line in score.summary(rows))
