"""A kernel stack was too small for what ran on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind
from kdumpy.kernel.values import Frame

_RECURSION = 5
"""As many frames of one function on a stack are recursion."""
_MOST_NAMED = 5
_MOST_FRAMES = 64
_LARGE = 1024
"""Bytes of local variables that are many: the kernel's own build warns of 2048 (CONFIG_FRAME_WARN), once of 1024."""
_MOST_OF_A_STACK = 0.3
"""Of a stack: who uses as much of it for himself is to blame."""
_OFTEN_A_TURN = 4
"""How many times a function may be called in one turn of a recursion."""


def _recurring(frames: Sequence[Frame]) -> tuple[str | None, int]:
    """Return (function, times) of what is most often on a stack.

    Functions that call each other in turns are there equally often, but for one: then the first one by name, so
    that the same bug is called the same, wherever in the circle the stack ended. Of a circle through a module and
    the kernel's own code, which serves whoever calls it, the module's functions are named.
    """
    called = [frame for frame in frames if frame.function and not frame.user]
    often = Counter(str(frame.function) for frame in called).most_common()
    most = often[0][1] if often else 0
    of_modules = {frame.function for frame in called if frame.module}
    # Once a turn at least: the kernel's functions may be there several times a turn.
    turns = [(name, times) for name, times in often
             if name in of_modules and times >= _RECURSION and times * _OFTEN_A_TURN >= most]
    if turns:
        often, most = turns, turns[0][1]
    names = [name for name, times in often if times >= most - 1 and times >= _RECURSION] or [name for name, _ in often]
    name = min(names, default=None) if most >= _RECURSION else next(iter(names), None)
    return name, most


def _on_the_way(frames: Sequence[Frame], name: str | None) -> tuple[str, ...]:
    """Return the functions of one turn of a recursion, beside the one that names it, in the order of their calls."""
    places = [number for number, frame in enumerate(frames) if frame.function == name]
    # Innermost first: the last turn but one, which is whole.
    turn = frames[places[1] + 1:places[2]] if len(places) > 2 else ()
    return tuple(dict.fromkeys(f"{frame.function}()" for frame in reversed(turn) if frame.function))[:_MOST_NAMED]


def _sizes(crash: Crash, frames: Sequence[Frame]) -> list[tuple[Frame, int]]:
    """Return (frame, bytes of the stack that its function uses) of the functions on a stack, most first."""
    if crash.waits is None:
        return []
    found = [(frame, crash.waits.holders.frame_bytes(frame)) for frame in frames[:_MOST_FRAMES]]
    return sorted((pair for pair in found if pair[1]), key=lambda pair: -pair[1])


def _largest(crash: Crash, frames: Sequence[Frame]) -> tuple[Frame, int] | None:
    """Return the function with the largest local variables, of a module if there is one, where they are large."""
    found = [pair for pair in _sizes(crash, frames) if pair[1] >= _LARGE]
    return next((pair for pair in found if pair[0].module), next(iter(found), None))


class StackOverflow(Cause):
    """A task used more than its kernel stack (16 KiB on x86-64), and ran into the guard page."""

    kind = "stack-overflow"
    outranks = ("bad-address", "general-protection", "null-dereference")

    def match(self, crash: Crash) -> Finding | None:
        """Match the guard page's report."""
        if not crash.told(Kind.STACK_GUARD):
            return None
        frames = crash.below_fault or crash.log_stack
        name, times = _recurring(frames)
        recursion = times >= _RECURSION
        largest = None if recursion else _largest(crash, frames)
        frame = next((item for item in frames if item.function == name), None) if recursion \
            else largest[0] if largest else culprit.choose(frames).frame
        words = Words(crash, frame)
        others = _on_the_way(frames, name) if recursion else ()
        size = crash.kernel.stack_size if crash.kernel else 0
        much = largest is not None and largest[1] >= _MOST_OF_A_STACK * size
        named = ", ".join(f"{item} {used:,}" for item, used in _sizes(crash, frames)[:_MOST_NAMED])
        seen = []
        if largest:
            seen = [Evidence("the functions that use most of the stack, in bytes", named,
                             crash.evidence.command("bt -f"))]
        elif recursion:
            seen = [Evidence("recursion", f"{name} is {times} times on the stack", crash.evidence.command("bt"))]
        guard = crash.event is not None and "guard page" in " ".join(crash.event.lines[:4])
        return Finding(
            title=words.titled("Kernel stack overflow"),
            confidence=CERTAIN if recursion or (much and guard) else LIKELY,
            explanation=words.paragraph(
                f"The kernel stack of the task was used up in {words.name}.",
                (f"It called itself again and again, by way of {', '.join(others)}." if others else
                 "It called itself again and again.") if recursion else
                f"{largest[0].function}() alone keeps {largest[1]:,} bytes of local variables there, of {size:,} that "
                "there are." if largest else
                "The chain of calls was too deep, or a function has too large local variables.",
                "" if guard else "The processor could not even report the fault that came of it (double fault).",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *seen, *crash.evidence.stack()],
            culprit=frame, decisions=[f"chosen: {name}, the function that recurs"] if recursion else
            [f"chosen: {largest[0].function}, which uses most of the stack: {largest[1]} bytes"] if largest else
            culprit.choose(frames).decisions, subtype="recursion" if recursion else "")
