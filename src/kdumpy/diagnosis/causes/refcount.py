"""A reference counter went wrong."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.checked import checked_object, lies
from kdumpy.diagnosis.oops import Kind

# lib/refcount.c refcount_warn_saturate(): the beginning of the message -> (subtype, what it means).
_KINDS = {
    "underflow": ("underflow", "gave back a reference that was not there: one put too many"),
    "addition on 0": ("addition-on-zero", "took a reference to an object whose counter was zero, that is, of which "
                                          "nobody had one any more"),
    "saturated": ("saturated", "took so many references that the counter overflowed: some are never given back"),
    "decrement hit 0": ("decrement-to-zero", "gave back the last reference where that must not happen: a leak"),
}


class Refcount(Cause):
    """The kernel's check of a reference counter failed."""

    kind = "refcount"
    outranks = ("warn", "use-after-free")

    def match(self, crash: Crash) -> Finding | None:
        """Match the counter's report."""
        if not crash.told(Kind.REFCOUNT) or crash.event is None:
            return None
        words = Words(crash, crash.own_frame)
        line = next((line for line in crash.event.lines if "refcount_t: " in line), "")
        subtype, meaning = next((value for key, value in _KINDS.items() if key in line),
                                ("", "used a reference counter wrongly"))
        place = checked_object(crash)
        return Finding(
            title=words.titled("Reference counter " + (subtype.replace("-", " ") or "misuse")),
            confidence=CERTAIN,
            explanation=words.paragraph(
                f"{words.name} {meaning}. The object may be freed while others still use it.",
                f"The counter {lies(place)}." if lies(place) else "",
                "The kernel only warns of this; it is set to panic on warnings (panic_on_warn)."
                if crash.closing and "panic_on_warn" in crash.closing_words else "", words.where, words.blame),
            evidence=[*crash.evidence.log(), *crash.evidence.checked(place), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, subtype=subtype)
