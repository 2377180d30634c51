"""The causes judge; the most specific one that fits wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kdumpy.debuginfo.reading import says_damage
from kdumpy.diagnosis.causes import Cause, Finding, Unjudged, causes
from kdumpy.diagnosis.causes.unknown import undecided
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Confidence, NotJudged
from kdumpy.diagnosis.steps import OutOfTime, Steps
from kdumpy.dumpfile.health import doubt

_ORDER = {Confidence.CERTAIN: 0, Confidence.LIKELY: 1, Confidence.POSSIBLE: 2}


_OF_MEMORY = frozenset({"null-dereference", "general-protection", "bad-address", "jump-to-null", "use-after-free",
                        "write-to-readonly", "nx-execute"})
"""Faults on what memory held: the kernel's own code meets them with what a module, which is on no stack, has left."""


@dataclass(frozen=True)
class Judgement:
    """What the causes said."""

    cause: str
    finding: Finding
    symptoms: tuple[str, ...]
    """Causes that fit too and that this one explains."""
    not_judged: tuple[NotJudged, ...]
    decisions: tuple[str, ...] = ()
    """How it was chosen."""


def judge(crash: Crash, steps: Steps | None = None) -> Judgement | None:
    """Return the judgement; None when the kernel did not crash. One failing cause does not stop the others."""
    steps = steps or Steps({})
    found: list[tuple[Cause, Finding]] = []
    unjudged: list[NotJudged] = []
    for cause in causes():
        try:
            with steps.step():
                answer = cause.match(crash)
        except OutOfTime as error:
            unjudged.append(NotJudged(cause.kind, str(error)))
            continue
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
    event = steps.get("what began it", lambda: crash.event, None)
    if event and event.inferred == "fault" and finding.confidence == Confidence.CERTAIN:
        finding = replace(finding, confidence=Confidence.LIKELY)        # the log does not confirm it
    if cause.kind in _OF_MEMORY and finding.confidence == Confidence.CERTAIN and finding.culprit \
            and finding.culprit.function and finding.culprit.module is None:
        finding = replace(finding, confidence=Confidence.LIKELY)        # where the kernel stumbled is not yet whose bug
    own = steps.get("whom to blame", lambda: crash.own, None)
    if own and own.doubtful and finding.culprit == own.frame and finding.confidence == Confidence.CERTAIN:
        finding = replace(finding, confidence=Confidence.LIKELY)
    if finding.culprit and finding.culprit.data and finding.confidence == Confidence.CERTAIN:
        finding = replace(finding, confidence=Confidence.LIKELY)        # whose data it is, is not yet whose bug
    if cause.kind == "unknown" and unjudged:
        finding = undecided(finding, [item.cause for item in unjudged])
    doubted = _doubt(crash, cause.kind, unjudged)
    if doubted and finding.confidence == Confidence.CERTAIN:
        finding = replace(finding, confidence=Confidence.LIKELY)
    decisions = tuple(_decisions(found, cause, finding.confidence, doubted))
    symptoms = tuple(other.kind for other, _ in found if other is not cause and other.kind != "unknown")
    return Judgement(cause.kind, finding, symptoms, tuple(unjudged), decisions)


def _doubt(crash: Crash, chosen: str, unjudged: list[NotJudged]) -> str:
    """Return why another cause, of which the chosen one would be a symptom, may be the right one."""
    above = _above(chosen)
    left = [item.cause for item in unjudged if item.cause in above]
    if left:
        return f"it could not be judged, whether it is {' or '.join(left)}, of which it would be a symptom"
    if crash.kernel is None:
        return ""
    lacking = {**crash.kernel.debuginfo.missing, **crash.kernel.problems}
    damage = doubt(crash.kernel.dump) or ("pages that were wanted cannot be read"
                                          if any(map(says_damage, lacking.values())) else "")
    return f"the dump is damaged: {damage}" if damage else ""


def _above(kind: str) -> set[str]:
    """Return the causes that outrank one, and those that outrank them."""
    found, looked_for = set[str](), {kind}
    while looked_for:
        looked_for = {cause.kind for cause in causes() if looked_for & set(cause.outranks)} - found
        found |= looked_for
    return found


def _decisions(found: list[tuple[Cause, Finding]], chosen: Cause, confidence: Confidence,
               doubted: str) -> Iterator[str]:
    """Say which causes fitted, which explain others, and what was made of it."""
    fitting = [(cause, finding) for cause, finding in found if cause.kind != "unknown"] or found
    yield "these fit: " + ", ".join(f"{cause.kind} ({finding.confidence})" for cause, finding in fitting)
    kinds = {cause.kind for cause, _ in fitting}
    for cause, _ in fitting:
        symptoms = [kind for kind in cause.outranks if kind in kinds]
        if symptoms:
            yield f"{cause.kind} explains {' and '.join(symptoms)}: more is needed for it to fit"
    own = next(finding.confidence for cause, finding in fitting if cause is chosen)
    if own != confidence:
        yield f"{confidence} and not {own}: {doubted or 'what would make sure of it is missing'}"
    yield f"chosen: {chosen.kind}, {confidence}"
