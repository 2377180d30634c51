"""Whether a hardware watchdog would reset the machine while it captures.

A watchdog that runs goes on running in the capture kernel. Where its driver is in the image, the kernel's watchdog
core feeds it (CONFIG_WATCHDOG_HANDLE_BOOT_ENABLED); where not, the machine is reset after its timeout.

Source: Documentation/watchdog/watchdog-api.rst, Documentation/ABI/testing/sysfs-class-watchdog.
"""

from __future__ import annotations

from kdumpy.host.checks.base import Answer, Facts, ok, warn

ESSENTIAL = False

PATTERN = "/sys/class/watchdog/watchdog*"


def look(facts: Facts) -> Answer:
    """Look at each watchdog's state and its driver."""
    active = []
    for path in facts.system.glob(PATTERN):
        if facts.system.value(f"{path}/state") == "active":
            active.append((path, facts.system.value(f"{path}/identity") or path,
                           facts.system.value(f"{path}/timeout") or "?", driver_of(facts, path)))
    carried = {name.replace("-", "_") for name in facts.image.modules} if facts.image else set()
    # Where it is built in there is no module to carry.
    alone = [(name, seconds, driver) for _path, name, seconds, driver in active
             if driver and driver not in carried and driver != "softdog"]
    if alone:
        name, seconds, driver = alone[0]
        return warn(f"the watchdog {name} is active and resets the machine {seconds} s after a panic: its driver "
                    f"{driver} is not in the image, so nothing feeds it",
                    f'add "{driver}" to modules in [image] of /etc/kdumpy.toml, then `kdumpy load`', driver=driver)
    if not active:
        return ok("no hardware watchdog is active")
    return ok(f"{active[0][1]} is active, and fed in the capture kernel, too")


def driver_of(facts: Facts, path: str) -> str:
    """Return the module that drives a watchdog; empty where it is built in or nothing tells."""
    module = facts.system.path(f"{path}/device/driver/module")
    return module.resolve().name.replace("-", "_") if module.exists() else ""
