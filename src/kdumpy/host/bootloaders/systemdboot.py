"""systemd-boot: entries that kernel-install wrote (Debian, Fedora), or the administrator (Arch), or images."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from kdumpy.host.bootloaders import entries, esp, uki
from kdumpy.host.bootloaders.files import one_line
from kdumpy.host.changes import Change
from kdumpy.host.system import System

NEW_KERNELS = "/etc/kernel/cmdline"


class SystemdBoot:
    """systemd-boot with entries, images, or both."""

    name = "systemd-boot"

    def next_cmdline(self, system: System) -> str | None:
        """Return the command line of the entry that the firmware's variables or loader.conf name, else the first."""
        found = {f"{entry.id}.conf": entry.options for entry in _entries(system)}
        images = {path.rpartition("/")[2]: path for path in uki.found(system)}
        names = [*found, *images]
        wanted = (name for pattern in _defaults(system) for name in names
                  if fnmatchcase(name.lower(), pattern.lower()) or name.rpartition(".")[0].lower() == pattern.lower())
        name = next(wanted, next(iter(names), None))
        if name is None:
            return None
        return found[name] if name in found else uki.next_cmdline(system, images[name])

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the changes to all entries, to what new ones are made of, and to images."""
        if uki.found(system):
            made = uki.plan(system, parameters)
        else:
            made = one_line(system, NEW_KERNELS, dict(parameters), "parameters of kernels that are installed later")
        return (*entries.plan(system, _entries(system), parameters), *made)


def _entries(system: System) -> list[entries.Entry]:
    return [entry for folder in esp.entry_folders(system) for entry in entries.read(system, folder)]


def _defaults(system: System) -> list[str]:
    """Return the patterns that name the next entry, the strongest first."""
    patterns = [esp.variable(system, "LoaderEntryOneShot"), esp.variable(system, "LoaderEntryDefault")]
    for place in esp.PLACES:
        for line in (system.read(f"{place}/loader/loader.conf") or "").splitlines():
            name, *rest = line.split(None, 1) or [""]
            if name == "default" and rest and not rest[0].startswith("@"):
                patterns.append(rest[0].strip())
    return [pattern for pattern in patterns if pattern]


def detect(system: System) -> SystemdBoot | None:
    """Return systemd-boot when it started the system, or is installed and has something to start."""
    if not _entries(system) and not uki.found(system):
        return None
    started = esp.variable(system, "LoaderInfo")
    if started:
        return SystemdBoot() if started.startswith("systemd-boot") else None
    installed = any(system.glob(f"{place}/EFI/systemd/systemd-boot*.efi") for place in esp.PLACES)
    return SystemdBoot() if installed else None
