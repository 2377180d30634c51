"""An object was freed twice."""

from __future__ import annotations

from kdumpy.diagnosis.advice import tracking_advice
from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.checked import freed_again
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
        words = Words(crash, crash.own_frame)
        place = freed_again(crash)
        return Finding(
            title=words.titled("Double free"),
            confidence=CERTAIN if reported else LIKELY,
            explanation=words.paragraph(
                f"{words.name} freed an object that was already free. The memory allocator noticed and stopped the "
                "kernel, because two users would soon have been given the same memory.",
                f"It is {place.words}." if place else "", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.checked(place), *crash.evidence.stack()],
            next=tracking_advice(crash, place),
            culprit=crash.own_frame, decisions=crash.own.decisions)
