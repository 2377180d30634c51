"""What a report says of a dump parts of which cannot be read: nothing that is not so."""

from __future__ import annotations

import pytest

import kdumpy
import lab
from console import Console
from kdumpy.debuginfo import attach
from kdumpy.diagnosis import Diagnosis, diagnose
from kdumpy.diagnosis.crash import Crash
from kdumpy.errors import NotInDump
from kdumpy.kernel import Kernel


@pytest.fixture
def typeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open dumps as if their types were lost."""
    def lacks(*_given: object) -> None:
        raise NotInDump("the kernel's types (BTF) are lost")

    monkeypatch.setattr(attach, "_kernel_btf", lacks)


def diagnosed(kernel: Kernel) -> Diagnosis:
    with kernel:
        return diagnose(kernel)


@pytest.mark.usefixtures("typeless")
@pytest.mark.parametrize(("kernel", "fault"), lab.panics("null-workqueue", "null-procread", "bug", "sysrq"))
def test_without_types_the_fault_that_ended_it_is_not_one_that_was_survived(kernel: str, fault: str) -> None:
    found = diagnosed(kdumpy.open(lab.dump(kernel, fault).path))
    assert "survived" not in found.verdict.explanation + " ".join(item.title for item in found.findings)
    assert "the kernel went on, and ended" not in {item.what for item in found.verdict.evidence}


@pytest.mark.usefixtures("typeless")
def test_without_types_an_oops_that_was_survived_is_told_as_such() -> None:
    with kdumpy.open(lab.dump("6.1", "null-workqueue").path) as other:
        oops = [record for record in other.log if record.ts_ns > 0]
    for fault in ("sysrq", "null-procread"):       # a stack of known functions; a fault with other registers
        with kdumpy.open(lab.dump("6.1", fault).path) as kernel:
            assert Crash(kernel.path, kernel, oops).ended_later, fault


@pytest.mark.usefixtures("typeless")
def test_without_types_the_shell_names_no_task_of_its_own_making() -> None:
    with kdumpy.open(lab.dump("6.1", "null-workqueue").path) as kernel:
        shown = Console(kernel)("bt")
    assert 'PID: ?        TASK: ?  CPU: ' in shown
    assert "-1" not in shown.splitlines()[0]
