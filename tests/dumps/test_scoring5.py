"""What the dumps of the sixth set showed (kdumpy/vm/scoring5.py); `make score` judges them all.

`make test` takes one of them; KDUMPY_MATRIX=full takes every one on both kernels.
"""

from __future__ import annotations

import pytest

import kdumpy
import lab
from diagnosed import holds
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.verdict import judge
from kdumpy.vm.scoring5 import SCORING_5

KERNELS = ("6.1", "6.12") if lab.FULL else ("6.1",)
PAIRS = [(kernel, name) for kernel in KERNELS for name in SCORING_5 if lab.FULL or name == "stillborn-drone"]


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
