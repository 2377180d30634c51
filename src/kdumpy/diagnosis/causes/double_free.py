"""An object was freed twice."""

from __future__ import annotations

from kdumpy.diagnosis.advice import tracking_advice
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.checked import freed_again
from kdumpy.diagnosis.crashed.freed import FreedObject, who_freed
from kdumpy.diagnosis.oops import Kind


class DoubleFree(Cause):
    """An object was freed that was free already; the allocator noticed."""

    kind = "double-free"
    outranks = ("bug", "invalid-opcode", "use-after-free", "general-protection")

    def match(self, crash: Crash) -> Finding | None:
        """Match the allocator's assertion while freeing, or its report."""
        event = crash.event
        if event is None:
            return None
        reported = any("ouble free" in line or "double-free" in line or "Object already free" in line
                       for line in event.lines[:3])
        freeing = any("free" in str(frame.function) and not frame.module for frame in crash.below_fault[:3])
        # mm/slub.c set_freepointer(): BUG_ON(object == fp), with CONFIG_SLAB_FREELIST_HARDENED.
        asserted = crash.told(Kind.BUG) and "mm/sl" in (event.bug_at or "mm/sl") and freeing
        if not (reported or asserted):
            return None
        place = freed_again(crash)
        own = crash.own
        if (own.frame is None or own.frame.module is None) and place is not None and crash.kernel is not None:
            first = who_freed(crash.kernel, FreedObject("", place))     # the second time by the kernel, for somebody
            own = first if first.frame is not None and first.frame.module else own
        words = Words(crash, own.frame)
        return Finding(
            title=words.titled("Double free"),
            confidence=CERTAIN if reported and own is crash.own else LIKELY,
            explanation=words.paragraph(
                f"{words.name} freed an object that was already free. The memory allocator noticed and stopped the "
                "kernel, because two users would soon have been given the same memory.",
                f"It is {place.words}." if place else "", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.checked(place), *crash.evidence.stack()],
            next=tracking_advice(crash, place),
            culprit=own.frame, decisions=own.decisions)
