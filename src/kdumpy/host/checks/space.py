"""Whether a dump that was taken now would find room."""

from __future__ import annotations

from kdumpy.host import estimate
from kdumpy.host.checks.base import Answer, Facts, bad, ok, unknown, warn
from kdumpy.units import human_bytes

ESSENTIAL = False

AMPLE = 2
"""Times the estimate: memory is used otherwise when it crashes, most of all in a leak."""


def look(facts: Facts) -> Answer:
    """Compare the estimate with the first good target's free space."""
    config = facts.settings.capture
    needed = estimate.dump_now(facts.system, config, facts.machine.memory_bytes,
                               estimate.set_aside(facts.system, facts.state.reserved))
    if needed is None:
        return unknown("there is no /proc/meminfo to estimate by")
    good = [one for one in facts.targets if one.good is not False]
    if not good:
        return unknown("there is no target to look at")
    first = good[0]
    told = f"about {human_bytes(needed.bytes)} ({human_bytes(needed.kept)} of memory, level {config.level}, " \
           f"{config.compress})"
    mend = "`kdumpy prune` removes old dumps; make room, name a second target, or save less (level 31, zstd)"
    values = {"estimated_bytes": needed.bytes, "kept_bytes": needed.kept, "free_bytes": first.free}
    if first.free is None:
        if first.size is not None and first.size < needed.bytes:
            return bad(f"{told}, and {first.url} is {human_bytes(first.size)} large", mend, **values)
        return ok(f"{told}; how much is free on {first.url} is not known from here", **values)
    free = f"{human_bytes(first.free)} free on {first.url}"
    spare = first.free - first.kept_back
    if first.free < needed.bytes:
        if any(one.free is None or one.free >= needed.bytes for one in good[1:]):
            return warn(f"{told}, and {free}: the dump goes to the next target", mend, **values)
        return bad(f"{told}, and only {free}", mend, **values)
    if spare < needed.bytes:
        return warn(f"{told}, {free}, and all but {human_bytes(spare)} of it is kept for root: the dump takes of that",
                    mend, **values)
    if first.free < AMPLE * needed.bytes:
        return warn(f"{told}, {free}: enough only if memory is used then as it is now", mend, **values)
    return ok(f"{told}, {free}", **values)
