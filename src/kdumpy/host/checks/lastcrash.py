"""Whether the last crash left a dump, and why not."""

from __future__ import annotations

from kdumpy.host import lastcrash
from kdumpy.host.checks.base import Answer, Facts, ok, unknown, warn
from kdumpy.units import human_time

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Find it, and what is known of it."""
    found = lastcrash.look(facts.system, facts.settings.capture, facts.cause_of)
    when = human_time(int(found.at)) if found.at is not None else ""
    values = {"kind": found.kind, "at": found.at, "path": found.path, "cause": found.cause, "why": found.why,
              "evidence": found.evidence}
    if found.kind == "none":
        return ok("no crash is known", **values)
    cause = f": {found.cause}" if found.cause else ""
    if found.kind == "dumped":
        return ok(f"{when}{cause}; {found.path}", **values)
    if found.kind == "removed":
        return ok(f"{when}{cause}; {found.why}", **values)
    seen = "; ".join(found.evidence)
    told = f"{when}{cause}" if when or cause else "the last boot ended in a crash, or was cut off"
    reason = f"{told.lstrip(': ')}; {found.why}{f' ({seen})' if seen else ''}"
    return (unknown if found.kind == "elsewhere" else warn)(reason, found.mend, **values)
