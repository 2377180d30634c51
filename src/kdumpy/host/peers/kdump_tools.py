"""kdump-tools: Debian's and Ubuntu's. Its configuration is /etc/default/kdump-tools, a shell script.

Source: kdump-tools.conf, kdump-tools(5), kdump-config of 1.8.1 (Debian 12), 1.10.3 (Debian 13, Ubuntu 24.04).
"""

from __future__ import annotations

from collections.abc import Mapping

from kdumpy.host.bootloaders import shell
from kdumpy.host.bootloaders.files import changed, text_of
from kdumpy.host.changes import Change
from kdumpy.host.peers import reading
from kdumpy.host.peers.base import Imported
from kdumpy.host.system import System

CONFIGURATION = "/etc/default/kdump-tools"
UNIT = "kdump-tools.service"
PROGRAM = "kdump-config"

COREDIR = "/var/crash"
SSH_KEY = "/root/.ssh/kdump_id_rsa"

OURS = ("reset_devices", "nr_cpus=1", "maxcpus=1", "irqpoll", "usbcore.nousb", "nousb",
        "systemd.unit=kdump-tools-dump.service", "systemd.unit=kdump-tools.service")
"""What it gives its capture kernel by default, which ours has, too, or has no use for."""


class KdumpTools:
    """kdump-tools, where it is installed."""

    name = "kdump-tools"

    def __init__(self, system: System) -> None:
        self._system = system

    @property
    def active(self) -> bool | None:
        """Whether its unit is enabled and USE_KDUMP lets it work."""
        return reading.enabled(self._system, UNIT) and reading.switch(self._values().get("USE_KDUMP", "0"), False)

    def imported(self) -> Imported:
        """Read /etc/default/kdump-tools."""
        values, notes = self._values(), list[str]()
        capture = self._targets(values, notes)
        if "MAKEDUMP_ARGS" in values:
            more, said = reading.collector(values["MAKEDUMP_ARGS"], "MAKEDUMP_ARGS")
            capture |= more
            notes += said
        found: dict[str, object] = {"capture": capture} if capture else {}
        keep = reading.number(values.get("KDUMP_NUM_DUMPS", ""))
        if keep is not None:
            found["retention"] = {"keep": keep}
        append = [word for word in values.get("KDUMP_CMDLINE_APPEND", "").split() if word not in OURS]
        if append:
            found["image"] = {"cmdline_append": " ".join(append)}
        notes += _notes(values)
        return Imported(found, tuple(notes))

    def disable(self) -> tuple[Change, ...]:
        """Stop its unit, and set USE_KDUMP=0 so that nothing of it starts it again."""
        why = "kdumpy loads the capture kernel instead of kdump-tools"
        commands = reading.disabled(self._system, (UNIT,), why)
        text = text_of(self._system, CONFIGURATION)
        if text is None or not reading.switch(self._values().get("USE_KDUMP", "0"), False):
            return commands
        return (*commands, *changed(self._system, CONFIGURATION,
                                    shell.assigned(text, "USE_KDUMP", "0", CONFIGURATION), why))

    def _values(self) -> dict[str, str]:
        return shell.values(text_of(self._system, CONFIGURATION) or "", CONFIGURATION)

    def _targets(self, values: Mapping[str, str], notes: list[str]) -> dict[str, object]:
        """Return the keys that say where to: kdump-config saves to every server that is set, else to the directory."""
        directory = values.get("KDUMP_COREDIR") or COREDIR
        capture: dict[str, object] = {}
        targets: list[str] = []
        if values.get("FTP"):
            notes.append(f"FTP={values['FTP']}: dumps are not sent by FTP; use ssh://, https:// or nfs://")
        if values.get("SSH"):
            if url := reading.ssh_url(values["SSH"], directory):
                targets.append(url)
                capture |= {"ssh_key": values.get("SSH_KEY") or SSH_KEY, "ssh_known_hosts": reading.KNOWN_HOSTS}
            else:
                notes.append(f"SSH={values['SSH']}: this is no user@host")
        if values.get("NFS"):
            if url := reading.nfs_url(values["NFS"]):
                targets.append(url)
                capture |= _nfs_options(values)
            else:
                notes.append(f"NFS={values['NFS']}: this is no server:/export")
        if len(targets) > 1:
            notes.append("kdump-tools saves to every server; kdumpy to the first that takes the dump")
        if targets:
            notes.append(reading.REMOTE_ONLY)
        elif "KDUMP_COREDIR" in values:
            if directory.startswith("/"):
                targets = [directory]
            else:
                notes.append(f"KDUMP_COREDIR={directory}: this is no directory's path")
        return {"targets": targets, **capture} if targets else {}


def _nfs_options(values: Mapping[str, str]) -> dict[str, object]:
    timeo, again = (reading.number(values.get(name) or default)
                    for name, default in (("NFS_TIMEO", "600"), ("NFS_RETRANS", "3")))
    if not (values.get("NFS_TIMEO") or values.get("NFS_RETRANS")) or timeo is None or again is None:
        return {}
    return {"nfs_options": f"soft,timeo={timeo},retrans={again}"}


LEFT = {
    "KDUMP_FAIL_CMD": "a failed capture tries the further targets, then final_action",
    "KDUMP_CMDLINE": "the capture kernel's command line is made of the running one's; see image.cmdline_append and "
                     "image.cmdline_remove",
    "KDUMP_KEXEC_ARGS": "kdumpy calls the kernel itself",
    "KDUMP_COMPRESSION": "dumps are compressed page by page, see capture.compress",
    "HOSTTAG": "directories are named after the host's name, see capture.path_name",
}
"""Settings without a counterpart, and what is so instead."""


def _notes(values: Mapping[str, str]) -> list[str]:
    notes = [f"{name}={values[name]}: {instead}" for name, instead in LEFT.items() if values.get(name)]
    if values.get("KDUMP_DUMP_DMESG") == "0":
        notes.append("KDUMP_DUMP_DMESG=0: the log is always saved, before anything else")
    for name, own in (("KDUMP_KERNEL", "/var/lib/kdump/vmlinuz"), ("KDUMP_INITRD", "/var/lib/kdump/initrd.img")):
        if values.get(name, own) != own:
            notes.append(f"{name}={values[name]}: kdumpy makes its own image; see image.kernel for another kernel")
    return notes


def find(system: System) -> KdumpTools | None:
    """Return it when it is installed."""
    return KdumpTools(system) if system.which(PROGRAM) else None
