"""What the dumps of the sixth set showed (kdumpy/vm/scoring5.py); `make score` judges them all.

`make test` takes one of them, as it is and on a kernel that clears what is freed; KDUMPY_MATRIX=full takes every one on
both kernels.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import kdumpy
import lab
from diagnosed import holds
from kdumpy.diagnosis import diagnose
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Verdict
from kdumpy.diagnosis.verdict import judge
from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import Recipe
from kdumpy.vm.scoring5 import SCORING_5

KERNELS = ("6.1", "6.12") if lab.FULL else ("6.1",)
PAIRS = [(kernel, name) for kernel in KERNELS for name in SCORING_5 if lab.FULL or name == "stillborn-drone"]


def on_a_kernel_that_clears(recipe: Recipe) -> Recipe:
    """Change a recipe: what is freed is filled with zeroes, and not with poison."""
    symptoms = ("NULL pointer dereference", "list_del corruption")
    return replace(recipe, fault=replace(recipe.fault, boot="init_on_free=1", symptoms=symptoms))


def verdict_of_cleared(kernel: str, name: str) -> Verdict:
    made = laboratory.dump(kernel, name, progress=print, recipe=on_a_kernel_that_clears)
    with kdumpy.open(made.path) as opened:
        return diagnose(opened).verdict


@pytest.mark.parametrize(("kernel", "name"), [pair for pair in PAIRS if SCORING_5[pair[1]].culprits])
def test_cause_and_culprit(kernel: str, name: str) -> None:
    holds(kernel, SCORING_5[name])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_check_of_a_list_that_falls_over_poison_has_found_nothing(kernel: str) -> None:
    """Without the log, too: the function is the check's, and what it fell over is what counts."""
    with kdumpy.open(lab.dump(kernel, "stillborn-drone").path) as opened:
        judgement = judge(Crash(opened.path, opened, ()))
        assert judgement is not None
        assert judgement.cause == "use-after-free"
        assert judgement.finding.culprit is not None
        assert judgement.finding.culprit.function == "hive_remove_drone"


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_entry_in_a_freed_and_cleared_object_is_used_after_free(kernel: str) -> None:
    """The kernel says that the list is corrupt; that its entry is free memory says more."""
    verdict = verdict_of_cleared(kernel, "stillborn-drone")
    assert (verdict.cause, verdict.confidence) == ("use-after-free", "likely")
    assert verdict.culprit is not None
    assert verdict.culprit.function == "hive_remove_drone"
    assert "took an entry off a list, and the entry lies at offset 0x8 of an object of kmalloc-96" \
        in verdict.explanation


@pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")
@pytest.mark.parametrize("kernel", KERNELS)
def test_null_is_never_certain_where_freed_memory_is_cleared(kernel: str) -> None:
    """The register that led to the freed object holds what was read there: the dump does not show it any more."""
    verdict = verdict_of_cleared(kernel, "answered-haul")
    assert (verdict.cause, verdict.confidence) == ("null-dereference", "likely")
    assert "This kernel clears what is freed (init_on_free=1)" in verdict.explanation
