"""Whether another service loads a capture kernel: whoever is last at boot wins."""

from __future__ import annotations

from kdumpy.host import peers
from kdumpy.host.checks.base import Answer, Facts, ok, warn

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Look for the distributions' own."""
    found = peers.find(facts.system)
    active = [peer.name for peer in found if peer.active is not False]
    if active:
        return warn(f"{' and '.join(active)} is active, too: whichever loads last at boot is the one that captures",
                    "run `kdumpy setup --replace`, which takes over its settings and switches it off", active=active)
    if found:
        return ok(f"{' and '.join(peer.name for peer in found)} is installed, and off")
    return ok("no other kdump service is installed")
