"""Who waits for whom, on real dumps."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

import drgn
import pytest

import kdumpy
import lab
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.verdict import judge
from kdumpy.diagnosis.waits import locks
from kdumpy.diagnosis.waits.locks import Waits
from kdumpy.diagnosis.waits.waiterlists import lock_of_waiters
from kdumpy.kernel import Kernel
from kdumpy.kernel.tasks import task_objects


def overlay(kernel: Kernel, address: int, data: bytes) -> None:
    """Put other bytes into the kernel's memory."""
    kernel.prog.add_memory_segment(address, len(data), lambda at, count, offset, _: data[offset:offset + count])


_READER_OWNED = 1
"""RWSEM_READER_OWNED, kernel/locking/rwsem.c."""
KERNELS = sorted({kernel for kernel, _ in lab.panics("deadlock", "hung-task")})


def waits_of(kernel: str, fault: str) -> Iterator[Waits]:
    with kdumpy.open(lab.dump(kernel, fault).path) as opened:
        found = Crash(opened.path, opened, opened.log).waits
        assert found is not None
        yield found


@pytest.fixture(params=KERNELS)
def deadlock(request: pytest.FixtureRequest) -> Iterator[Waits]:
    yield from waits_of(request.param, "deadlock")


@pytest.fixture(params=KERNELS)
def hung(request: pytest.FixtureRequest) -> Iterator[Waits]:
    yield from waits_of(request.param, "hung-task")


def test_a_circle_of_two(deadlock: Waits) -> None:
    (circle,) = deadlock.circles
    assert {item.task.comm for item in circle} == {"flaky_collect", "flaky_report"}
    locks = [item.waits_for for item in circle]
    assert all(lock is not None and lock.kind == "mutex" for lock in locks)
    assert len({lock.address for lock in locks if lock}) == 2


def test_each_waits_for_what_the_other_holds(deadlock: Waits) -> None:
    one, other = deadlock.circles[0]
    assert one.waits_for is not None
    assert other.waits_for is not None
    assert one.waits_for.owner == other.task
    assert other.waits_for.owner == one.task


def test_a_static_lock_is_named_by_its_symbol(deadlock: Waits) -> None:
    names = [item.waits_for.name for item in deadlock.blocked if item.waits_for]
    assert names
    for name in names:
        assert name.startswith("flaky+0x")
        assert name.endswith("[flaky]")


def test_the_owner_of_a_lock_need_not_be_blocked_itself(hung: Waits) -> None:
    assert hung.circles == ()
    waiter = next(item for item in hung.blocked if item.task.comm == "flaky_report")
    assert waiter.waits_for is not None
    assert waiter.waits_for.owner is not None
    assert waiter.waits_for.owner.comm == "flaky_collect"
    assert waiter.seconds is not None
    assert waiter.seconds >= 3
    assert hung.of_pid(waiter.task.pid) is waiter


def test_a_kernel_at_rest_has_none_that_wait_for_a_lock() -> None:
    for waits in waits_of("6.1", "live"):
        assert [item for item in waits.blocked if item.waits_for] == []
        assert waits.circles == ()


def test_a_broken_list_of_tasks_leaves_the_deadlock_unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(prog: drgn.Program) -> Iterator[drgn.Object]:
        yield from islice(task_objects(prog), 3)
        raise drgn.FaultError("excluded page", 0x1234)

    monkeypatch.setattr(locks, "task_objects", broken)
    with kdumpy.open(lab.dump("6.1", "deadlock").path) as kernel:
        judgement = judge(Crash(kernel.path, kernel, kernel.log))
    assert judgement is not None
    assert judgement.cause == "hung-task"
    assert [item.cause for item in judgement.not_judged] == ["deadlock"]
    assert "excluded page" in judgement.not_judged[0].why


def test_the_two_ways_to_the_lock_agree(deadlock: Waits) -> None:
    """Since 7.1 a lock points to its first waiter: the words of the stack lead to it as task->blocked_on does."""
    lock = deadlock.prog.type("struct mutex")
    if not lock.has_member("first_waiter"):
        return
    for item in deadlock.blocked:
        if item.waits_for:
            task = deadlock.kernel.task_object(item.task.address)
            begin, words = deadlock._stack_words(task)
            offset = drgn.offsetof(deadlock.prog.type("struct mutex_waiter"), "task")
            waiters = {begin + 8 * number - offset for number, word in enumerate(words) if word == item.task.address}
            assert lock_of_waiters(deadlock.prog, lock, waiters, (begin, words)) == item.waits_for.address


def test_a_page_fault_holds_the_memory_map_of_its_process() -> None:
    """The lock names who read it last: here init, who is made to have; dd is in the fault that has it."""
    with kdumpy.open(lab.dump("6.1", "out-of-memory").path) as kernel:
        waits = Crash(kernel.path, kernel, kernel.log).waits
        assert waits is not None
        faulting = next(task for task in kernel.tasks() if task.comm == "dd" and task.on_cpu)
        init = kernel.task_object(next(task for task in kernel.tasks() if task.pid == 1).address)
        lock = kernel.task_object(faulting.address).mm.mmap_lock
        overlay(kernel, lock.owner.address_of_().value_(), struct.pack("<Q", init.value_() | _READER_OWNED))
        found = waits._lock("rwsem", lock.address_, init, "write")
        assert found.owner is not None
        assert (found.owner.pid, found.certain) == (faulting.pid, True)
        assert found.note == "held by 1 reader; dd is in a page fault, which takes it"
        other = waits._lock("rwsem", init.mm.mmap_lock.address_, init, "write")
        assert other.owner is None or other.owner.pid != faulting.pid


def test_who_waits_for_a_lock_is_not_told_to_hold_it() -> None:
    """The last that came, and that the lock names, has gone and come again."""
    with kdumpy.open(lab.dump("6.1", "rwsem-readers").path) as kernel:
        waits = Crash(kernel.path, kernel, kernel.log).waits
        assert waits is not None
        (waiting,) = (item for item in waits.blocked if item.task.comm == "tardy_enter")
        assert waiting.waits_for is not None
        address = waiting.waits_for.address
        lock = drgn.Object(kernel.prog, "struct rw_semaphore", address=address)
        overlay(kernel, lock.owner.address_of_().value_(), struct.pack("<Q", waiting.task.address | _READER_OWNED))
        waits._takers[address] = None               # as where the code of no stack tells who took it
        found = waits.lock_of(kernel.task_object(waiting.task.address), waiting.stack)
        assert found is not None
        assert (found.owner, found.note) == (None, "held by 1 reader")
