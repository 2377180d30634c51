"""A warning, on a kernel that is set to panic on warnings."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, LIKELY, Cause, Finding, Words
from kdumpy.diagnosis.checkwords import named_by_warning
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.culprit import Choice
from kdumpy.diagnosis.oops import Kind


class Warn(Cause):
    """A WARN(), made fatal by panic_on_warn."""

    kind = "warn"

    def match(self, crash: Crash) -> Finding | None:
        """Match a warning that the closing panic names."""
        event = crash.event
        if event is None or event.fatal or not crash.told(Kind.WARN):
            return None
        own = crash.own
        nobody = own.frame is None or own.frame.module is None or own.frame.data
        named = named_by_warning(crash) if nobody else None
        if named is not None:
            own = Choice(named, (*own.decisions, f"chosen: {named.function or named.module}, which the warning names: "
                                                 "no function of a module is on the stack"))
        words = Words(crash, own.frame)
        said = event.before if event.before and "cut here" not in event.before else ""
        if Kind.SLAB in event.kinds:        # the allocator frames its own words with lines
            said = event.text
        return Finding(
            title=words.titled("Warning made fatal by panic_on_warn"),
            # Where no code of a module is on the stack, whose fault it is may be told by what leads there only.
            confidence=CERTAIN if own.frame and (named or own.frame in crash.stack) else LIKELY,
            explanation=words.paragraph(
                (f"{words.name} warned" if own.frame in crash.stack else f"The kernel warned of {words.name}")
                + (f' ("{said}")' if said else "") + (f", at {event.bug_at}." if event.bug_at else "."),
                "The kernel would have gone on, but it is set to panic on warnings (kernel.panic_on_warn).",
                words.where),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            next=["If the machine must stay up rather than stop on warnings: sysctl kernel.panic_on_warn=0."],
            culprit=own.frame, decisions=own.decisions)
