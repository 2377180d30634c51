"""A function wrote over its own stack."""

from __future__ import annotations

import re

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import Kind
from kdumpy.kernel.values import Frame

_NAMED = re.compile(r"corrupted in: ([\w.]+)\+0x([0-9a-f]+)(?:/0x[0-9a-f]+)?(?: \[([\w-]+))?")


class StackCorruption(Cause):
    """A local buffer was overrun: the word that guards the return address had changed."""

    kind = "stack-corruption"
    outranks = ("driver-panic",)

    def match(self, crash: Crash) -> Finding | None:
        """Match the compiler's stack protector, or the scheduler's check of the stack's end."""
        if not (crash.told(Kind.STACK_SMASHED) or crash.in_stack("__stack_chk_fail")):
            return None
        line = next((line for line in (crash.event.lines if crash.event else ()) if "corrupted" in line), "")
        named = _NAMED.search(line)
        frame = crash.own_frame
        if named and (frame is None or frame.function != named[1].split(".")[0]):
            symbol, offset, module = named[1], int(named[2], 16), named[3]
            frame = next((item for item in crash.stack if item.symbol and item.function == symbol.split(".")[0]),
                         Frame(0, symbol, offset, module))
        words = Words(crash, frame)
        protector = "stack-protector" in line or crash.in_stack("__stack_chk_fail")
        return Finding(
            title=words.titled("Stack overrun by its own function" if protector
                               else "Overwritten end of a kernel stack"),
            confidence=CERTAIN,
            explanation=words.paragraph(
                f"{words.name} wrote beyond one of its local variables, over the word that guards its return address. "
                "The kernel noticed when the function returned." if protector else
                "The last words of a kernel stack were overwritten, by an overflow or a wrong pointer; the scheduler "
                "noticed.",
                "Data from outside that is longer than the buffer for it is the usual reason, and it can be an attack."
                if protector else "", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            culprit=frame, decisions=crash.own.decisions, subtype="protector" if protector else "end")
