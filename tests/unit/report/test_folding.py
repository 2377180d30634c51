"""Recursion is told once, with how many times."""

from __future__ import annotations

from kdumpy.diagnosis.model import FrameFacts
from kdumpy.report.folding import folded


def frame(name: str, *, culprit: bool = False) -> FrameFacts:
    return FrameFacts(hash(name) & 0xFFFF, name, 8, None, None, False, culprit)


def told(names: str) -> list[tuple[str, int]]:
    return [("".join(str(item.symbol) for item in fold.frames), fold.times)
            for fold in folded([frame(name) for name in names])]


def test_repetitions_are_folded() -> None:
    assert told("") == []
    assert told("abc") == [("a", 1), ("b", 1), ("c", 1)]
    assert told("abbbc") == [("a", 1), ("b", 3), ("c", 1)]
    assert told("xababababz") == [("x", 1), ("ab", 4), ("z", 1)]
    assert told("abab") == [("a", 1), ("b", 1), ("a", 1), ("b", 1)]     # two times are as well shown as they are
    assert told("abcabcabcab") == [("abc", 3), ("a", 1), ("b", 1)]
    assert sum(len(names) * times for names, times in told("aababababcc")) == 11


def test_the_culprit_stays_marked_in_whatever_repetition_it_is() -> None:
    frames = [frame(name) for name in "ababab"]
    frames[3] = frame("b", culprit=True)
    [fold] = folded(frames)
    assert [item.culprit for item in fold.frames] == [False, True]
