"""kdump of SUSE: /etc/sysconfig/kdump. Source: kdump(5), sysconfig.kdump, kdump-read-config.sh of kdump 2.1.9."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from kdumpy.host.bootloaders import shell
from kdumpy.host.bootloaders.files import changed, text_of
from kdumpy.host.changes import Change
from kdumpy.host.crashkernel import given
from kdumpy.host.peers import reading
from kdumpy.host.peers.base import Imported
from kdumpy.host.system import System

CONFIGURATION = "/etc/sysconfig/kdump"
UNITS = ("kdump.service", "kdump-early.service", "kdump-notify.service", "kdump-commandline.service")
PROGRAM = "kdumptool"
LOADER = "/usr/lib/kdump/load.sh"

SSH_KEY = "/root/.ssh/id_rsa"

FORMATS = {"compressed": "zlib", "lzo": "lzo", "snappy": "snappy", "zstd": "zstd"}

LEFT = {
    "KDUMP_COMMANDLINE": "the capture kernel's command line is made of the running one's",
    "KEXEC_OPTIONS": "kdumpy calls the kernel itself",
    "KDUMP_TRANSFER": "kdumpy saves the dump itself",
    "KDUMP_PRESCRIPT": "nothing is run before the capture",
    "KDUMP_POSTSCRIPT": "nothing is run after the capture; see report.notify for what is told after the reboot",
    "KDUMP_REQUIRED_PROGRAMS": "programs are taken in with what needs them",
    "KDUMP_HOST_KEY": "ssh checks the host's key in capture.ssh_known_hosts",
    "KDUMP_SMTP_SERVER": "mail goes through the host's own mail service",
    "KDUMP_NOTIFICATION_CC": "report.notify lists all who are told",
}
"""Settings without a counterpart, and what is so instead."""


class SuseKdump:
    """SUSE's kdump, where it is installed."""

    name = "suse-kdump"

    def __init__(self, system: System) -> None:
        self._system = system

    @property
    def active(self) -> bool | None:
        """Whether one of the units that load a capture kernel is enabled."""
        return any(reading.enabled(self._system, unit) for unit in UNITS[:2])

    def imported(self) -> Imported:
        """Read /etc/sysconfig/kdump."""
        values = self._values()
        notes = [f"{name}={values[name]}: {instead}" for name, instead in LEFT.items() if values.get(name)]
        found: dict[str, object] = {}
        _crashkernel(values, found, notes)
        capture = _capture(values, notes)
        image = {key: values[name] for name, key in (("KDUMP_KERNELVER", "kernel"),
                                                     ("KDUMP_COMMANDLINE_APPEND", "cmdline_append"))
                 if values.get(name)}
        keep = reading.number(values.get("KDUMP_KEEP_OLD_DUMPS", ""))
        if values.get("KDUMP_KEEP_OLD_DUMPS") == "-1":
            keep = 1
            notes.append("KDUMP_KEEP_OLD_DUMPS=-1: the older dumps are removed after the new one is there, not before")
        if values.get("KDUMP_FREE_DISK_SIZE", "64") != "64":
            notes.append(f"KDUMP_FREE_DISK_SIZE={values['KDUMP_FREE_DISK_SIZE']}: see retention.min_free_percent")
        if reading.switch(values.get("KDUMP_FADUMP", ""), False):
            notes.append("KDUMP_FADUMP: firmware-assisted dumps of POWER are not used")
        for key, part in (("capture", capture), ("image", image),
                          ("retention", {} if keep is None else {"keep": keep}),
                          ("report", _notified(values))):
            if part:
                found[key] = part
        return Imported(found, tuple(notes))

    def disable(self) -> tuple[Change, ...]:
        """Stop its units, and keep it from writing crashkernel= into the boot loader."""
        why = "kdumpy loads the capture kernel instead of SUSE's kdump"
        commands = reading.disabled(self._system, UNITS, why)
        text = text_of(self._system, CONFIGURATION)
        values = self._values()
        if text is None or not reading.switch(values.get("KDUMP_UPDATE_BOOTLOADER", "no"), False):
            return commands
        return (*commands, *changed(self._system, CONFIGURATION,
                                    shell.assigned(text, "KDUMP_UPDATE_BOOTLOADER", "false", CONFIGURATION),
                                    "SUSE's kdump leaves crashkernel= alone"))

    def _values(self) -> dict[str, str]:
        return shell.values(text_of(self._system, CONFIGURATION) or "", CONFIGURATION)


