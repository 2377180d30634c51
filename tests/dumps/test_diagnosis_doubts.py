"""What only looks certain is not told as certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import kdumpy
import lab
from kdumpy.diagnosis.causes.bad_address import BadAddress
from kdumpy.diagnosis.causes.base import Finding
from kdumpy.diagnosis.causes.hard_lockup import HardLockup
from kdumpy.diagnosis.causes.machine_check import MachineCheck
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.percpu import is_small, per_cpu_addresses
from kdumpy.diagnosis.crashed.tickless import went_on
from kdumpy.diagnosis.memory import meaning
from kdumpy.dumpfile.logrecord import LogRecord
from kdumpy.kernel import Kernel

CORRECTED = """\
mce: [Hardware Error]: CPU 1: Machine Check Exception: 4 Bank 4: 9c00000000010091
mce: [Hardware Error]: TSC 0 ADDR 1234a680
mce: [Hardware Error]: PROCESSOR 2:f61 TIME 1700000000 SOCKET 0 APIC 1 microcode 1000065
Kernel panic - not syncing: Timeout: Not all CPUs entered broadcast exception handler"""


@pytest.fixture
def stuck() -> Iterator[Crash]:
    with kdumpy.open(lab.dump("6.1", "hard-lockup").path) as kernel:
        yield Crash(kernel.path, kernel, kernel.log)


def test_time_went_on_while_a_cpu_had_no_ticks(stuck: Crash) -> None:
    assert stuck.kernel is not None
    (still,) = stuck.tickless
    task = went_on(stuck.kernel, still, stuck.now)
    assert task is not None
    assert task.cpu != still.cpu.number
    # Nobody ran in the middle of the last microseconds, nor long after the end.
    assert went_on(stuck.kernel, replace(still, seconds=1e-6), stuck.now) is None
    assert went_on(stuck.kernel, still, (stuck.now or 0) + 1000) is None
    found = HardLockup().match(stuck)
    assert isinstance(found, Finding)
    assert found.confidence == "certain"
    assert any(f"meanwhile CPU {task.cpu} ran" in item.detail for item in found.evidence)


def test_a_virtual_machine_that_was_paused_looks_like_a_hard_lockup(stuck: Crash,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """The same dump, had nobody run in the meantime."""
    monkeypatch.setattr(Kernel, "tasks", lambda self: iter(()))
    found = HardLockup().match(stuck)
    assert isinstance(found, Finding)
    assert found.confidence == "likely"
    assert "a virtual machine that was paused" in found.explanation


def test_a_small_number_can_be_a_per_cpu_pointer_and_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with kdumpy.open(lab.dump("6.1", "bad-address").path) as kernel:
        crash = Crash(kernel.path, kernel, kernel.log)
        assert crash.event is not None
        value = 0x12000                 # a length, or a variable of the kernel's own per-CPU area
        assert per_cpu_addresses(kernel, value)
        assert is_small(value)
        assert not is_small(0x791F0C58E00E50)           # of a dump: a chunk of vmalloc's less the CPU's base
        sure = BadAddress().match(crash)
        monkeypatch.setattr(Crash, "pointer", value)
        monkeypatch.setattr(Crash, "pointer_meaning", meaning(value))
        doubtful = BadAddress().match(Crash(kernel.path, kernel, kernel.log))
    assert sure is not None
    assert doubtful is not None
    assert (sure.confidence, doubtful.confidence) == ("certain", "likely")
    assert "can be the pointer to a per-CPU variable" in doubtful.explanation
    assert "a number that is no pointer at all" in doubtful.explanation


def test_an_error_that_was_corrected_stopped_nobody() -> None:
    def matched(text: str) -> Finding:
        records = [LogRecord(seq, seq * 10**9, 3, 0, "", line) for seq, line in enumerate(text.splitlines())]
        found = MachineCheck().match(Crash(Path("vmcore"), None, records))
        assert isinstance(found, Finding)
        return found

    doubtful, sure = matched(CORRECTED), matched(CORRECTED.replace("9c00", "bc00"))
    assert (doubtful.confidence, sure.confidence) == ("likely", "certain")
    assert doubtful.title == "Hardware error (machine check)"
    assert "the error that stopped the kernel is not among that" in doubtful.explanation
    assert any("corrected by the hardware" in item.detail for item in doubtful.evidence)
    assert "memory controller" in sure.title


def test_the_size_of_stacks_is_the_dumps() -> None:
    with kdumpy.open(lab.bundled()) as kernel:
        assert kernel.stack_size == kernel.prog["THREAD_SIZE"].value_() == 16384
