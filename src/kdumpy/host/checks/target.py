"""Whether at least one target is there and can be written to."""

from __future__ import annotations

from kdumpy.host.checks.base import Answer, Facts, bad, ok, unknown, warn

ESSENTIAL = True


def look(facts: Facts) -> Answer:
    """Look at all of them; the first good one takes the dump."""
    found = facts.targets
    values = {"targets": [{"url": one.url, "good": one.good, "reason": one.reason, "free_bytes": one.free,
                           "size_bytes": one.size} for one in found]}
    wrong = [one for one in found if one.good is False]
    told = "; ".join(f"{one.url}: {one.reason}" for one in wrong)
    if len(wrong) == len(found):
        return bad(told, wrong[0].mend, **values)
    first = next(one for one in found if one.good is not False)
    if wrong:
        return warn(f"{told}; dumps go to {first.url}", wrong[0].mend, **values)
    hidden = next((one for one in found if one.good is None), None)
    if hidden is not None:
        return unknown(f"{hidden.url}: {hidden.reason}", hidden.mend, **values)
    return ok("; ".join(f"{one.url}: {one.reason}" for one in found), **values)
