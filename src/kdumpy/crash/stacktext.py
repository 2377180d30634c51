"""The words of a stack that point into code: `bt -t`, `-T` and `-o`, on every stack that a trace goes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import drgn

from kdumpy.crash.exceptionframes import cpu_stacks
from kdumpy.crash.session import Session
from kdumpy.crash.stack import RawStack, StackFrame
from kdumpy.debuginfo.reading import READ_ERRORS

_GUARD = 4096
"""Bytes without memory below a stack (CONFIG_VMAP_STACK)."""


@dataclass(frozen=True)
class TextWord:
    """A word of a stack that points into code."""

    address: int
    value: int
    symbol: str
    """The function that it points into."""
    module: str | None


@dataclass(frozen=True)
class StackText:
    """The words that point into code on one of the stacks that a trace goes through."""

    stack: str
    """TASK, or the CPU's IRQ, NMI, DF, DB, MCE; UNKNOWN where no symbol tells the stack's bounds."""
    frames: tuple[int, ...]
    """The numbers of the trace's frames on it."""
    words: tuple[TextWord, ...]
    missing: tuple[tuple[int, int], ...]
    """What of the stack is not in the dump: address, bytes."""


@dataclass
class _Stretch:
    stack: str
    base: int
    stop: int
    start: int
    """Where the first of the frames begins."""
    frames: list[int] = field(default_factory=list)


def stack_text(session: Session, task: drgn.Object, cpu: int, frames: Sequence[StackFrame], *, whole: bool = False,
               returns: bool = False) -> tuple[StackText, ...]:
    """Return the words that point into code, from the first frame up, or those of each stack as a `whole`.

    With `returns` only what may be a return address of the first frame's callers: no function's begin, and nothing
    that stands where a switched-out task saved its registers.
    """
    found = []
    for number, stretch in enumerate(_stretches(session, task, cpu, frames)):
        start = stretch.base if whole else stretch.start
        if returns and not number and stretch.frames:
            start = max(start, frames[stretch.frames[0]].sp)
        stack = RawStack(session, task, (stretch.base, stretch.stop))
        words = tuple(TextWord(address, word, getattr(session.symbol(word), "name", "?"), session.module(word))
                      for address, word in stack.text_words(start, begins=not returns))
        found.append(StackText(stretch.stack, tuple(stretch.frames), words, tuple(stack.missing)))
    return tuple(found)


def _stretches(session: Session, task: drgn.Object, cpu: int, frames: Sequence[StackFrame]) -> list[_Stretch]:
    """Return the stacks that a trace goes through, in its order; the task's own always."""
    own = RawStack(session, task)
    areas = [("TASK", own.base, own.base + own.size)]
    found: list[_Stretch] = []
    for number, frame in enumerate(frames):
        at = frame.slot or frame.sp     # a return address at the very top lies on the stack, what is above it does not
        if frame.stack == "USER" or not at:
            continue
        if 0 < own.base - at <= _GUARD:
            at = own.base               # the task's stack has overflowed
        if len(areas) == 1 and not own.base <= at < own.base + own.size:
            areas += _of_cpu(session, cpu)
        name, base, stop = next((area for area in areas if area[1] <= at < area[2]), ("UNKNOWN", at, at + 8))
        # Of an unknown stack no more is believed than a stack may be large: a damaged trace leads anywhere.
        if not found or found[-1].stack != name or not 0 <= at - found[-1].base < max(own.size, stop - base):
            found.append(_Stretch(name, base, stop, at))
        found[-1].stop = max(found[-1].stop, stop)
        found[-1].frames.append(number)
    if not any(stretch.stack == "TASK" for stretch in found):
        found.append(_Stretch("TASK", own.base, own.base + own.size, own.base))
    return found


def _of_cpu(session: Session, cpu: int) -> list[tuple[str, int, int]]:
    try:
        return [(stack.name, stack.base, stack.base + stack.size) for stack in cpu_stacks(session, [cpu])]
    except READ_ERRORS:
        return []


def in_order(text: StackText, frames: Sequence[StackFrame]) -> Iterator[TextWord | StackFrame]:
    """Yield the words of a stack; and, where an exception saved its registers between them, the frame that it hit."""
    hit = [(frame, frames[number - 1].slot if number else frame.slot - 1) for number, frame in enumerate(frames)
           if frame.registers and not frame.inline and max(number - 1, 0) in text.frames]
    for word in text.words:
        while hit and word.address > hit[0][1]:
            yield hit.pop(0)[0]
        yield word
    yield from (frame for frame, _ in hit)
