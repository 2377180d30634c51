"""How a verdict came about, step by step: which causes fit, which code is to blame, what groups it with others."""

from __future__ import annotations

from collections.abc import Iterator

from kdumpy.diagnosis.model import Diagnosis
from kdumpy.report.layout import Page, Style

_PARTS = ("version of the rules", "cause", "kind of it", "module", "key")


def explain(page: Page, diagnosis: Diagnosis) -> None:
    """Write the log of decisions."""
    verdict, signature = diagnosis.verdict, diagnosis.signature
    for heading, steps in (("How the cause was chosen", _cause(diagnosis)),
                           ("How the culprit and the key were chosen", iter(signature.decisions)),
                           ("What groups this crash with others", _signature(diagnosis))):
        found = list(steps)
        if found and verdict.cause != "none":
            page.heading(heading)
            for number, step in enumerate(found, 1):
                page.paragraph(step, indent=2, hanging=3, mark=f"{number}.")
    if verdict.cause == "none":
        page.heading("How the cause was chosen")
        page.paragraph("No CPU had panicked and the log tells of no fault: there was nothing to choose.", Style.PLAIN,
                       indent=2)


def _cause(diagnosis: Diagnosis) -> Iterator[str]:
    yield from diagnosis.verdict.decisions
    for item in diagnosis.verdict.not_judged:
        yield f"not judged, whether it is {item.cause}: {item.why}"


def _signature(diagnosis: Diagnosis) -> Iterator[str]:
    signature = diagnosis.signature
    if not signature.id:
        return
    said = [f"{name} {part}" for name, part in zip(_PARTS, signature.parts, strict=False) if part]
    yield f"{signature.id} is made of: " + ", ".join(said)
    for name, alternate in signature.alternates.items():
        frames = name.removeprefix("top")
        yield f"{alternate} is made of the same and the nearest {frames} functions: it tells finer"
    yield "no address, offset, process, host or boot is in it, so that the same bug has the same one everywhere"
