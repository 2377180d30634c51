"""A value that is no address was used as one."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.memory import Meaning
from kdumpy.diagnosis.oops import Kind


class GeneralProtection(Cause):
    """The processor refused an instruction: nearly always, a pointer was no address at all."""

    kind = "general-protection"

    def match(self, crash: Crash) -> Finding | None:
        """Match the kernel's report of the exception."""
        if not crash.told(Kind.PROTECTION):
            return None
        words = Words(crash, crash.own_frame)
        meant = crash.pointer_meaning
        bad = meant is not None and meant.meaning in (Meaning.NON_CANONICAL, Meaning.TEXT)
        value = f"The value was {meant.words}." if meant and bad else ""
        return Finding(
            title=words.titled("General protection fault"),
            confidence=CERTAIN if bad else LIKELY,
            explanation=words.paragraph(
                f"{words.name} used a pointer that is no address, and the processor refused it." if bad else
                f"{words.name} ran an instruction that the processor refused.", value,
                "The pointer was overwritten, or its object was freed and used again by something else." if bad else "",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(), *crash.evidence.stack()],
            next=["Boot with slub_debug=FZPU (or a kernel with KASAN): the next crash then says who overwrote "
                  "the object."] if bad else [],
            culprit=crash.own_frame, decisions=crash.own.decisions,
            subtype="text" if meant and meant.meaning == Meaning.TEXT else "")
