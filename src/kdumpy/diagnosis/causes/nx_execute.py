"""Data was executed."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.memory import Meaning, meaning
from kdumpy.diagnosis.oops import Kind

_FETCH_REFUSED = 0x11
"""x86: the page is there (bit 0), and an instruction was fetched from it (bit 4)."""


class NxExecute(Cause):
    """Code jumped to an address that holds data."""

    kind = "nx-execute"
    outranks = ("bad-address",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the processor's refusal to execute a page that is there, and is the kernel's own."""
        code = crash.event.error_code if crash.event else None
        refused = crash.told(Kind.PAGE_FAULT) and code is not None and code & _FETCH_REFUSED == _FETCH_REFUSED \
            and crash.address is not None and meaning(crash.address).meaning == Meaning.KERNEL
        if not (crash.told(Kind.NX) or refused):
            return None
        words = Words(crash, crash.own_frame)
        place = crash.describe(crash.address) if crash.address else ""
        return Finding(
            title=words.titled("Execution of data"),
            confidence=CERTAIN,
            explanation=words.paragraph(
                f"{words.name} jumped to the address {crash.address or 0:#x}, which holds data and not code"
                + (f" ({place})." if place else "."),
                "A function pointer was overwritten or is of the wrong kind; it can also be an attack on the kernel.",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.call(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype="execute")
