"""Whether the kernel panics when it was configured to, and goes to the capture kernel at once."""

from __future__ import annotations

from kdumpy.host import sysctls
from kdumpy.host.checks.base import Answer, Facts, ok, warn

ESSENTIAL = False

_NOTIFIERS = "/sys/module/kernel/parameters/crash_kexec_post_notifiers"


def look(facts: Facts) -> Answer:
    """Compare the sysctls with the configuration."""
    wanted = sysctls.wanted(facts.system, facts.settings.panic)
    now = {name: sysctls.current(facts.system, name) for name in wanted}
    wrong = {name: value for name, value in wanted.items() if now[name] != value}
    if wrong:
        told = ", ".join(f"{name} is {now[name]}, configured is {value}" for name, value in wrong.items())
        return warn(told, "run `kdumpy setup`; another file of /etc/sysctl.d may set it, too", sysctls=now)
    if facts.system.value(_NOTIFIERS) in ("Y", "1"):
        return warn("crash_kexec_post_notifiers is set: other code runs before the capture kernel, and may hang",
                    "take it off the kernel's command line, unless something (Hyper-V, a cluster) needs it",
                    sysctls=now)
    on = [name.removeprefix("kernel.") for name, value in wanted.items() if value == "1" and name != "kernel.panic"]
    return ok(f"beside panic() itself: {', '.join(on)}" if on else "only panic() itself", sysctls=now)
