"""An assertion of the kernel failed."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind


class Bug(Cause):
    """A BUG() or BUG_ON(): the programmer stated what must hold, and it did not."""

    kind = "bug"
    outranks = ("invalid-opcode",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the assertion's line in the log, or its instruction."""
        told = crash.told(Kind.BUG)
        silent = crash.event is None and crash.faulted and bool(crash.instruction) \
            and str(crash.instruction and crash.instruction.text).startswith("ud2")
        if not (told or silent):
            return None
        words = Words(crash, crash.own_frame)
        own = crash.own_frame
        # An assertion in code that serves many is a check of theirs: what it found wrong may have a name of its own.
        checked = crash.fault.function if own and crash.fault and own.function != crash.fault.function else None
        place = crash.event.bug_at if crash.event else None
        return Finding(
            title=words.titled("Failed assertion (BUG)"),
            confidence=CERTAIN if told and not checked else LIKELY,
            explanation=words.paragraph(
                (f"{words.name} called {checked}(), and a check there failed" if checked else
                 f"{words.name} found something that its author had declared impossible")
                + (f" (the BUG at {place})" if place else "")
                + f", {'which' if checked else 'and'} stopped the kernel so as to do no more damage.",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            next=[f"Read the condition in the source: {place}."] if place else [],
            culprit=crash.own_frame, decisions=crash.own.decisions)
