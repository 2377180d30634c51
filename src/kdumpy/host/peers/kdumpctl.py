"""kdump-utils (kexec-tools before): Fedora's, RHEL's and their kin's. /etc/kdump.conf and /etc/sysconfig/kdump.

Source: kdump.conf(5), kdump-lib-initramfs.sh (kdump_get_conf_val), gen-kdump-sysconfig.sh of kdump-utils 1.0.61.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from kdumpy.host.bootloaders import shell
from kdumpy.host.bootloaders.files import changed, text_of
from kdumpy.host.changes import Change
from kdumpy.host.peers import reading
from kdumpy.host.peers.base import Imported
from kdumpy.host.system import System

CONFIGURATION, SYSCONFIG = "/etc/kdump.conf", "/etc/sysconfig/kdump"
UNIT = "kdump.service"
PROGRAM = "kdumpctl"

PATH = "/var/crash"
SSH_KEY = "/root/.ssh/kdump_id_rsa"

FILE_SYSTEMS = re.compile(r"ext[234]|xfs|btrfs|minix")

APPENDED = """
irqpoll nr_cpus=1 nr_cpus=16 maxcpus=1 reset_devices cgroup_disable=memory mce=off numa=off udev.children-max=2
panic=10 rootflags=nofail acpi_no_memhotplug transparent_hugepage=never nokaslr novmcoredd hest_disable cma=0
hugetlb_cma=0 pcie_ports=compat kfence.sample_interval=0 initramfs_options=size=90% swiotlb=noforce noirqdistrib
ehea.use_mcs=0 kvm_cma_resv_ratio=0 vmcp_cma=0
"""
REMOVED = """
hugepages hugepagesz slub_debug quiet log_buf_len swiotlb hugetlb_cma ignition.firstboot cma vmcp_cma prot_virt
zfcp.allow_lun_scan
"""
"""What the package's own file holds, for all architectures: ours knows what a capture kernel needs."""

LEFT = {
    "kdump_pre": "nothing is run before the capture",
    "kdump_post": "nothing is run after the capture; see report.notify for what is told after the reboot",
    "kdump_emergency": "there is no such hook",
    "extra_bins": "programs are taken in with what needs them",
    "dracut_args": "the image holds what the targets need; see image.builder and image.modules",
    "fence_kdump_args": "fence_kdump is not sent: a cluster may fence the machine while it saves its dump",
    "fence_kdump_nodes": "fence_kdump is not sent: a cluster may fence the machine while it saves its dump",
    "virtiofs": "a virtiofs share is no target; share it by NFS, or use a disk",
}
"""Directives without a counterpart, and what is so instead."""


