"""When the kernel panics, as sysctls: /etc/sysctl.d/60-kdumpy.conf out of the table [panic] of the settings."""

from __future__ import annotations

from kdumpy.host.changes import Change, Command, write
from kdumpy.host.settings import Panic
from kdumpy.host.system import System

PATH = "/etc/sysctl.d/60-kdumpy.conf"

KEYS = {"kernel.panic": "reboot_s", "kernel.panic_on_oops": "on_oops", "kernel.hung_task_panic": "on_hung_task",
        "kernel.softlockup_panic": "on_soft_lockup", "kernel.hardlockup_panic": "on_hard_lockup",
        "kernel.panic_on_rcu_stall": "on_rcu_stall", "kernel.unknown_nmi_panic": "on_unknown_nmi",
        "vm.panic_on_oom": "on_out_of_memory"}
"""Sysctl → key of [panic]. Source: Documentation/admin-guide/sysctl/kernel.rst, vm.rst."""


def wanted(system: System, panic: Panic) -> dict[str, str]:
    """Return the sysctls of this kernel and what they shall be; those that it was built without are left out."""
    return {name: str(int(getattr(panic, key))) for name, key in KEYS.items() if current(system, name) is not None}


def current(system: System, name: str) -> str | None:
    """Return a sysctl's value now; None where the kernel does not have it."""
    return system.value(f"/proc/sys/{name.replace('.', '/')}")


def render(values: dict[str, str]) -> str:
    """Return the file."""
    return "# Written by kdumpy setup out of [panic] in /etc/kdumpy.toml; taken away by kdumpy setup --undo.\n" + \
        "".join(f"{name} = {value}\n" for name, value in values.items())


def plan(system: System, panic: Panic) -> tuple[Change, ...]:
    """Return the changes after which the sysctls are as configured, now and after each boot."""
    values = wanted(system, panic)
    if not values:
        return ()
    changes: tuple[Change, ...] = write(system, PATH, render(values), "when the kernel panics")
    before = {name: current(system, name) for name in values}
    if before != values and system.which("sysctl"):
        pairs = [f"{name}={value}" for name, value in before.items() if value != values[name]]
        changes = (*changes, Command(("sysctl", "-q", "-p", PATH), "they hold at once",
                                     undo=("sysctl", "-q", "-w", *pairs), may_fail=True))
    return changes
