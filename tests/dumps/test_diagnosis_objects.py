"""Objects that are gone, never set, or whose owner is on no stack: what a value was read out of tells."""

from __future__ import annotations

import pytest

import lab
from diagnosed import diagnosed, holds
from kdumpy.diagnosis.model import Confidence, Verdict
from kdumpy.vm.faults import FAULTS

ATTIC = [fault.name for fault in FAULTS.values() if fault.driver in ("attic", "cellar")]


@pytest.mark.parametrize(("kernel", "name"), lab.panics(*ATTIC))
def test_cause_and_culprit(kernel: str, name: str) -> None:
    holds(kernel, FAULTS[name])


def verdict(name: str, kernel: str = "6.1") -> Verdict:
    if (kernel, name) not in lab.panics(name):
        pytest.skip("the full matrix only")
    return diagnosed(kernel, name).verdict


def test_an_entry_of_a_list_that_was_never_set_up_is_null() -> None:
    """container_of(NULL) looks like an error code: -32 is -EPIPE."""
    found = verdict("empty-head")
    assert found.confidence == Confidence.CERTAIN
    assert "container_of()" in found.explanation
    assert "EPIPE" not in found.explanation


def test_a_length_out_of_a_freed_object_is_followed_to_it() -> None:
    """The kernel's own checksum ran off the end of memory, by valid pointers."""
    found = verdict("freed-length")
    assert "kmalloc-32" in found.explanation
    assert any("attic_checksum" in item.detail or "attic_freed_length" in item.detail for item in found.evidence)
    assert found.confidence == Confidence.LIKELY


def test_poison_in_a_living_object_was_never_set() -> None:
    found = verdict("unset-lid")
    assert "nobody has set that member" in found.explanation
    assert found.confidence == Confidence.LIKELY


def test_who_only_lets_soft_interrupts_run_is_not_blamed() -> None:
    """The driver's function that turned them on again is on the stack; blamed is whose cache the object is of."""
    found = verdict("spilt")
    assert found.culprit is not None
    assert (found.culprit.function, found.culprit.module) == ("", "attic")
    assert found.confidence == Confidence.LIKELY
    assert any("attic_bottle" in line for line in found.evidence[0].detail.splitlines()) or \
        "attic_bottle" in found.explanation


def test_the_variable_that_still_points_at_a_freed_object_is_named() -> None:
    found = verdict("lost-lamp")
    assert found.culprit is not None
    assert (found.culprit.variable, found.culprit.module) == ("attic_lamp", "attic")


def test_a_queue_of_works_tells_whose_work_was_freed() -> None:
    found = verdict("late-airing")
    assert found.culprit is not None
    assert (found.culprit.function, found.culprit.module) == ("", "attic")
    assert found.confidence == Confidence.LIKELY


def test_operations_that_lack_one_are_named() -> None:
    found = verdict("no-show")
    assert found.culprit is not None
    assert (found.culprit.variable, found.culprit.module) == ("attic_list", "attic")


def test_an_entry_without_a_link_was_cleared() -> None:
    """The entry is a living object, and what is read there is NULL, like all of it."""
    found = verdict("guest-left")
    assert found.confidence == Confidence.LIKELY
    assert "so is its link" in found.explanation
    assert "null-dereference" in found.symptoms


def test_the_device_whose_operations_lack_the_sending_is_named() -> None:
    found = verdict("no-sending")
    assert found.culprit is not None
    assert (found.culprit.variable, found.culprit.module) == ("cellar_link", "cellar")
    assert "ndo_start_xmit" in found.explanation


def test_a_text_that_was_called_is_told() -> None:
    found = verdict("text-tap")
    assert "it is text, 'orthern '" in found.explanation
    assert "called a pointer that is no address" in found.explanation


def test_a_warning_names_a_function_that_has_returned() -> None:
    found = verdict("kept-dust")
    assert found.confidence == Confidence.CERTAIN
    assert "preempt leak" in found.explanation