def _crashkernel(values: Mapping[str, str], found: dict[str, object], notes: list[str]) -> None:
    """Carry the reservation over: `auto`, or what a command line has."""
    text = values.get("KDUMP_CRASHKERNEL", "auto")
    sizes = given(text)
    if len(sizes) == 1:
        found["crashkernel"] = sizes[0]
    elif sizes:
        high = [size for size in sizes if size.endswith(",high")]
        found["crashkernel"] = (high or list(sizes))[-1]
        notes.append(f"KDUMP_CRASHKERNEL={text}: of several values {found['crashkernel']} is taken; the kernel chooses "
                     "the part below 4 GiB itself")
    elif text not in ("auto", ""):
        notes.append(f"KDUMP_CRASHKERNEL={text}: this is no crashkernel=")


def _capture(values: Mapping[str, str], notes: list[str]) -> dict[str, object]:
    capture: dict[str, object] = {}
    if values.get("KDUMP_SAVEDIR"):
        url = _target(values["KDUMP_SAVEDIR"], notes)
        if url:
            capture["targets"] = [url]
            if url.startswith("ssh:"):
                keys = values.get("KDUMP_SSH_IDENTITY", "").split()
                capture |= {"ssh_key": keys[0] if keys else SSH_KEY, "ssh_known_hosts": reading.KNOWN_HOSTS}
            if url.startswith(("ssh:", "nfs:")):
                notes.append(reading.REMOTE_ONLY)
    level = reading.number(values.get("KDUMP_DUMPLEVEL", ""))
    if level is not None and level <= 31:
        capture["level"] = level
    form = values.get("KDUMP_DUMPFORMAT", "").lower()
    if form in FORMATS:
        capture["compress"] = FORMATS[form]
    elif form in ("elf", "raw"):
        capture |= {"format": "elf", "compress": "none"}
    elif form == "none":
        notes.append("KDUMP_DUMPFORMAT=none: the log is saved first, and the dump, too")
    if not reading.switch(values.get("KDUMP_IMMEDIATE_REBOOT", "true"), True):
        capture["final_action"] = "shell"
    if not reading.switch(values.get("KDUMP_CONTINUE_ON_ERROR", "true"), True):
        notes.append("KDUMP_CONTINUE_ON_ERROR=false: what follows a failed capture is final_action, too")
    if values.get("KDUMP_NETCONFIG", "auto") not in ("auto", ""):
        notes.append(f"KDUMP_NETCONFIG={values['KDUMP_NETCONFIG']}: the network is set up as it is now, where a target "
                     "needs it")
    return capture


def _target(savedir: str, notes: list[str]) -> str | None:
    """Return the target for a KDUMP_SAVEDIR."""
    if savedir.startswith("/"):
        return savedir
    said = f"KDUMP_SAVEDIR={savedir.partition('://')[0]}://…"
    try:
        parts = urlsplit(savedir)
        port = parts.port
    except ValueError:
        notes.append(f"{said}: this is no address")
        return None
    scheme, url = parts.scheme.lower(), None
    if scheme == "file":
        return parts.path or None
    if parts.password:
        notes.append(f"{said}: its password is not carried over; log in by key")
    if scheme == "nfs" and parts.hostname:
        url = reading.nfs_url(f"{_host(parts.hostname)}:{unquote(parts.path)}")
    elif scheme in ("ssh", "scp", "sftp") and parts.hostname:
        url = reading.ssh_url(f"{parts.username or 'root'}@{parts.hostname}", unquote(parts.path))
        if url and port:
            url = url.replace(_host(parts.hostname), f"{_host(parts.hostname)}:{port}", 1)
        if url and scheme != "ssh":
            notes.append(f"{said}: it becomes ssh://, which needs a shell on the server")
    if url is None:
        notes.append(f"{said}: dumps are not sent that way; use ssh://, https:// or nfs://")
    return url


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _notified(values: Mapping[str, str]) -> dict[str, object]:
    people = [*values.get("KDUMP_NOTIFICATION_TO", "").split(), *values.get("KDUMP_NOTIFICATION_CC", "").split()]
    return {"notify": [f"mailto:{one}" for one in people if "@" in one]} if people else {}


def find(system: System) -> SuseKdump | None:
    """Return it when it is installed."""
    return SuseKdump(system) if system.which(PROGRAM) or system.exists(LOADER) else None
