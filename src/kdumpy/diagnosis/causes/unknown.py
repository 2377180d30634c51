"""What no cause explains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from kdumpy.diagnosis.causes.base import LIKELY, POSSIBLE, Cause, Finding, Words
from kdumpy.diagnosis.crash import Crash

_TOKENS = ((re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,16}\b"), "ADDRESS"), (re.compile(r"\d+"), "N"))

_NONE = "None of the causes that kdumpy knows fits;"


class Unknown(Cause):
    """The kernel crashed, and no cause fits; its own words are given."""

    kind = "unknown"

    def match(self, crash: Crash) -> Finding | None:
        """Match every crash; every other cause wins over this one."""
        if not crash.happened:
            return None
        words = Words(crash, crash.own_frame)
        said = crash.closing_words or crash.message or ""
        return Finding(
            title=f"Kernel panic: {said}" if said else words.titled("Crash of unknown cause"),
            confidence=LIKELY if said and crash.own_frame else POSSIBLE,
            explanation=words.paragraph(
                f'The kernel stopped with the words "{said}".' if said else "The kernel stopped without a word.",
                f"The panic was called on behalf of {words.name}." if crash.own_frame else "", words.where,
                f"{_NONE} the stack and the log are what there is."),
            evidence=[*crash.evidence.log(), *crash.evidence.stack()],
            culprit=crash.own_frame, decisions=crash.own.decisions, tokens=message_tokens(said))


def undecided(finding: Finding, unjudged: Sequence[str]) -> Finding:
    """Return what is left of the finding where causes could not be judged: it may be each, and blames nobody."""
    kinds = ", ".join(unjudged[:-1]) + (" or " if unjudged[1:] else "") + unjudged[-1]
    told = finding.explanation.replace(_NONE, f"It could not be judged, whether it is {kinds}, and none of the other "
                                              "causes fits;")
    return replace(finding, explanation=told, confidence=POSSIBLE, culprit=None, decisions=())


def message_tokens(text: str) -> str:
    """Return a message without what differs from crash to crash: `no answer after N ticks`."""
    for pattern, token in _TOKENS:
        text = pattern.sub(token, text)
    return " ".join(text.split())[:100]
