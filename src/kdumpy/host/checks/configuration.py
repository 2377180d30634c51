"""Whether there is a configuration, and whether it can be read."""

from __future__ import annotations

from kdumpy.errors import UsageError
from kdumpy.host import settings
from kdumpy.host.checks.base import Answer, Facts, bad, ok, warn

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Read it; a wrong one stops every later `load`."""
    try:
        wanted = facts.settings
    except UsageError as error:
        why = f": {error.why}" if error.why else ""
        # What is loaded was made of an older one, and captures.
        return (warn if facts.state.loaded else bad)(f"{settings.PATH}: {error.what}{why}",
                                                     error.mend or "mend it; `kdumpy load` needs it")
    targets = ", ".join(wanted.capture.targets)
    if not facts.system.exists(settings.PATH):
        return warn(f"there is no {settings.PATH}: the defaults hold, dumps go to {targets}", "run `kdumpy setup`",
                    targets=wanted.capture.targets)
    return ok(f"{settings.PATH}: dumps go to {targets}", targets=wanted.capture.targets)
