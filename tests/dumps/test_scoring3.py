"""The rules that the fourth set taught (kdumpy/vm/scoring3.py), on its dumps; `make score` judges them all.

`make test` takes two of them; KDUMPY_MATRIX=full takes every one on both kernels.
"""

from __future__ import annotations

import pytest

import kdumpy
import lab
from diagnosed import diagnosed, holds
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.held import MUTEX, RWSEM
from kdumpy.diagnosis.crashed.unloaded import unloaded_module
from kdumpy.diagnosis.waits.locks import LockWait, Waits
from kdumpy.diagnosis.waits.owners import came_later, is_gone
from kdumpy.kernel import Kernel
from kdumpy.vm.scoring3 import SCORING_3

SHORT = ("left-locked", "self-retired")
KERNELS = ("6.1", "6.12") if lab.FULL else ("6.1",)
PAIRS = [(kernel, name) for kernel in KERNELS for name in SCORING_3 if lab.FULL or name in SHORT]
full = pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")


@pytest.mark.parametrize(("kernel", "name"), PAIRS)
def test_cause_and_culprit(kernel: str, name: str) -> None:
    holds(kernel, SCORING_3[name])


def the_wait(kernel: Kernel, comm: str) -> LockWait:
    waits = Crash(kernel.path, kernel, kernel.log).waits
    assert waits is not None
    (blocked,) = (item for item in waits.blocked if item.task.comm == comm)
    assert blocked.waits_for is not None
    return blocked.waits_for


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_lock_whose_taker_has_ended(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "left-locked").path) as opened:
        wait = the_wait(opened, "stty")
        assert (wait.kind, wait.owner, wait.left) == ("mutex", None, True)
    verdict = diagnosed(kernel, "left-locked").verdict
    assert "the task that took it has ended and did not give it back" in verdict.explanation
    assert "a return before the unlock" in verdict.next[0]
    assert verdict.confidence == "likely"
    # Not the one who waits: the one function of the module that can return with it.
    assert verdict.culprit is not None
    assert (verdict.culprit.function, verdict.culprit.module) == ("points_relocate", "points")


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_way_out_with_a_lock(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "left-locked").path) as opened:
        waits = Crash(opened.path, opened, opened.log).waits
        assert waits is not None
        wait, ways = the_wait(opened, "stty"), waits.holders.ways_out
        (found,) = ways.of("points", MUTEX)
        assert (found.frame.function, found.gives) == ("points_relocate", True)
        # struct points_box has it behind one number (the driver's source).
        assert ways.of("points", MUTEX, wait.address, place=8) == [found]
        assert ways.of("points", MUTEX, wait.address, place=16) == []        # another lock of the same object
        assert ways.of("points", RWSEM) == []
        assert ways.of("no_such_module", MUTEX) == []


def test_a_taker_that_is_there_has_not_ended() -> None:
    """The near miss: the laboratory's hung task waits for a mutex whose holder lives, and is as old as the wait."""
    with kdumpy.open(lab.dump("6.1", "hung-task").path) as opened:
        waits = Waits(opened, Crash(opened.path, opened, opened.log).now_ns)
        (item,) = (item for item in waits.blocked if item.waits_for is not None and item.waits_for.owner is not None)
        assert item.waits_for is not None
        assert item.waits_for.owner is not None
        assert not item.waits_for.left
        owner, waiter = (opened.task_object(address) for address in (item.waits_for.owner.address, item.task.address))
        lock = opened.prog["init_mm"].mmap_lock.address_of_()
        assert not is_gone(owner)
        # Of a lock in whose list it does not stand first, a waiter says nothing.
        assert not came_later(owner, waiter, lock, 1e9, opened.stack_size)
        assert not came_later(owner, waiter, lock, None, opened.stack_size)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_file_that_removes_itself(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "self-retired").path) as opened:
        wait = the_wait(opened, "sh")
        assert (wait.kind, wait.name, wait.note) == ("file in use", "/sys/kernel/points/retire", "1 task is in it")
        assert wait.owner is not None
        assert wait.owner.comm == "sh"
    verdict = diagnosed(kernel, "self-retired").verdict
    assert verdict.title == "Deadlock of points_retire_store [points] with itself"
    assert "waits until nobody is in it; it is in it itself" in verdict.explanation
    assert "sysfs_remove_file_self()" in verdict.next[0]


def test_no_module_is_gone_where_none_was_unloaded() -> None:
    with kdumpy.open(lab.dump("6.1", "left-locked").path) as opened:
        assert unloaded_module(opened, 0xFFFFFFFF_FE000000).frame is None       # of modules, and none was unloaded
        assert unloaded_module(opened, 0xFFFF8880_00001000).frame is None
        assert unloaded_module(opened, None).frame is None


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_module_that_went(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "leave-running").path) as opened:
        crash = Crash(opened.path, opened, opened.log)
        assert crash.own_frame is not None
        assert (crash.own_frame.module, crash.own_frame.symbol) == ("vane", None)
        loaded = opened.prog.symbol("flaky_write").address
        assert unloaded_module(opened, loaded).frame is None
        assert unloaded_module(opened, opened.prog.symbol("schedule").address).frame is None
    verdict = diagnosed(kernel, "leave-running").verdict
    assert verdict.culprit is not None
    assert verdict.culprit.words == "unloaded code"
    assert verdict.confidence == "likely"
    assert verdict.next[0].startswith("Do not unload the module vane")


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_queue_that_is_flushed(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "busy-queue").path) as opened:
        wait = the_wait(opened, "sh")
        assert (wait.kind, wait.certain, wait.note) == ("work", True, "the worker runs points_signal()")
    assert "waits for the end of work that cannot end" in diagnosed(kernel, "busy-queue").verdict.explanation


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_entry_of_a_walked_list_is_told_as_freed(kernel: str) -> None:
    verdict = diagnosed(kernel, "stale-listing").verdict
    assert "general-protection" in verdict.symptoms
    assert "offset 0x40 of an object of kmalloc-128 (128 bytes), freed" in verdict.explanation
    assert verdict.confidence == "likely"


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_way_of_a_recursion(kernel: str) -> None:
    assert "again and again, by way of dev_set_mtu()" in diagnosed(kernel, "nested-mtu").verdict.explanation
