"""Read-only memory was written to."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.memory import Meaning
from kdumpy.diagnosis.oops import Kind

_WRITE_REFUSED = 0x3
"""x86: the page is there (bit 0), and it was a write (bit 1)."""


class WriteToReadonly(Cause):
    """Code wrote to memory that the kernel has made read-only."""

    kind = "write-to-readonly"
    outranks = ("bad-address",)

    def match(self, crash: Crash) -> Finding | None:
        """Match a refused write to an address of the kernel."""
        code = crash.event.error_code if crash.event else None
        refused = code is not None and code & 0x17 == _WRITE_REFUSED and crash.pointer_meaning is not None \
            and crash.pointer_meaning.meaning == Meaning.KERNEL
        silent = crash.event is not None and bool(crash.event.inferred) and crash.access == "write" \
            and crash.is_there(crash.address)
        if not (crash.told(Kind.READONLY) or ((refused or silent) and crash.told(Kind.PAGE_FAULT))):
            return None
        words = Words(crash, crash.own_frame)
        place = crash.describe(crash.address) if crash.address else ""
        return Finding(
            title=words.titled("Write to read-only memory"),
            confidence=CERTAIN if place or crash.told(Kind.READONLY) else LIKELY,
            explanation=words.paragraph(
                f"{words.name} wrote to {crash.address or 0:#x}" + (f", in {place}" if place else "")
                + ", which is read-only.",
                "Constants and code are protected like that: something that was meant not to change was patched, or "
                "a pointer was wrong.", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype="write")
