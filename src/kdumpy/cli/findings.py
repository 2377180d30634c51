"""The list of findings at the end of a report in text."""

from __future__ import annotations

from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.model import Diagnosis
from kdumpy.report.layout import Page, Style

_STYLES = {Severity.CRITICAL: Style.BAD, Severity.WARNING: Style.DOUBTFUL}
_SHOWN = 12
"""How many are listed; the JSON has all."""


def render(diagnosis: Diagnosis, *, width: int = 100, colour: bool = False) -> str:
    """Return the findings of a diagnosis as text, but for those that are only good to know; empty without any."""
    bad = [item for item in diagnosis.findings if item.severity != Severity.INFO]
    if not bad and not diagnosis.unchecked:
        return ""
    page = Page(width, colour)
    page.heading("Also found on this machine")
    for item in bad[:_SHOWN]:
        page.paragraph(item.title + (f": {item.detail}" if item.detail else ""), _STYLES[item.severity], indent=2,
                       hanging=10, mark=item.severity.value)
    if len(bad) > _SHOWN:
        page.line(f"… and {len(bad) - _SHOWN} more", Style.QUIET, indent=2)
    if diagnosis.unchecked:
        page.paragraph("not judged: " + "; ".join(f"{item.check} ({item.why})" for item in diagnosis.unchecked),
                       Style.QUIET, indent=2, hanging=2)
    return str(page)
