"""What loads the capture kernel at each boot and tells of crashes: systemd's units, and udev's rule where needed."""

from __future__ import annotations

from pathlib import Path

from kdumpy.host import kernelconfig
from kdumpy.host.changes import Change, Command, FileChange, remove, write
from kdumpy.host.system import System

SERVICE, REPORT_SERVICE = "kdumpy.service", "kdumpy-report.service"
UNITS = "/etc/systemd/system"
RULE = "/etc/udev/rules.d/60-kdumpy.rules"

LOAD_S = 2400
"""Seconds that building an image and loading it may take, the unit's TimeoutStartSec: longer than a generator is waited
for (`images.generated.SECONDS`), so that where it hangs the older image is loaded."""

_FILES = Path(__file__).parent / "units"


def plan(system: System, program: str, *, online: bool = False) -> tuple[Change, ...]:
    """Return the changes after which the services are there and enabled.

    Args:
        system: the host.
        program: how units call kdumpy.
        online: a server is among the targets: the way to it is seen when the network is up.
    """
    units = [*_unit(system, SERVICE, program, "loaded at each boot", online=online),
             *_unit(system, REPORT_SERVICE, program, "what is done after a crash", online=online)]
    rule: tuple[FileChange, ...]
    if needs_rule(system):
        text = _text(system, Path(RULE).name, program, online=online)
        rule = write(system, RULE, text, "CPUs and memory that come and go")
    else:
        rule = remove(system, RULE, "all kernels here follow CPUs and memory by themselves")
    changes: list[Change] = [*units, *rule]
    if units:
        changes.append(Command(("systemctl", "daemon-reload"), "systemd reads the units",
                               undo=("systemctl", "daemon-reload")))
    if rule and system.which("udevadm"):
        changes.append(Command(("udevadm", "control", "--reload"), "udev reads the rule",
                               undo=("udevadm", "control", "--reload")))
    for unit in (SERVICE, REPORT_SERVICE):
        if not system.path(f"{UNITS}/multi-user.target.wants/{unit}").is_symlink():
            changes.append(Command(("systemctl", "enable", unit), "at each boot",
                                   undo=("systemctl", "disable", "--now", unit), undo_first=True))
    return tuple(changes)


def needs_rule(system: System) -> bool:
    """Tell whether a kernel of this host leaves it to udev to load anew when CPUs or memory come or go.

    Linux 6.6 ("crash: hotplug support for kexec_load()", "x86/crash: add x86 crash hotplug support") follows them by
    itself where it was built with CONFIG_CRASH_HOTPLUG; a kernel in which nothing can come or go needs nothing.
    """
    releases = {Path(path).parent.name for pattern in ("/lib/modules/*/modules.dep", "/usr/lib/modules/*/modules.dep")
                for path in system.glob(pattern)}
    running = system.value("/proc/sys/kernel/osrelease")
    if running:
        releases.add(running)
    configurations = [kernelconfig.config_of(system, release) for release in releases]
    return not configurations or any(
        config is None or (config.get("CONFIG_CRASH_HOTPLUG") != "y"
                           and "y" in (config.get("CONFIG_HOTPLUG_CPU"), config.get("CONFIG_MEMORY_HOTPLUG")))
        for config in configurations)


def _unit(system: System, name: str, program: str, why: str, *, online: bool) -> tuple[FileChange, ...]:
    return write(system, f"{UNITS}/{name}", _text(system, name, program, online=online), why)


def _text(system: System, name: str, program: str, *, online: bool) -> str:
    text = (_FILES / name).read_text()
    network = "network-online.target\nWants=network-online.target" if online else "network.target"
    for mark, value in (("@KDUMPY@", program), ("@SYSTEMCTL@", system.which("systemctl") or "/usr/bin/systemctl"),
                        ("@NETWORK@", network), ("@SECONDS@", str(LOAD_S))):
        text = text.replace(mark, value)
    return text
