"""The rules that the fifth set taught (kdumpy/vm/scoring4.py), on its dumps; `make score` judges them all.

`make test` takes two of them; KDUMPY_MATRIX=full takes every one on both kernels.
"""

from __future__ import annotations

import pytest

import kdumpy
import lab
from diagnosed import diagnosed, holds
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.freed import lost_work
from kdumpy.vm.scoring4 import SCORING_4

SHORT = ("two-dyes", "closed-office")
KERNELS = ("6.1", "6.12") if lab.FULL else ("6.1",)
PAIRS = [(kernel, name) for kernel in KERNELS for name, fault in SCORING_4.items()
         if kernel in fault.kernels and (lab.FULL or name in SHORT)]
full = pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")


@pytest.mark.parametrize(("kernel", "name"), PAIRS)
def test_cause_and_culprit(kernel: str, name: str) -> None:
    holds(kernel, SCORING_4[name])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_file_that_is_removed_under_a_lock_that_it_wants(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "closed-office").path) as opened:
        waits = Crash(opened.path, opened, opened.log).waits
        assert waits is not None
        (wait,) = (item.waits_for for item in waits.blocked if item.task.comm == "loom_porter")
        assert wait is not None
        assert (wait.kind, wait.name, wait.note) == ("file in use", "/sys/kernel/loom/authorize", "1 task is in it")
        assert wait.owner is not None
        assert wait.owner.comm == "sh"
        assert wait.certain
    verdict = diagnosed(kernel, "closed-office").verdict
    assert verdict.title == "Deadlock between loom_authorize_store [loom] and loom_disconnect [loom]"
    assert "/sys/kernel/loom/authorize that sh reads or writes" in verdict.explanation
    assert verdict.next[0].startswith("Do not remove a file while holding a lock that its show() or store() takes")


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_index_out_of_a_freed_object(kernel: str) -> None:
    verdict = diagnosed(kernel, "two-dyes").verdict
    assert verdict.confidence == "likely"
    assert "used an index out of an object that had already been freed (0x6b6b6b6b0: an index of 0x6b6b6b6b, times " \
           "16;" in verdict.explanation


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_per_cpu_pointer_out_of_a_freed_object(kernel: str) -> None:
    verdict = diagnosed(kernel, "long-pause").verdict
    assert verdict.confidence == "certain"
    assert "0x6b6b6b6b6b6b6b6b" in verdict.explanation


@full
def test_work_whose_object_was_given_out_anew() -> None:
    with kdumpy.open(lab.dump("6.1", "slow-restart").path) as opened:
        crash = Crash(opened.path, opened, opened.log)
        assert crash.task is not None
        place = lost_work(opened, crash.task.address)
        assert place is not None
        assert place.cache == "kmalloc-96"
    verdict = diagnosed("6.1", "slow-restart").verdict
    assert verdict.confidence == "likely"
    assert "That is no work any more" in verdict.explanation


@full
def test_a_spinlock_in_a_freed_object() -> None:
    with kdumpy.open(lab.dump("6.12", "slow-restart").path) as opened:
        waits = Crash(opened.path, opened, opened.log).waits
        assert waits is not None
        (spin,) = waits.spins.all
        assert opened.prog.read_u32(spin.address) & 0xFFFF == 0x6B6B
        assert spin.holder is None
    verdict = diagnosed("6.12", "slow-restart").verdict
    assert (verdict.cause, verdict.confidence) == ("use-after-free", "likely")
    assert "spins for a spinlock that lies in a freed object" in verdict.explanation


def test_work_that_is_still_there_is_not_lost() -> None:
    """The near miss: the laboratory's work that follows NULL is in a variable of its module, and stays work."""
    with kdumpy.open(lab.dump("6.1", "null-workqueue").path) as opened:
        crash = Crash(opened.path, opened, opened.log)
        assert crash.task is not None
        assert lost_work(opened, crash.task.address) is None
