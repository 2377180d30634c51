"""Stacks of functions that call each other, or themselves, told once with how many times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdumpy.diagnosis.model import FrameFacts

_LONGEST = 4
"""Functions that call each other in turns."""
_FEWEST = 3
"""As many repetitions of several frames are worth folding; of a single one, two."""


class Fold(NamedTuple):
    """Frames that stand on a stack so many times, one after the other."""

    frames: tuple[FrameFacts, ...]
    """One repetition; where the culprit is one of them, the marked one."""
    times: int


def folded(frames: Sequence[FrameFacts]) -> list[Fold]:
    """Return a stack with its repetitions folded, innermost first."""
    keys = [(frame.pc, frame.symbol, frame.offset, frame.inline) for frame in frames]
    found: list[Fold] = []
    at = 0
    while at < len(frames):
        length, times = next(((length, times) for length in range(1, _LONGEST + 1)
                              if (times := _times(keys, at, length)) >= (2 if length == 1 else _FEWEST)), (1, 1))
        block = [next((item for item in frames[at + place:at + length * times:length] if item.culprit),
                      frames[at + place]) for place in range(length)]
        found.append(Fold(tuple(block), times))
        at += length * times
    return found


def _times(keys: Sequence[object], at: int, length: int) -> int:
    times = 1
    while keys[at:at + length] == keys[at + times * length:at + (times + 1) * length]:
        times += 1
    return times
