"""The rules that the scoring driver brought about, on its dumps; `make score` judges them all.

`make test` takes two of them; KDUMPY_MATRIX=full takes every one on both kernels.
"""

from __future__ import annotations

import re

import pytest

import kdumpy
import lab
from diagnosed import diagnosed, holds
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.waits import WaitGraph
from kdumpy.diagnosis.memoryuse.takers import vmalloc_callers
from kdumpy.report import text
from kdumpy.vm.scoring import SCORING

SHORT = ("leak-rings", "spin-again")
PAIRS = [(kernel, name) for kernel in ("6.1", "6.12") for name, fault in SCORING.items()
         if kernel in fault.kernels and (lab.FULL or (kernel == "6.1" and name in SHORT))]


@pytest.mark.parametrize(("kernel", "name"), PAIRS)
def test_cause_and_culprit(kernel: str, name: str) -> None:
    holds(kernel, SCORING[name])


def test_a_spinlock_that_is_taken_again() -> None:
    with kdumpy.open(lab.dump("6.1", "spin-again").path) as kernel:
        waits = Crash(kernel.path, kernel, kernel.log).waits
        assert waits is not None
        (spin,) = waits.spins.all
        assert (spin.kind, spin.name, spin.alone) == ("spinlock", "sluice_gate [sluice]", True)
        assert spin.holder is not None
        assert spin.holder.cpu == spin.cpu
        assert spin.holder.frame.function == "sluice_overflow"
        assert waits.spins.circles == ((spin,),)
    # Others may wait for the CPU that spins, as one that lets RCU pass: which, is chance.
    (edge,) = (edge for edge in graph_of("spin-again").edges if edge.kind == "spinlock")
    assert (edge.kind, edge.owner_pid, edge.note) == (
        "spinlock", edge.pid, f"CPU {spin.cpu.number} spins; taken in sluice_overflow()")


def graph_of(fault: str) -> WaitGraph:
    graph = diagnosed("6.1", fault).blocked.graph
    assert graph is not None
    return graph


def test_nobody_spins_where_a_loop_hangs() -> None:
    with kdumpy.open(lab.dump("6.1", "soft-lockup").path) as kernel:
        waits = Crash(kernel.path, kernel, kernel.log).waits
        assert waits is not None
        assert waits.spins.all == ()


@pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")
def test_work_that_waits_for_who_waits_for_it() -> None:
    verdict = diagnosed("6.1", "flush-holding").verdict
    assert "waits for the end of work that cannot end" in verdict.explanation
    (circle,) = graph_of("flush-holding").circles
    kinds = {edge.kind for edge in graph_of("flush-holding").edges}
    assert len(circle.orders) == 2
    assert kinds == {"mutex", "work"}
    order = next(item.detail for item in verdict.evidence if "order" in item.what)
    assert " runs sluice_gate+" in order
    assert " holds sluice_gate+" in order


def test_who_asked_for_vmalloc_areas() -> None:
    with kdumpy.open(lab.dump("6.1", "leak-rings").path) as kernel:
        callers = vmalloc_callers(kernel)
    assert (callers[0][0].symbol, callers[0][0].module) == ("sluice_grow_ring", "sluice")
    assert callers[0][1] > 300 << 20
    assert callers[1][1] < 10 << 20
    verdict = diagnosed("6.1", "leak-rings").verdict
    assert "vmalloc areas took" in verdict.explanation
    assert any("sluice_grow_ring" in item.detail for item in verdict.evidence if "vmalloc" in item.what)


def test_the_vendor_is_told_which_version_it_was() -> None:
    found = diagnosed("6.1", "spin-again")
    module = next(module for module in found.modules if module.name == "sluice")
    assert module.version == "0.9"
    assert re.fullmatch(r"[0-9A-F]{23}", module.source_version)
    assert any(f"sluice 0.9 (srcversion {module.source_version})" in advice for advice in found.verdict.next)
    assert next(module for module in found.modules if module.name == "flaky").version == ""


def test_how_the_verdict_came_about() -> None:
    found = diagnosed("6.1", "spin-again")
    assert found.verdict.decisions == ("these fit: deadlock (certain), soft-lockup (certain)",
                                       "deadlock explains soft-lockup: more is needed for it to fit",
                                       "chosen: deadlock, certain")
    assert any("sluice_purge" in step for step in found.signature.decisions)
    shown = text.render(found, explained=True)
    assert all(step.split(":")[0] in shown for step in found.signature.decisions)
