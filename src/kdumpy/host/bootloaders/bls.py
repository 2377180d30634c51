"""GRUB 2 with boot loader entries: Fedora, RHEL and its kin.

What grubby does is done here with the files themselves: the entries, kernelopts in GRUB's environment block where
entries refer to it (RHEL 8), and what new kernels are set up from (/etc/kernel/cmdline, /etc/default/grub). So every
byte that is changed is in the plan, and undo gives it back, which `grubby --remove-args` does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdumpy.host.bootloaders import entries, grub, grubcfg, parameters
from kdumpy.host.bootloaders.files import changed, one_line, text_of
from kdumpy.host.changes import Change, FileChange
from kdumpy.host.system import System

ENTRIES = "/boot/loader/entries"
NEW_KERNELS = "/etc/kernel/cmdline"
ENVIRONMENTS = ("/boot/grub2/grubenv", "/boot/grub/grubenv")


class Bls:
    """GRUB with blscfg."""

    name = "grub-bls"

    def next_cmdline(self, system: System) -> str | None:
        """Return the options of the entry that GRUB's environment names, else of the first one."""
        path = grub.configuration(system)
        read = grubcfg.menu(system.read(path) or "") if path else grubcfg.Menu((), {}, "", True)
        environment = {**read.variables, **grubcfg.environment(system.read(_environment(system)))}
        found = entries.read(system, ENTRIES)
        if not found:
            return None
        wanted = environment.get("next_entry") or environment.get("saved_entry", "")
        entry = next((one for one in found if wanted and wanted in (one.id, one.title)), None)
        if entry is None:
            entry = found[int(wanted) if wanted.isdigit() and int(wanted) < len(found) else 0]
        return " ".join(grubcfg.expand(entry.options, environment).split())

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the changes to all entries, and to what those of new kernels are made of. Nothing needs to be run."""
        block = _environment(system)
        text = text_of(system, block)
        shared = grubcfg.environment(text).get("kernelopts")
        found = entries.read(system, ENTRIES)
        referring = [one for one in found if shared is not None and "$kernelopts" in one.options]
        own = [one for one in found if one not in referring]
        done: list[FileChange] = []
        if text is not None and shared is not None and referring:
            done += _kernelopts(system, block, text, shared, parameters)
            # what one of these entries sets beside kernelopts comes after it, and would win
            done += entries.plan(system, referring, dict.fromkeys(parameters))
        done += entries.plan(system, own, parameters)
        done += one_line(system, NEW_KERNELS, dict(parameters), "parameters of kernels that are installed later")
        return (*done, *_settings(system, parameters))


def _environment(system: System) -> str:
    return next((path for path in ENVIRONMENTS if system.exists(path)), ENVIRONMENTS[0])


def _kernelopts(system: System, block: str, text: str, shared: str,
                changes: Mapping[str, str | None]) -> tuple[FileChange, ...]:
    after = shared
    for name, value in changes.items():
        after = parameters.edit(after, name, value)
    if after == shared:
        return ()
    return changed(system, block, grubcfg.with_value(text, "kernelopts", after, block), "parameters of boot entries")


def _settings(system: System, changes: Mapping[str, str | None]) -> tuple[FileChange, ...]:
    """Return the change to /etc/default/grub, as grubby makes it: entries that are missing are made of it."""
    if not system.exists(grub.SETTINGS):
        return ()
    files = grub.Settings(system, snippets=False)
    for name, value in changes.items():
        files.set(name, value)
    return tuple(files.changes())


def detect(system: System) -> Bls | None:
    """Return GRUB with entries when its grub.cfg reads them and there are some."""
    path = grub.configuration(system)
    if path is None or not grubcfg.menu(system.read(path) or "").bls:
        return None
    return Bls() if system.glob(f"{ENTRIES}/*.conf") else None
