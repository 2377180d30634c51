"""PREEMPT_RT, where a mutex is an rt_mutex and spinlocks sleep: the same faults, the same verdicts."""

from __future__ import annotations

import pytest

import kdumpy
import lab
from kdumpy.diagnosis import diagnose

KERNEL = "6.12-rt"
FULL = pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")
FAULTS = ["deadlock", *(pytest.param(fault, marks=FULL) for fault in (
    "hung-task", "null-workqueue", "soft-lockup", "spin-crossed", "rwsem-readers", "semaphore", "work-flush",
    "use-after-free"))]


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
