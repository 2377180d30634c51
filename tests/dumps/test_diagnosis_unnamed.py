"""Who is to blame where neither a lock's word nor a stack names him: by code, structures and lists (driver `winch`).

Two dumps are of `make test`; the others are of the full matrix.
"""

from __future__ import annotations

import pytest

import lab
from diagnosed import diagnosed, holds, waits_of
from kdumpy.diagnosis.crashed.following import function_at
from kdumpy.diagnosis.crashed.held import COMPLETION, MUTEX, PREEMPTION, SOFTIRQS, SPIN
from kdumpy.vm.faults import FAULTS

WINCH = [name for name, fault in FAULTS.items() if fault.driver == "winch"]
KERNELS = ("6.1", "6.12", "newest") if lab.FULL else ("6.1",)
full = pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")


@pytest.mark.parametrize(("kernel", "fault"), lab.panics(*WINCH))
def test_the_verdict(kernel: str, fault: str) -> None:
    holds(kernel, FAULTS[fault])


@pytest.mark.parametrize("kernel", KERNELS)
def test_who_is_to_complete_what_is_waited_for(kernel: str) -> None:
    with waits_of(kernel, "answer-locked") as waits:
        (waiting,) = [item for item in waits.blocked if item.task.comm == "winch_lift"]
        wait = waiting.waits_for
        assert wait is not None
        assert wait.owner is not None
        assert (wait.kind, wait.certain) == ("completion", True)
        assert wait.owner.comm.startswith("kworker")
        assert wait.note == f"{wait.owner.comm} is to end that wait in winch_lift_work()"
        # The near misses: another completion, another kind, and the one who waits himself.
        frames = waits.kernel.stack(wait.owner).frames
        assert waits.holders.gives_in(wait.owner, frames, wait.address, COMPLETION) is not None
        assert waits.holders.gives_in(wait.owner, frames, wait.address + 8, COMPLETION) is None
        assert waits.holders.gives_in(wait.owner, frames, wait.address, MUTEX) is None
        assert waits.holders.gives_in(waiting.task, waiting.stack.frames, wait.address, COMPLETION) is None
        assert len(waits.circles) == 1
        assert {item.task.comm for item in waits.circles[0]} == {"winch_lift", wait.owner.comm}
        assert [item.task.pid for item in waits.chain(waiting)] == [wait.owner.pid]
    verdict = diagnosed(kernel, "answer-locked").verdict
    assert verdict.confidence == "certain"
    assert "One of them waits, with a lock held, for one who wants that lock before" in verdict.explanation


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_timer_that_a_processor_waits_for(kernel: str) -> None:
    with waits_of(kernel, "timer-locked") as waits:
        stopping = waits.spins.of_cpu(0)
        assert stopping is not None
        assert stopping.holder is not None
        assert stopping.holder.cpu is not None
        assert (stopping.kind, stopping.holder.cpu.number) == ("timer", 1)
        assert stopping.holder.frame.function == "winch_motor_tick"
        ticking = waits.spins.of_cpu(1)
        assert ticking is not None
        assert ticking.kind == "spinlock"
        assert [spin.cpu.number for spin in waits.spins.circles[0]] in ([0, 1], [1, 0])
        assert not waits.spins.is_taken(stopping.address)               # the timer is no lock
        assert waits.spins.is_taken(ticking.address)
    verdict = diagnosed(kernel, "timer-locked").verdict
    assert verdict.confidence == "certain"
    assert "waits for the end of a timer's function, winch_motor_tick(), on CPU 1" in verdict.explanation
    assert "del_timer_sync()" in verdict.next[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_instructions_that_keep_preemption_off(kernel: str) -> None:
    with waits_of(kernel, "answer-locked") as waits:
        prog, held = waits.kernel.prog, waits.holders.ways_out.held
        function = function_at(prog, prog.symbol("schedule").address)
        assert function is not None
        names = set(held.code_of(function).calls.values())
        assert {"count up: preempt", "count down: preempt"} <= names    # schedule() keeps it off while it works
        assert len(held.takes(function, PREEMPTION)) == len([value for _, value in held.takes(function, PREEMPTION)
                                                             if value is None]) > 0
        assert held.takes(function, SOFTIRQS) == []


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_timer_that_waits_for_itself(kernel: str) -> None:
    verdict = diagnosed(kernel, "timer-itself").verdict
    assert verdict.title == "Deadlock of winch_brake_tick [winch] with itself"
    assert verdict.confidence == "certain"


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_processor_that_does_not_answer(kernel: str) -> None:
    verdict = diagnosed(kernel, "deaf-cpu").verdict
    assert "a call to another CPU, which cannot answer: its interrupts are off, on CPU 1" in verdict.explanation


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_reader_that_sleeps(kernel: str) -> None:
    verdict = diagnosed(kernel, "sleeping-plan").verdict
    assert "winch_reader" in verdict.explanation
    assert "is off its CPU within rcu_read_lock()" in verdict.explanation
    assert "It sleeps there, which a reader must not do." in verdict.explanation


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_lock_of_an_object_that_a_process_left(kernel: str) -> None:
    with waits_of(kernel, "left-in-object") as waits:
        (wait,) = (item.waits_for for item in waits.blocked if item.task.comm == "cat")
        assert wait is not None
        assert wait.owner is not None
        assert (wait.owner.comm, wait.left) == ("sh", False)            # it lives, and runs other code
        assert [item.frame.function for item in waits.holders.ways_out.of("winch", MUTEX)] == ["winch_set_load"]
    verdict = diagnosed(kernel, "left-in-object").verdict
    assert verdict.confidence == "likely"
    assert "winch_set_load() takes it, and has a way out on which it does not give it back" in verdict.explanation


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_spinlock_that_a_work_kept(kernel: str) -> None:
    verdict = diagnosed(kernel, "kept-spinlock").verdict
    assert verdict.title == "A spinlock was not given back in winch_weigh_work [winch]"
    with waits_of(kernel, "kept-spinlock") as waits:
        assert [frame.function for frame in waits.holders.leavers(["winch"], SPIN)] == ["winch_weigh_work"]


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_who_takes_memory_without_asking(kernel: str) -> None:
    verdict = diagnosed(kernel, "endless-log").verdict
    assert verdict.confidence == "likely"
    # On 6.1 its cache is merged with another one of its size, whose name it has then.
    assert verdict.title.endswith("taken by winch_log_turn [winch]")
    assert "the only function to do so in a module that is not the kernel's own" in verdict.explanation


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_largest_local_variables(kernel: str) -> None:
    verdict = diagnosed(kernel, "large-frames").verdict
    assert "winch_draw() alone keeps 9," in verdict.explanation


@full
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_page_that_a_module_keeps_locked(kernel: str) -> None:
    with waits_of(kernel, "pinned-page") as waits:
        (wait,) = (item.waits_for for item in waits.blocked if item.task.comm == "sh")
        assert wait is not None
        assert wait.owner is not None
        assert (wait.kind, wait.owner.comm) == ("page lock", "winch_pin")
