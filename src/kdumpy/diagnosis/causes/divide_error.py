"""A division by zero."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind


class DivideError(Cause):
    """A number was divided by zero, or the result had no room."""

    kind = "divide-error"

    def match(self, crash: Crash) -> Finding | None:
        """Match the exception."""
        if not crash.told(Kind.DIVIDE):
            return None
        words = Words(crash, crash.own_frame)
        divisor = crash.divisor
        zero = divisor is None or divisor[1] == 0
        held = f"which the register {divisor[0].lstrip('%')} held" if divisor and divisor[0].startswith("%") else \
            f"which {divisor[0]} held" if divisor else ""
        if divisor is None:
            what = "divided by zero (or by a number so small that the result had no room)"
        else:
            what = f"divided by zero, {held}" if zero else \
                f"divided by {divisor[1]:#x}, {held}: the result had no room"
        return Finding(
            title=words.titled("Division by zero" if zero else "Division whose result has no room"),
            confidence=CERTAIN,
            explanation=words.paragraph(
                f"{words.name} {what}.",
                words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.instruction(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions)
