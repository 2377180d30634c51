"""openSUSE's boot loader entries (GRUB or systemd-boot): sdbootutil makes them of /etc/kernel/cmdline.

It also keeps the measurements that unlock encrypted disks, which an entry that is edited behind its back would break.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdumpy.host.bootloaders import entries, esp, grubcfg, shell
from kdumpy.host.bootloaders.files import changed, one_line, text_of
from kdumpy.host.bootloaders.parameters import edit
from kdumpy.host.bootloaders.systemdboot import SystemdBoot
from kdumpy.host.changes import Change, Command
from kdumpy.host.system import System

CMDLINE = "/etc/kernel/cmdline"
SETTINGS = "/etc/sysconfig/bootloader"


class Sdbootutil:
    """Entries that sdbootutil keeps, for either loader."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """`grub2-bls` or `systemd-boot`."""
        return self._name

    def next_cmdline(self, system: System) -> str | None:
        """Return the default entry's options: GRUB's environment names it, or what systemd-boot looks at."""
        if self._name == "systemd-boot":
            return SystemdBoot().next_cmdline(system)
        found = _entries(system)
        environment = {name: value for path in _environments(system)
                       for name, value in grubcfg.environment(system.read(path)).items()}
        wanted = esp.variable(system, "LoaderEntryDefault") or environment.get("default", "")
        chosen = [entry for entry in found if wanted.removesuffix(".conf") == entry.id] or found
        return chosen[0].options if chosen else None

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the change to /etc/kernel/cmdline, and the command that makes the entries of it."""
        files = one_line(system, CMDLINE, dict(parameters), "parameters of all boot entries")
        if not system.exists(CMDLINE):
            text = self.next_cmdline(system) or ""
            for name, value in parameters.items():
                text = edit(text, name, value)
            if text != (self.next_cmdline(system) or ""):
                files = changed(system, CMDLINE, text + "\n", "parameters of all boot entries")
        words = ("sdbootutil", "update-all-entries")
        return (*files, Command(words, "boot entries with the new parameters", words)) if files else ()


def _entries(system: System) -> list[entries.Entry]:
    return [entry for folder in esp.entry_folders(system) for entry in entries.read(system, folder)]


def _environments(system: System) -> list[str]:
    return [path for place in esp.PLACES for path in system.glob(f"{place}/EFI/*/grubenv")]


def detect(system: System) -> Sdbootutil | None:
    """Return it when sdbootutil is here and there are entries that it keeps."""
    if not system.which("sdbootutil") or not _entries(system):
        return None
    settings = shell.values(text_of(system, SETTINGS) or "", SETTINGS)
    installed = any(system.glob(f"{place}/EFI/systemd/systemd-boot*.efi") for place in esp.PLACES)
    return Sdbootutil(settings.get("LOADER_TYPE") or ("systemd-boot" if installed else "grub2-bls"))
