"""Verdicts from the log alone, for what the laboratory makes no dump of, and for damaged dumps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.diagnosis.causes import causes
from kdumpy.diagnosis.causes.base import Cause, Unjudged
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Confidence
from kdumpy.diagnosis.verdict import judge
from unit.diagnosis import kernel_logs
from unit.diagnosis.test_oops import NEAR, OPENINGS

HARD_LOCKUP = """\
[  500.000001] NMI watchdog: Watchdog detected hard LOCKUP on cpu 3
[  500.000002] CPU: 3 PID: 4242 Comm: worker Not tainted 6.1.0 #1
[  500.000003] RIP: 0010:native_queued_spin_lock_slowpath+0x6a/0x2a0
[  500.000004] Call Trace:
[  500.000005]  <TASK>
[  500.000006]  _raw_spin_lock_irqsave+0x3d/0x50
[  500.000007]  ring_fill+0x11/0x90 [nic]
[  500.000008]  __x64_sys_ioctl+0x8b/0xc0
[  500.000009]  do_syscall_64+0x5d/0x90
[  500.000010]  </TASK>
[  500.000011] Kernel panic - not syncing: Hard LOCKUP
"""
NO_ROOT = """\
[    2.000001] VFS: Cannot open root device "sda1" or unknown-block(0,0): error -6
[    2.000002] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
[    2.000003] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0 #1
"""
NO_INIT = """\
[    2.000002] Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.
[    2.000003] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0 #1
"""
MACHINE_CHECK = """\
[   99.000001] mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 9: be00000000000097
[   99.000002] mce: [Hardware Error]: RIP !INEXACT! 10:<ffffffff81a3f7ad> {default_idle+0xd/0x20}
[   99.000003] mce: [Hardware Error]: TSC 0 ADDR 12345000 MISC 8c
[   99.000004] mce: [Hardware Error]: Machine check: Processor context corrupt
[   99.000005] Kernel panic - not syncing: Fatal machine check
"""
OUT_OF_MEMORY = """\
[   50.000001] dd invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), order=0, oom_score_adj=0
[   50.000002] CPU: 0 PID: 160 Comm: dd Not tainted 6.1.0 #1
[   50.000003] Tasks state (memory values in pages):
[   50.000004] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[   50.000005] [    120]     0   120      607      206    45056        0             0 syslogd
[   50.000006] [    160]     0   160   231007    90112   786432        0             0 dd
[   50.000007] Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled
"""
INIT_KILLED = """\
[   50.000001] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
[   50.000002] CPU: 0 PID: 1 Comm: systemd Not tainted 6.1.0 #1
"""
CORE_PANIC = """\
[   50.000001] Kernel panic - not syncing: no answer from 0xffff888012345678 after 17 ticks
[   50.000002] CPU: 0 PID: 1 Comm: systemd Not tainted 6.1.0 #1
"""


@pytest.mark.parametrize(("text", "cause", "words"), [
    (HARD_LOCKUP, "hard-lockup", "ring_fill"),
    (NO_ROOT, "no-root", "root filesystem"),
    (NO_INIT, "no-root", "No first process"),
    (MACHINE_CHECK, "machine-check", "memory controller"),
    (OUT_OF_MEMORY, "out-of-memory", "dd"),
    (INIT_KILLED, "init-exit", "SIGSEGV"),
    (CORE_PANIC, "unknown", "no answer"),
])
def test_a_verdict_from_the_log_alone(text: str, cause: str, words: str) -> None:
    judgement = judge(kernel_logs.crash(text))
    assert judgement is not None
    assert judgement.cause == cause
    assert words in judgement.finding.title


@pytest.mark.parametrize("path", sorted(kernel_logs.LOGS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_stored_logs_alone_give_the_cause(path: object) -> None:
    from kdumpy.vm.faults import FAULTS

    name = path.stem  # type: ignore[attr-defined]
    fault = FAULTS[name.partition("-")[2]]
    judgement = judge(kernel_logs.stored_crash(name))
    assert judgement is not None
    # Who leaks memory is not in the log; the rest of the faults is told by it.
    assert judgement.cause == ("out-of-memory" if fault.cause == "memory-leak" else fault.cause)
    unjudged = {item.cause for item in judgement.not_judged}
    assert unjudged == {"memory-leak": {"memory-leak"}, "hung-task": {"deadlock"}, "nmi": {"hard-lockup"}
                        }.get(fault.cause, set())
    if unjudged:            # of which what was chosen would be a symptom
        assert judgement.finding.confidence != "certain"


def test_a_quiet_log_is_no_crash() -> None:
    assert judge(kernel_logs.crash("[    1.000000] flaky: ready\n")) is None


def test_a_symptom_stays_in_the_evidence() -> None:
    judgement = judge(kernel_logs.stored_crash("6.1-list-corruption"))
    assert judgement is not None
    assert judgement.cause == "list-corruption"
    assert set(judgement.symptoms) == {"bug", "invalid-opcode"}


def test_a_cause_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Cause, crash: Crash) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(next(cause for cause in causes() if cause.kind == "bug")), "match", fail)
    judgement = judge(kernel_logs.stored_crash("6.1-null-workqueue"))
    assert judgement is not None
    assert judgement.cause == "null-dereference"
    assert [item.cause for item in judgement.not_judged] == ["bug"]


@pytest.mark.parametrize(("failing", "name", "confidence"), [
    ("use-after-free", "6.1-null-workqueue", "likely"),     # outranks jump-to-null, and that null-dereference
    ("hung-task", "6.1-null-workqueue", "certain"),         # has nothing to do with it
])
def test_nothing_is_certain_where_what_may_explain_it_was_not_judged(
        monkeypatch: pytest.MonkeyPatch, failing: str, name: str, confidence: str) -> None:
    def fail(self: Cause, crash: Crash) -> Unjudged:
        return Unjudged("the page is missing")

    monkeypatch.setattr(type(next(cause for cause in causes() if cause.kind == failing)), "match", fail)
    judgement = judge(kernel_logs.stored_crash(name))
    assert judgement is not None
    assert judgement.finding.confidence == confidence
    assert any(f"it could not be judged, whether it is {failing}" in line for line in judgement.decisions) is (
        confidence == "likely")


def test_what_is_unknown_for_want_of_judging_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("hung-task", "deadlock"):
        monkeypatch.setattr(type(next(cause for cause in causes() if cause.kind == kind)), "match",
                            lambda self, crash: Unjudged("stopped"))
    judgement = judge(kernel_logs.stored_crash("6.1-hung-task"))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.confidence, judgement.finding.culprit) == ("unknown", "possible", None)
    assert "It could not be judged, whether it is deadlock or hung-task, and none of the other causes fits" in \
        judgement.finding.explanation
    assert "None of the causes" not in judgement.finding.explanation


def test_every_cause_keeps_the_contract() -> None:
    kinds = [cause.kind for cause in causes()]
    assert len(kinds) == len(set(kinds))
    for cause in causes():
        assert (type(cause).__doc__ or "").strip().endswith((".", "."))
        assert set(cause.outranks) <= set(kinds), cause.kind
        assert cause.kind not in cause.outranks


def test_no_two_causes_outrank_each_other() -> None:
    outranks = {cause.kind: set(cause.outranks) for cause in causes()}
    assert [(a, b) for a in outranks for b in outranks[a] if a in outranks[b]] == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([*OPENINGS, *NEAR]), st.text(max_size=60)), max_size=30))
def test_no_log_raises(lines: list[str]) -> None:
    judgement = judge(kernel_logs.crash("\n".join(f"[    1.000000] {line}" for line in lines)))
    if judgement is not None:
        assert judgement.finding.confidence in Confidence
        assert [item for item in judgement.not_judged if "Error" in item.why] == []
