"""What a report says of a dump parts of which cannot be read: nothing that is not so."""

from __future__ import annotations

from pathlib import Path

import drgn
import pytest

import kdumpy
import lab
from console import Console
from kdumpy.debuginfo import attach
from kdumpy.debuginfo.reading import Losses
from kdumpy.diagnosis import Diagnosis, diagnose
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Health
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.health import State, health
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.paging import KernelMemory
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


def bytes_of_a_task(path: Path) -> range:
    """Return where in the file the page of a sleeping task lies, compressed."""
    with kdumpy.open(path) as kernel, open_dump(path) as dump:
        assert isinstance(dump, KdumpDump)
        task = next(task for task in kernel.tasks() if task.comm == "kthreadd")
        pfn = KernelMemory(dump).translate(task.address + 0x400) // dump.page_size
        descriptor = dump.descriptor(dump.bitmap.rank(pfn))
        assert descriptor.flags
    return range(descriptor.offset, descriptor.offset + descriptor.size)


def test_a_page_that_is_damaged_is_not_called_left_out(tmp_path: Path) -> None:
    """One page of 18,000: whatever sample health takes, the report has met with it."""
    whole = lab.dump("6.1", "null-workqueue").path
    damaged = tmp_path / "vmcore"
    data, where = bytearray(whole.read_bytes()), bytes_of_a_task(whole)
    data[where.start:where.stop] = bytes(len(where))
    damaged.write_bytes(data)
    found = diagnosed(kdumpy.open(damaged))
    assert found.dump.health is Health.DAMAGED
    assert found.dump.missing["tasks not read"] == "1 task cannot be read: the file is damaged there"
    assert "not in the dump" not in " ".join(found.dump.missing.values())
    with kdumpy.open(damaged) as kernel:
        good, _, errors = Console(kernel).attempt("ps")
    assert not good
    assert "1 task cannot be read: the file is damaged there" in errors


def test_health_reads_some_pages(tmp_path: Path) -> None:
    whole = lab.dump("6.1", "null-workqueue").path
    with open_dump(whole) as dump:
        assert health(dump).state is State.COMPLETE
    damaged = tmp_path / "vmcore"
    data = bytearray(whole.read_bytes())
    data[3 << 20:6 << 20] = bytes(3 << 20)
    damaged.write_bytes(data)
    with open_dump(damaged) as dump:
        found = health(dump)
    assert found.state is State.DAMAGED
    assert "pages that were looked at cannot be read" in found.reasons[0].what


def test_what_is_lost_is_counted_by_why() -> None:
    lost = Losses("task")
    assert not lost
    lost.add(drgn.FaultError("could not read memory from kdump: Excluded page", 1))
    assert str(lost) == "1 task is not in the dump"
    lost.add(drgn.FaultError("could not read memory from kdump: Decompression failed: Unknown frame descriptor", 1))
    lost.add(drgn.FaultError("a page cannot be decompressed", 1))       # our own reader
    lost.add(ValueError("a state that no task has"))
    assert str(lost) == ("2 tasks cannot be read: the file is damaged there; 1 task is not in the dump; "
                         "1 task makes no sense")
