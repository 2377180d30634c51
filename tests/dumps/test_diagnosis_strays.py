"""Crashes that look like another kind: found by the score, and costly, so in the full matrix only."""

from __future__ import annotations

import pytest

import lab
from diagnosed import diagnosed
from kdumpy.diagnosis.model import Confidence, Verdict

pytestmark = pytest.mark.skipif(not lab.FULL, reason="KDUMPY_MATRIX=full: each dump takes half a minute")


def verdict(fault: str) -> Verdict:
    return diagnosed("6.1", fault).verdict


def test_an_error_code_and_an_offset_are_no_null() -> None:
    """-ENODEV and 32 come to 0xd: the kernel itself says "NULL pointer dereference, address: 000000000000000d"."""
    found = verdict("no-voyage")
    assert found.cause == "bad-address"
    assert "-ENODEV" in found.explanation
    assert "NULL pointer dereference" in found.evidence[0].detail


def test_who_freed_an_object_whose_timer_was_set() -> None:
    """No code of the driver runs then; the register and the allocator's memory lead to who freed it."""
    found = verdict("armed-bell")
    assert found.culprit is not None
    assert (found.culprit.function, found.culprit.module) == ("ferry_end_voyage", "ferry")
    assert "ferry_voyage" in found.explanation
    assert any(item.what == "who freed that object" and "ferry_end_voyage" in item.detail for item in found.evidence)


def test_a_bare_per_cpu_pointer_is_named() -> None:
    found = verdict("raw-counter")
    assert (found.cause, found.confidence) == ("bad-address", Confidence.CERTAIN)
    assert "per-CPU variable" in found.explanation


def test_memory_of_the_modules_start_is_gone() -> None:
    found = verdict("late-setup")
    assert found.culprit is not None
    assert found.culprit.function == "ferry_rebuild"


def test_a_disk_that_does_not_answer_is_its_drivers() -> None:
    """No code of the driver is on any stack: the page that is waited for leads to the disk, and that to the module."""
    found = verdict("lost-request")
    assert found.cause == "hung-task"
    assert found.culprit is not None
    assert (found.culprit.variable, found.culprit.module) == ("ferry_disk_ops", "ferry")
    assert "ferry0" in found.explanation


def test_what_the_machine_check_banks_say() -> None:
    """The status of the bank in words, and the memory that it is about: the same from the log and from the stack."""
    import kdumpy
    from kdumpy.diagnosis.crashed.machinecheck import from_log, from_memory

    found = verdict("machine-check")
    assert found.culprit is None
    assert "memory controller" in found.title
    assert any("0x1234a000" in item.detail and item.what == "bank 4 of CPU 1" for item in found.evidence)
    assert any(item.what == "what lay at that address" and "hwpoison" in item.detail for item in found.evidence)
    with kdumpy.open(lab.dump("6.1", "machine-check").path) as kernel:
        lines = [line for record in kernel.log for line in record.text.split("\n")]
        told = {(error.cpu, error.bank, error.status, error.address) for error in from_log(lines)}
        kept = {(error.cpu, error.bank, error.status, error.address) for error in from_memory(kernel)}
    assert told
    assert told <= kept


def test_a_recovered_error_is_found_though_an_operator_ended_it() -> None:
    answer = diagnosed("newest", "recovered-error")
    assert answer.verdict.cause == "sysrq"
    (found,) = [item for item in answer.findings if item.check == "recovered hardware errors"]
    assert ": 1, the last 5" in found.detail


def test_a_lockup_that_another_cpu_noticed_blames_no_innocent_stack() -> None:
    """The stuck CPU took no NMI and gave no registers: its thread's function is named, and not the idle CPU's stack."""
    answer = diagnosed("6.12-arm64", "hard-lockup-buddy")
    assert answer.verdict.cause == "hard-lockup"
    assert answer.verdict.culprit is not None
    assert (answer.verdict.culprit.function, answer.verdict.culprit.module) == ("flaky_reporter", "flaky")
    assert answer.verdict.confidence == Confidence.LIKELY
    # The same bug on x86-64, where an operator's NMI ended it.
    assert answer.signature.id == diagnosed("6.1", "hard-lockup").signature.id