class KdumpUtils:
    """kdump-utils, where it is installed."""

    name = "kdump-utils"

    def __init__(self, system: System) -> None:
        self._system = system

    @property
    def active(self) -> bool | None:
        """Whether its unit is enabled."""
        return reading.enabled(self._system, UNIT)

    def imported(self) -> Imported:
        """Read /etc/kdump.conf and /etc/sysconfig/kdump."""
        given = dict(directives(text_of(self._system, CONFIGURATION) or ""))      # of several the last counts
        notes = [f"{name} {given[name]}: {instead}" for name, instead in LEFT.items() if given.get(name)]
        capture = _targets(given, notes)
        if "core_collector" in given:
            more, said = reading.collector(given["core_collector"], "core_collector")
            capture |= more
            notes += said
        if given.get("final_action") in ("reboot", "poweroff", "halt"):
            capture["final_action"] = given["final_action"]
        failure = given.get("failure_action") or given.get("default") or "reboot"
        if failure not in ("dump_to_rootfs", capture.get("final_action", "reboot")):
            notes.append(f"failure_action {failure}: what follows a failed capture is final_action, too")
        image = self._image(notes)
        if given.get("extra_modules"):
            image["modules"] = given["extra_modules"].split()
        found: dict[str, object] = {name: keys for name, keys in (("capture", capture), ("image", image)) if keys}
        return Imported(found, tuple(notes))

    def disable(self) -> tuple[Change, ...]:
        """Stop its unit, and keep it from setting crashkernel= of kernels that are installed later."""
        why = "kdumpy loads the capture kernel instead of kdump-utils"
        commands = reading.disabled(self._system, (UNIT,), why)
        text = text_of(self._system, CONFIGURATION)
        if text is None or dict(directives(text)).get("auto_reset_crashkernel", "yes") == "no":
            return commands
        lines = text.splitlines(keepends=True)
        holding = [at for at, line in enumerate(lines) if re.match(r"\s*auto_reset_crashkernel\b", line)]
        if holding:
            lines[holding[-1]] = "auto_reset_crashkernel no\n"
        else:
            lines.append(("" if not text or text.endswith("\n") else "\n") + "auto_reset_crashkernel no\n")
        return (*commands, *changed(self._system, CONFIGURATION, "".join(lines),
                                    "kdump-utils leaves crashkernel= alone"))

    def _image(self, notes: list[str]) -> dict[str, object]:
        """Return the keys of [image] from the sysconfig file."""
        values = shell.values(text_of(self._system, SYSCONFIG) or "", SYSCONFIG)
        image: dict[str, object] = {}
        if values.get("KDUMP_KERNELVER"):
            image["kernel"] = values["KDUMP_KERNELVER"]
        for name, key, own in (("KDUMP_COMMANDLINE_APPEND", "cmdline_append", APPENDED),
                               ("KDUMP_COMMANDLINE_REMOVE", "cmdline_remove", REMOVED)):
            more = [word for word in values.get(name, "").split() if word not in own.split()]
            if more:
                image[key] = " ".join(more)
        if values.get("KDUMP_COMMANDLINE"):
            notes.append(f"KDUMP_COMMANDLINE={values['KDUMP_COMMANDLINE']}: the capture kernel's command line is made "
                         "of the running one's; see image.cmdline_append and image.cmdline_remove")
        if values.get("KEXEC_ARGS", "-s").strip() not in ("", "-s", "--dt-no-old-root"):
            notes.append(f"KEXEC_ARGS={values['KEXEC_ARGS']}: kdumpy calls the kernel itself")
        return image


def directives(text: str) -> Iterator[tuple[str, str]]:
    """Yield the directives of a kdump.conf as kdump_get_conf_val() reads them."""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, *rest = line.split(None, 1)
        value = rest[0].partition("#")[0].rstrip() if rest else ""
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        yield name, value


def _targets(given: dict[str, str], notes: list[str]) -> dict[str, object]:
    """Return the keys that say where to. Without a target the path is a directory of the running system."""
    path = given.get("path") or PATH
    device = next(((name, value) for name, value in reversed(given.items()) if FILE_SYSTEMS.fullmatch(name)), None)
    capture: dict[str, object] = {}
    url: str | None = None
    if given.get("ssh"):
        url = reading.ssh_url(given["ssh"], path)
        capture = {"ssh_key": given.get("sshkey") or SSH_KEY, "ssh_known_hosts": reading.KNOWN_HOSTS}
        _check(url, f"ssh {given['ssh']}", notes)
    elif given.get("nfs"):
        url = reading.nfs_url(f"{given['nfs'].rstrip('/')}/{path.lstrip('/')}")
        _check(url, f"nfs {given['nfs']}", notes)
    elif given.get("raw"):
        url = f"raw:{given['raw']}" if given["raw"].startswith("/dev/") else None
        _check(url, f"raw {given['raw']}", notes)
    elif device:
        url = _disk(device[1], path)
        _check(url, " ".join(device), notes)
    elif "path" in given and not given.get("virtiofs"):
        url = path if path.startswith("/") else f"/{path}"
    if url is None:
        return {}
    targets = [url]
    if given.get("failure_action", given.get("default")) == "dump_to_rootfs":
        targets.append(path)
    elif url.startswith(("ssh:", "nfs:")):
        notes.append(reading.REMOTE_ONLY)
    return {"targets": targets, **capture}


def _disk(device: str, path: str) -> str | None:
    """Return the target for a device as kdump.conf names it: /dev/…, UUID=…, LABEL=…."""
    name, equals, value = device.partition("=")
    if device.startswith("/dev/"):
        return f"disk:{device}/{path.strip('/')}"
    if equals and name in ("UUID", "LABEL", "PARTUUID", "PARTLABEL"):
        return f"disk:{name}={quote(value.strip(chr(34)), safe='')}/{path.strip('/')}"
    return None


def _check(url: str | None, given: str, notes: list[str]) -> None:
    if url is None:
        notes.append(f"{given}: this cannot be read as a target")


def find(system: System) -> KdumpUtils | None:
    """Return it when it is installed."""
    return KdumpUtils(system) if system.which(PROGRAM) else None
