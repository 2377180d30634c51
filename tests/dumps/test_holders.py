"""Who holds a lock whose word does not say it: found by the code of what is on the stacks.

The readers' dump is one of `make test`; the others are of the full matrix.
"""

from __future__ import annotations

import drgn
import pytest

import kdumpy
import lab
from diagnosed import waits_of
from kdumpy.diagnosis import diagnose
from kdumpy.diagnosis.crashed.held import RWSEM, SEMAPHORE, SPIN, Family

KERNELS = lab.KERNELS if lab.FULL else ("6.1",)
full = pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_reader_that_stays_is_named_and_not_the_one_that_came_last(kernel: str) -> None:
    with waits_of(kernel, "rwsem-readers") as waits:
        (waiting,) = [item for item in waits.blocked if item.task.comm == "tardy_enter"]
        wait = waiting.waits_for
        assert wait is not None
        assert wait.owner is not None
        assert (wait.owner.comm, wait.certain, wait.mode) == ("tardy_browse", True, "write")
        assert wait.note == "held by 1 reader; tardy_browse took it in tardy_browse()"
        # What the lock's own word says is another one, who gave it back.
        owner = drgn.Object(waits.prog, "struct rw_semaphore *", wait.address).owner.counter.value_()
        last = waits.kernel.task_object(owner & ~7)
        assert last.comm.string_() == b"tardy_lookup"


def test_a_reader_that_cannot_be_proved_is_not_certain() -> None:
    with waits_of("6.1", "rwsem-readers") as waits:
        waits.holders.taken_in = lambda *arguments: None  # type: ignore[method-assign]
        (waiting,) = [item for item in waits.blocked if item.task.comm == "tardy_enter"]
        assert waiting.waits_for is not None
        assert waiting.waits_for.owner is not None
        assert waiting.waits_for.owner.comm == "tardy_lookup"
        assert not waiting.waits_for.certain
        assert waiting.waits_for.note == "held by 1 reader; the one named came last"


@pytest.mark.parametrize(("comm", "family", "holds"), [
    ("tardy_browse", RWSEM, True), ("tardy_browse", SEMAPHORE, False), ("tardy_browse", SPIN, False),
    ("tardy_lookup", RWSEM, False),         # it had it, and gave it back
    ("tardy_enter", RWSEM, False),          # it is just taking it
    ("init", RWSEM, False),
])
def test_what_a_stack_holds(comm: str, family: Family, holds: bool) -> None:
    with waits_of("6.1", "rwsem-readers") as waits:
        lock = next(item.waits_for.address for item in waits.blocked
                    if item.waits_for and item.task.comm == "tardy_enter")
        task = next(task for task in waits.kernel.tasks() if task.comm == comm)
        frame = waits.holders.taken_in(task, waits.kernel.stack(task).frames, lock, family)
        assert (frame is not None) is holds
        assert waits.holders.taken_in(task, waits.kernel.stack(task).frames, lock + 8, family) is None


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_who_took_a_semaphore(kernel: str) -> None:
    with waits_of(kernel, "semaphore") as waits:
        (waiting,) = [item for item in waits.blocked if item.task.comm == "tardy_clean"]
        assert waiting.waits_for is not None
        assert waiting.waits_for.owner is not None
        assert waiting.waits_for.owner.comm == "tardy_load"
        assert not waiting.waits_for.certain            # others may have places of it, too


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_two_cpus_that_spin_for_each_other(kernel: str) -> None:
    with waits_of(kernel, "spin-crossed") as waits:
        (circle,) = waits.spins.circles
        took = {spin.cpu.number: spin.holder and spin.holder.frame.function for spin in waits.spins.all}
        assert len(circle) == 2
        assert {spin.cpu.number for spin in circle} == {0, 1}
        assert set(took.values()) == {"tardy_move_arm", "tardy_open_door"}


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_cpu_that_loops_with_a_lock(kernel: str) -> None:
    with waits_of(kernel, "spin-held") as waits:
        (spin,) = waits.spins.all
        assert spin.holder is not None
        assert spin.holder.frame.function == "tardy_grip"
        assert not spin.alone
        assert waits.spins.circles == ()


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_cgroup_at_its_limit(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "cgroup-oom").path) as opened:
        verdict = diagnose(opened).verdict
    assert verdict.title == "Out of memory in the cgroup /small: the largest process was dd"
    assert "32.0 MiB" in verdict.explanation
