"""An index that led out of what it is one of: a good pointer, and a number that is none."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.memory import Meaning
from kdumpy.diagnosis.operands import Operand
from kdumpy.kernel import Kernel

_WORD = 1 << 64
_GOOD = frozenset({"slab", "kernel data", "module data", "vmalloc", "stack", "page", "per-cpu"})
"""Kinds of what an array can be a part of."""
_NUMBERS = frozenset({Meaning.SMALL, Meaning.USER, Meaning.ERROR})
"""What a number that is no pointer looks like; a poison has a story of its own."""
_MOST_CPUS = 8192


class Indexed(NamedTuple):
    """The two parts of an address that led nowhere."""

    pointer: int
    register: str
    """That held the pointer."""
    where: str
    """What the pointer leads to, in words."""
    number: int
    """What was added to it, as the register held it; it may have been multiplied."""
    index_register: str

    @property
    def words(self) -> str:
        """The index, and what it is if it was meant to be below zero."""
        for bits in (32, 64):
            if 1 << bits - 1 <= self.number < 1 << bits:
                return f"{self.number:#x}, that is {self.number - (1 << bits)} as a number of {bits} bits with a sign"
        return f"{self.number:#x}"


def indexed(kernel: Kernel, operand: Operand | None, levels: int | None) -> Indexed | None:
    """Return how an address was made of a pointer to what is there and of a number; None where it was not."""
    if operand is None or not operand.base or not operand.index or operand.base_value is None \
            or operand.index_value is None:
        return None
    parts = ((operand.base, operand.base_value), (operand.index, operand.index_value))
    for (register, pointer), (other, number) in (parts, parts[::-1]):
        if memory.meaning(pointer, levels).meaning != Meaning.KERNEL or not _is_number(number, levels) \
                or _is_offset(kernel, pointer):
            continue
        place = pointee(kernel, pointer)
        if place.kind in _GOOD and place.state not in ("freed", "free"):
            return Indexed(pointer, register, place.words, number, other)
    return None


def _is_number(value: int, levels: int | None) -> bool:
    """Tell whether a value is a number of 32 bits, with or without a sign, and no poison."""
    return (value < 1 << 32 or value >= _WORD - (1 << 31)) and memory.index_meaning(value) is None \
        and memory.meaning(value, levels).meaning in _NUMBERS


def _is_offset(kernel: Kernel, pointer: int) -> bool:
    """Tell whether it is what is added to a per-CPU pointer: that one is a number, too."""
    from kdumpy.kernel.online import online_cpus

    prog = kernel.prog
    try:
        begin = prog.symbol("__per_cpu_offset").address
        return any(prog.read_u64(begin + 8 * cpu) == pointer for cpu in islice(online_cpus(prog), _MOST_CPUS))
    except READ_ERRORS:
        return False
