"""Whether kdumpy.service loads the capture kernel at each boot."""

from __future__ import annotations

from kdumpy.host import crashes, services
from kdumpy.host.checks.base import Answer, Facts, ok, unknown, warn
from kdumpy.host.peers import reading

ESSENTIAL = False

SERVICE = "kdumpy.service"
FOLDERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def look(facts: Facts) -> Answer:
    """Look at systemd's files, which say it without a program being run."""
    system = facts.system
    unit = next((f"{folder}/{SERVICE}" for folder in FOLDERS if system.exists(f"{folder}/{SERVICE}")), "")
    if not unit:
        if not system.exists("/run/systemd/system") and not system.exists("/etc/systemd/system"):
            return unknown("this system is not run by systemd", "see to it that `kdumpy load` is run at each boot")
        return warn(f"there is no {SERVICE}: after the next boot nothing loads the capture kernel",
                    "run `kdumpy setup`")
    if str(system.path(unit).resolve()) == "/dev/null":
        return warn(f"{SERVICE} is masked: after the next boot nothing loads the capture kernel",
                    f"systemctl unmask {SERVICE}; systemctl enable {SERVICE}")
    if not reading.enabled(system, SERVICE):
        return warn(f"{SERVICE} is not enabled: after the next boot nothing loads the capture kernel",
                    f"systemctl enable {SERVICE}")
    closed = services.not_reached(system, crashes.folders(facts.settings.capture))
    if closed:
        return warn(f"{services.REPORT_SERVICE} may not write to {', '.join(closed)}: no report appears beside dumps "
                    f"there, and old ones stay", "run `kdumpy setup`, which lets it")
    return ok(f"{SERVICE} is enabled")

