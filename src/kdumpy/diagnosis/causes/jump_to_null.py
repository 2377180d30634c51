"""A function pointer that was NULL was called."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.derived import is_blank
from kdumpy.diagnosis.memory import NULL_PAGE
from kdumpy.diagnosis.oops import Kind


class JumpToNull(Cause):
    """Code called a function through a pointer that was NULL."""

    kind = "jump-to-null"
    outranks = ("null-dereference", "bad-address", "nx-execute", "user-access")

    def match(self, crash: Crash) -> Finding | None:
        """Match an instruction pointer on the first page."""
        event = crash.event
        nowhere = event.nowhere if event else None
        if nowhere is None and crash.fault is not None and crash.fault.symbol is None:
            nowhere = crash.fault.pc
        fetched = crash.told(Kind.NULL) and crash.access == "execute"
        if not fetched and (nowhere is None or nowhere >= NULL_PAGE or not crash.faulted):
            return None
        words = Words(crash, crash.own_frame)
        source = crash.reader.source if crash.reader else None
        return Finding(
            title=words.titled("Call of a NULL function pointer"),
            confidence=CERTAIN if crash.own_frame and not is_blank(crash) else LIKELY,
            explanation=words.paragraph(
                f"{words.name} called a function through a pointer that was NULL.",
                source.named.sentence if source and source.named else "",
                "Usually an operation that a driver must provide was not set, or the object that holds the pointer "
                "was not ready, or gone.", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.call(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype="execute")
