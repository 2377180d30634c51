"""Whether the dumps that are kept leave room for others."""

from __future__ import annotations

from kdumpy.host import crashes
from kdumpy.host.checks.base import Answer, Facts, ok, warn
from kdumpy.units import human_bytes

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Count the dumps, and look at the file system they lie on."""
    rules = facts.settings.retention
    places = crashes.folders(facts.settings.capture)
    if not places:
        return ok("dumps go elsewhere: what is kept there is not this host's to say")
    found = crashes.find(facts.system, places)
    size = sum(crash.bytes for crash in found)
    values = {"dumps": len(found), "dumps_bytes": size}
    told = f"{len(found)} crash{'es' if len(found) != 1 else ''}, {human_bytes(size)}" if found else "no crashes yet"
    if rules.keep and len(found) > rules.keep:
        return warn(f"{told}; {rules.keep} are to be kept", "run `kdumpy prune`; kdumpy-report.service does at boot",
                    **values)
    tight = [one for one in facts.targets if one.url in places and one.free is not None and one.size
             and (one.free - one.kept_back) * 100 < one.size * rules.min_free_percent]
    if tight and tight[0].free is not None and tight[0].size:
        part = max(0, 100 * (tight[0].free - tight[0].kept_back) / tight[0].size)
        return warn(f"{told}; {part:.0f} % of {tight[0].url} is free, {rules.min_free_percent} % is to be",
                    "run `kdumpy prune`, or make room", **values)
    return ok(told, **values)
