"""Secure boot and lockdown: they take a signed kernel only."""

from __future__ import annotations

from kdumpy.host import history
from kdumpy.host.checks.base import Answer, Facts, ok, warn

ESSENTIAL = False


def look(facts: Facts) -> Answer:
    """Say what is on, and whether it was in the way."""
    secure, lockdown = facts.machine.secure_boot, facts.machine.lockdown
    told = (f"secure boot {'on' if secure else 'not told by the firmware' if secure is None else 'off'}, "
            f"lockdown {lockdown or 'none'}")
    values = {"secure_boot": secure, "lockdown": lockdown}
    if not (secure or lockdown):
        return ok(told, **values)
    if facts.state.loaded:
        return ok(f"{told}: the kernel took the capture kernel's signature", **values)
    if not facts.privileged:
        return warn(f"{told}: only a signed capture kernel can be loaded", "run it as root to see more", **values)
    last = history.last_of_boot(facts.system, history.boot_id(facts.system))
    if last is not None and last.event == "failed":
        return warn(f"{told}: {last.why}", last.mend, **values)
    return warn(f"{told}: only a signed capture kernel can be loaded", "use the distribution's signed kernel", **values)
