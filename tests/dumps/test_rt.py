"""PREEMPT_RT, where a mutex is an rt_mutex and spinlocks sleep: the same faults, the same verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

import kdumpy
import lab
from console import Console
from kdumpy.diagnosis import diagnose
from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import Recipe

KERNEL = "6.12-rt"
FULL = pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")
FAULTS = ["deadlock", *(pytest.param(fault, marks=FULL) for fault in (
    "hung-task", "null-workqueue", "soft-lockup", "rwsem-readers", "semaphore", "work-flush", "use-after-free"))]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_verdict_is_that_of_other_kernels(fault: str) -> None:
    dump = lab.dump(KERNEL, fault)
    with kdumpy.open(dump.path) as kernel:
        found = diagnose(kernel)
    assert found.verdict.cause == dump.fault.cause
    assert found.verdict.culprit is not None
    assert found.verdict.culprit.function in dump.fault.culprits
    assert found.verdict.culprit.module == dump.fault.module


def test_a_mutex_has_an_owner_and_the_name_that_it_has_elsewhere() -> None:
    with kdumpy.open(lab.dump(KERNEL, "deadlock").path) as kernel:
        graph = diagnose(kernel).blocked.graph
    assert graph is not None
    edges = {edge.comm: edge for edge in graph.edges if edge.comm.startswith("flaky")}
    assert {comm: (edge.kind, edge.name.split("+")[0]) for comm, edge in edges.items()} \
        == dict.fromkeys(("flaky_collect", "flaky_report"), ("mutex", "flaky"))
    assert edges["flaky_collect"].owner_pid == edges["flaky_report"].pid
    assert edges["flaky_report"].owner_pid == edges["flaky_collect"].pid


def _stalls(recipe: Recipe) -> Recipe:
    """No CPU is stuck where spinlocks sleep: it is a grace period that does not end."""
    sysctls = {**recipe.fault.sysctls, "kernel.panic_on_rcu_stall": "1"}
    return replace(recipe, fault=replace(recipe.fault, sysctls=sysctls, boot="rcupdate.rcu_cpu_stall_timeout=5",
                                         symptoms=("detected stalls on CPUs/tasks",)))


@FULL
def test_two_tasks_that_sleep_for_each_others_spinlocks() -> None:
    dump = laboratory.dump(KERNEL, "spin-crossed", progress=print, recipe=_stalls)
    with kdumpy.open(dump.path) as kernel:
        found = diagnose(kernel)
        shown = Console(kernel)("foreach UN ps")
    assert (found.verdict.cause, found.verdict.confidence) == ("deadlock", "certain")
    assert "waits for the spinlock robot+0x" in found.verdict.explanation
    assert "panic_on_rcu_stall" in found.verdict.explanation
    assert found.signature.parts[2] == "spin-2"         # as where CPUs spin for them
    assert found.blocked.graph is not None
    assert {(edge.comm, edge.kind, edge.owner_comm) for edge in found.blocked.graph.edges} >= {
        ("tardy_arm", "spinlock", "tardy_door"), ("tardy_door", "spinlock", "tardy_arm")}
    assert shown.count("UN ") >= 2      # the task's own state says neither running nor sleeping
    assert "[tardy_arm]" in shown
    assert "[tardy_door]" in shown
