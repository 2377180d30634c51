"""What loads the capture kernel at each boot and tells of crashes: systemd's units, and udev's rule where needed."""

from __future__ import annotations

import re
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

PROTECTED = ("/home", "/root", "/run/user", "/usr", "/boot", "/efi", "/etc")
"""What the units' ProtectHome= and ProtectSystem= make read-only for them. Source: systemd.exec(5)."""

PRIVATE = ("/tmp", "/var/tmp")
"""What they have of their own (PrivateTmp=)."""

_FILES = Path(__file__).parent / "units"


def plan(system: System, program: str, *, online: bool = False, folders: tuple[str, ...] = ()) -> tuple[Change, ...]:
    """Return the changes after which the services are there and enabled.

    Args:
        system: the host.
        program: how units call kdumpy.
        online: a server is among the targets: the way to it is seen when the network is up.
        folders: targets that are directories of this host: they are waited for, and reports are written there.
    """
    units = [*_unit(system, SERVICE, program, "loaded at each boot", online=online, folders=folders),
             *_unit(system, REPORT_SERVICE, program, "what is done after a crash", online=online, folders=folders)]
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


def not_reached(system: System, folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return the targets that kdumpy-report.service may not write to, as its unit of now has it."""
    text = system.read(f"{UNITS}/{REPORT_SERVICE}")
    lines = set() if text is None else set(text.splitlines())
    return () if text is None else tuple(
        folder for folder in folders
        if _allowed(folder) not in lines and _below(_real(system, folder), (*PROTECTED, *PRIVATE)))


def _real(system: System, folder: str) -> str:
    return str(system.path(folder).resolve()) if system.live else folder


def _below(folder: str, places: tuple[str, ...]) -> bool:
    return any(folder == place or folder.startswith(f"{place}/") for place in places)


def _allowed(folder: str) -> str:
    """Return the line of a unit that lets it write to a folder, which need not be there yet."""
    quoted = folder.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    if _below(folder, PRIVATE):
        return f'BindPaths="-{quoted.replace(":", chr(92) * 2 + ":")}"'
    return f'ReadWritePaths="-{quoted}"'


def mounts(folders: tuple[str, ...]) -> str:
    """Return the line that orders a unit after all mounts that folders may lie on; empty: there are none.

    A unit that is ordered after one that is not there waits for nothing; local-fs.target does not wait for `nofail`.
    """
    names = [_mount(str(place)) for folder in folders for place in reversed((Path(folder), *Path(folder).parents))]
    found = " ".join(name for name in dict.fromkeys(names) if name != "-.mount")
    return f"After={found}" if found else ""


def _mount(path: str) -> str:
    """Return a mount unit's name. Source: systemd.unit(5), "String escaping for inclusion in unit names"."""
    def escaped(found: re.Match[str]) -> str:
        return "".join(f"\\x{byte:02x}" for byte in found[0].encode(errors="surrogateescape"))

    return f"{re.sub(r'[^A-Za-z0-9:_./]|^[.]', escaped, path.strip('/')).replace('/', '-') or '-'}.mount"


def _unit(system: System, name: str, program: str, why: str, *, online: bool,
          folders: tuple[str, ...]) -> tuple[FileChange, ...]:
    return write(system, f"{UNITS}/{name}", _text(system, name, program, online=online, folders=folders), why)


def _text(system: System, name: str, program: str, *, online: bool, folders: tuple[str, ...] = ()) -> str:
    text = (_FILES / name).read_text()
    network = "network-online.target\nWants=network-online.target" if online else "network.target"
    for mark, value in (("@KDUMPY@", program), ("@SYSTEMCTL@", system.which("systemctl") or "/usr/bin/systemctl"),
                        ("@NETWORK@", network), ("@SECONDS@", str(LOAD_S)), ("@MOUNTS@", mounts(folders)),
                        ("@WRITABLE@", "\n".join(map(_allowed, folders)))):
        text = text.replace(mark, value)
    return text
