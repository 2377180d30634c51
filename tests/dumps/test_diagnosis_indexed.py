"""An index that led out of its array: the pointer beside it is good, and is not blamed."""

from __future__ import annotations

import pytest

import kdumpy
import lab
from diagnosed import diagnosed
from kdumpy.diagnosis.crashed.indexed import indexed
from kdumpy.diagnosis.memory import page_levels
from kdumpy.diagnosis.operands import Operand


def operand(base: int, index: int) -> Operand:
    return Operand("(%rdx, %rax)", "rdx", base, "rax", index, (base + index) % (1 << 64), 1, "write")


def test_a_number_beside_a_good_pointer_is_an_index() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        task = next(iter(kernel.tasks())).address
        for made, pointer, number in ((operand(task, 0xFFFFFFFF), "rdx", "rax"),
                                      (operand(7 << 16, task), "rax", "rdx")):
            found = indexed(kernel, made, page_levels(kernel))
            assert found is not None
            assert (found.pointer, found.register, found.index_register) == (task, pointer, number)
            assert "task_struct" in found.where
        minus = indexed(kernel, operand(task, 0xFFFFFFFF), page_levels(kernel))
        assert minus is not None
        assert minus.words == "0xffffffff, that is -1 as a number of 32 bits with a sign"


def test_what_is_no_index_is_none() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        task = next(iter(kernel.tasks())).address
        offset = kernel.prog.read_u64(kernel.prog.symbol("__per_cpu_offset").address)
        for base, index in ((task, 0x6B6B6B6B), (0, 0x8000), (task, task), (task, 0x7F0012345678), (offset, 0x123456),
                            (0x6B6B6B6B6B6B6B6B, 0x10000)):
            assert indexed(kernel, operand(base, index), page_levels(kernel)) is None, (hex(base), hex(index))


@pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")
def test_an_index_of_minus_one_is_told_as_one() -> None:
    found = diagnosed("6.12", "card-reset")
    assert "The pointer was good" in found.verdict.explanation
    assert "an index or a length was out of range (rax was 0xffffffff, that is -1" in found.verdict.explanation
    assert ("the index in the source", "mill->holes_read, which was 0xffffffff, that is -1 as a number of 32 bits with "
            "a sign") in {(item.what, item.detail) for item in found.verdict.evidence}
