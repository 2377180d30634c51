"""A driver called panic()."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.crash import SAVERS, Crash


class DriverPanic(Cause):
    """The code of a module decided that the kernel must stop, and called panic()."""

    kind = "driver-panic"

    def match(self, crash: Crash) -> Finding | None:
        """Match a panic whose caller is a module's function, without an exception before it."""
        if crash.event is not None and (crash.event.fatal or crash.event is not crash.closing):
            return None
        caller = next((frame for frame in crash.below_panic if frame.symbol and not frame.inline), None)
        called = any(frame.function in SAVERS for frame in crash.stack[:8])
        if caller is None or caller.module is None or not called:
            return None
        words = Words(crash, caller)
        said = crash.closing_words
        return Finding(
            title=f"A driver stopped the kernel: {words.short} called panic()",
            confidence=CERTAIN if crash.from_dump else LIKELY,
            explanation=words.paragraph(
                f"{words.name} called panic()" + (f' and said: "{said}".' if said else "."),
                "No fault of the processor came before: the driver itself decided that the machine must not go on.",
                words.where),
            evidence=[*crash.evidence.log(), *crash.evidence.stack("who called panic()")],
            next=[f"Ask the maintainer of the module {caller.module} what this message means; often the device does "
                  "not answer or reports an error."],
            culprit=caller, decisions=[f"chosen: {caller.function}, the caller of panic()"])
