"""What the running kernel says of its capture kernel: reserved memory, whether one is loaded, what forbids it.

Source: Documentation/ABI/testing/sysfs-kernel-kexec-kdump; Documentation/admin-guide/sysctl/kernel.rst;
security/lockdown/lockdown.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdumpy.host.system import System

LOADED, SIZE = "kexec_crash_loaded", "kexec_crash_size"
PLACES = ("/sys/kernel", "/sys/kernel/kexec")
"""Where the files are: the second since 6.19, which keeps links at the first for now."""

LOCKDOWN = "/sys/kernel/security/lockdown"
RELEASE = "/proc/sys/kernel/osrelease"

_CAP_SYS_BOOT = 22


@dataclass(frozen=True, slots=True)
class CrashState:
    """The running kernel's state."""

    supported: bool
    """The kernel was built for it (CONFIG_KEXEC_CORE, CONFIG_CRASH_DUMP)."""
    loaded: bool
    reserved: int
    """Bytes of memory that are reserved for a capture kernel."""
    disabled: bool
    """kernel.kexec_load_disabled is set: nothing can be loaded or unloaded until a reboot."""
    loads_left: int | None
    """kernel.kexec_load_limit_panic; None: no limit."""
    lockdown: str
    """`integrity`, `confidentiality`, or empty."""


def look(system: System) -> CrashState:
    """Read the state; takes less than a millisecond."""
    loaded, size = _file(system, LOADED), _file(system, SIZE)
    limit = _number(system.value("/proc/sys/kernel/kexec_load_limit_panic"), -1)
    return CrashState(supported=loaded is not None, loaded=loaded == "1", reserved=_number(size, 0),
                      disabled=system.value("/proc/sys/kernel/kexec_load_disabled") == "1",
                      loads_left=None if limit < 0 else limit, lockdown=lockdown(system))


def lockdown(system: System) -> str:
    """Return how far the kernel is locked down: `integrity`, `confidentiality`, or empty."""
    found = re.search(r"\[(\w+)\]", system.value(LOCKDOWN) or "")
    return "" if found is None or found[1] == "none" else found[1]


def release(system: System) -> str:
    """Return the running kernel's release, as `uname -r`."""
    return system.value(RELEASE) or ""


def may_boot(system: System) -> bool:
    """Tell whether this process may load kernels at all (CAP_SYS_BOOT)."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", system.read("/proc/self/status") or "", re.MULTILINE)
    return found is None or bool(int(found[1], 16) >> _CAP_SYS_BOOT & 1)


def _file(system: System, name: str) -> str | None:
    values = (system.value(f"{place}/{name.removeprefix('kexec_') if place.endswith('kexec') else name}")
              for place in PLACES)
    return next((value for value in values if value is not None), None)


def _number(text: str | None, default: int) -> int:
    try:
        return int(text or "")
    except ValueError:
        return default
