"""The causes judge; the most specific one that fits wins."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdumpy.diagnosis.causes import Cause, Finding, Unjudged, causes
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Confidence, NotJudged

_ORDER = {Confidence.CERTAIN: 0, Confidence.LIKELY: 1, Confidence.POSSIBLE: 2}


@dataclass(frozen=True)
class Judgement:
    """What the causes said."""

    cause: str
    finding: Finding
    symptoms: tuple[str, ...]
    """Causes that fit too and that this one explains."""
    not_judged: tuple[NotJudged, ...]


def judge(crash: Crash) -> Judgement | None:
    """Return the judgement; None when the kernel did not crash. One failing cause does not stop the others."""
    found: list[tuple[Cause, Finding]] = []
    unjudged: list[NotJudged] = []
    for cause in causes():
        try:
            answer = cause.match(crash)
        except Exception as error:          # a dump may be damaged anywhere; the other causes still answer
            unjudged.append(NotJudged(cause.kind, f"{type(error).__name__}: {error}"))
            continue
        if isinstance(answer, Unjudged):
            unjudged.append(NotJudged(cause.kind, answer.why))
        elif answer is not None:
            found.append((cause, answer))
    if not found:
        return None
    explained = {kind for cause, _ in found for kind in cause.outranks} | {"unknown"}
    left = [pair for pair in found if pair[0].kind not in explained] or found
    cause, finding = min(left, key=lambda pair: _ORDER[pair[1].confidence])
    if crash.event and crash.event.inferred == "fault" and finding.confidence == Confidence.CERTAIN:
        finding = replace(finding, confidence=Confidence.LIKELY)        # the log does not confirm it
    if finding.culprit and finding.culprit.data and finding.confidence == Confidence.CERTAIN:
        finding = replace(finding, confidence=Confidence.LIKELY)        # whose data it is, is not yet whose bug
    symptoms = tuple(other.kind for other, _ in found if other is not cause and other.kind != "unknown")
    return Judgement(cause.kind, finding, symptoms, tuple(unjudged))
