"""An instruction that the processor does not have."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Kind


class InvalidOpcode(Cause):
    """The processor met an instruction that it does not have."""

    kind = "invalid-opcode"

    def match(self, crash: Crash) -> Finding | None:
        """Match the exception, where no assertion explains it."""
        if not crash.told(Kind.OPCODE):
            return None
        words = Words(crash, crash.own_frame)
        code = []
        if crash.fault and crash.fault.pc:
            try:
                raw = crash.read(crash.fault.pc, 8).hex(" ")
                code = [Evidence("the bytes there", raw, crash.evidence.command(f"rd -8 {crash.fault.pc:x} 8"))]
            except LookupError:
                pass
        return Finding(
            title=words.titled("Invalid instruction"),
            confidence=CERTAIN if code else LIKELY,
            explanation=words.paragraph(
                f"The processor met an instruction in {words.name} that it does not have.",
                "Either the code was built for another processor, or the code in memory was overwritten (a bug or a "
                "hardware error): compare the bytes with those of the file.", words.where),
            evidence=[*crash.evidence.log(), *code, *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions)
