"""The machine that is to be armed: what it is, what starts it, and what may stand in the way."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host import bootloaders, distribution
from kdumpy.host.distribution import Distribution
from kdumpy.host.system import System

SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""UEFI's variable: 4 bytes of attributes, then 1 when it is on."""

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What `look` found. Empty or None: it is not there, or nothing tells."""

    distribution: Distribution
    architecture: str
    """As uname says: x86_64, aarch64, ppc64le, s390x …"""
    release: str
    """The running kernel's."""
    cmdline: str
    """The running kernel's."""
    memory_bytes: int
    """RAM that the kernel found, the reservation for a capture kernel included. 0: unknown."""
    cpus: int
    """Present ones; 0: unknown."""
    boot_loader: str | None
    """Its name, see `kdumpy.host.bootloaders`."""
    generator: str | None
    """What builds the initramfs: initramfs-tools, dracut, mkinitcpio."""
    secure_boot: bool | None
    """None: the firmware has it and does not tell."""
    lockdown: str
    """Of the running kernel: empty, `integrity` or `confidentiality`."""
    virtualization: str
    """Empty: bare metal; kvm, vmware, microsoft, xen, qemu, powervm, zvm …, in systemd-detect-virt's words."""
    container: str
    """Empty: none; docker, podman, lxc, systemd-nspawn, wsl …: its kernel is not its own to arm."""

    @property
    def package_manager(self) -> str | None:
        """apt, dnf, zypper, pacman, or None."""
        return self.distribution.package_manager


def look(system: System) -> Machine:
    """Look at the machine. Nothing is run and nothing is changed.

    Raises:
        HostError: a file of the distribution or the boot loader is there and cannot be read.
    """
    found = distribution.of(system)
    loader = bootloaders.detect(system)
    return Machine(distribution=found, architecture=_architecture(system),
                   release=_release(system),
                   cmdline=system.value("/proc/cmdline") or "", memory_bytes=_memory(system), cpus=_cpus(system),
                   boot_loader=loader.name if loader else None, generator=found.generator,
                   secure_boot=_secure_boot(system), lockdown=_lockdown(system),
                   virtualization=_virtualization(system), container=container(system))


def _architecture(system: System) -> str:
    """Return uname's machine; the kernel tells it in a file since 6.1 (kernel.arch)."""
    return system.value("/proc/sys/kernel/arch") or (os.uname().machine if system.live else "")


def _release(system: System) -> str:
    return system.value("/proc/sys/kernel/osrelease") or (os.uname().release if system.live else "")


def _memory(system: System) -> int:
    """Return the RAM that the kernel was given, as `crashkernel=` with ranges counts it.

    Source: kernel/crash_core.c, which takes memblock_phys_mem_size(); /proc/iomem shows it, with zeroes to all but
    root. MemTotal lacks the kernel's own pages and the reservation; that is added.
    """
    total = 0
    for line in (system.value("/proc/iomem") or "").splitlines():
        match = re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+) : System RAM", line)     # not indented: no part of another
        if match:
            first, last = (int(digits, 16) for digits in match.groups())
            total += last - first + 1 if last else 0
    if total:
        return total
    match = re.search(r"^MemTotal:\s+(\d+) kB$", system.value("/proc/meminfo") or "", re.MULTILINE)
    if match is None:
        return 0
    reserved = system.value("/sys/kernel/kexec_crash_size") or "0"
    return int(match[1]) * 1024 + (int(reserved) if reserved.isdigit() else 0)


def _cpus(system: System) -> int:
    """Return how many CPUs are present, from a list such as `0-3,8`."""
    text = system.value("/sys/devices/system/cpu/present") or ""
    count = 0
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match:
            count += int(match[2] or match[1]) - int(match[1]) + 1
    return count


def _secure_boot(system: System) -> bool | None:
    """Tell whether the firmware checks what it boots: UEFI's variable, s390's or POWER's own file."""
    for path, on in (("/sys/firmware/ipl/secure", "1"), ("/proc/device-tree/ibm,secure-boot", "\x02")):
        value = system.value(path)
        if value is not None:
            return value.endswith(on)
    if not system.exists("/sys/firmware/efi"):
        return False
    try:
        data = system.read_bytes(SECURE_BOOT)
    except HostError:
        return None
    if data is None:
        return None if not system.exists("/sys/firmware/efi/efivars") else False
    return data[4] == 1 if len(data) == 5 else None


def _lockdown(system: System) -> str:
    """Return the level in brackets of `none [integrity] confidentiality`."""
    match = re.search(r"\[(\w+)\]", system.value("/sys/kernel/security/lockdown") or "")
    return match[1] if match and match[1] != "none" else ""


VENDORS = (("KVM", "kvm"), ("OpenStack", "kvm"), ("KubeVirt", "kvm"), ("Amazon EC2", "amazon"), ("QEMU", "qemu"),
           ("VMware", "vmware"), ("VMW", "vmware"), ("innotek GmbH", "oracle"), ("VirtualBox", "oracle"),
           ("Xen", "xen"), ("Bochs", "bochs"), ("Parallels", "parallels"), ("BHYVE", "bhyve"),
           ("Hyper-V", "microsoft"), ("Virtual Machine", "microsoft"),
           ("Apple Virtualization", "apple"), ("Google Compute Engine", "google"))
"""Beginning of a DMI name, and what runs there. Source: systemd, src/basic/virt.c, detect_vm_dmi_vendor()."""


def _virtualization(system: System) -> str:
    """Return what the machine runs in, from DMI, the device tree, or s390's and Xen's own files."""
    names = [system.value(f"/sys/class/dmi/id/{file}") or ""
             for file in ("product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version")]
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", system.value("/proc/cpuinfo") or "", re.MULTILINE)
    for name in names:
        for start, kind in VENDORS:
            # EC2 has machines of bare metal, and so has Hyper-V's vendor: the CPU tells (on x86; others lack DMI
            # names of their own where they are not virtual).
            if name.startswith(start) and not (kind == "amazon" and not flags):
                return kind
    if (system.value("/sys/hypervisor/type") or "") == "xen":
        return "xen"
    tree = system.value("/proc/device-tree/hypervisor/compatible") or ""
    if tree:
        return "kvm" if "linux,kvm" in tree else "xen" if "xen" in tree else "vm"
    if system.exists("/proc/device-tree/ibm,partition-name"):
        return "powervm"
    control = re.search(r"^VM00 Control Program:\s*(\S+)", system.value("/proc/sysinfo") or "", re.MULTILINE)
    if control:
        return "kvm" if control[1].startswith("KVM") else "zvm"
    return "vm" if flags else ""


def container(system: System) -> str:
    """Return what contains the system: its kernel is shared, and panics as the host's."""
    said = system.value("/run/systemd/container")       # systemd as the container's first process writes it
    if said:
        return said
    if system.exists("/run/.containerenv"):
        return "podman"
    if system.exists("/.dockerenv"):
        return "docker"
    match = re.search(r"(?:^|\0)container=([^\0]+)", system.value("/proc/1/environ") or "")
    if match:
        return match[1]
    if system.exists("/proc/vz") and not system.exists("/proc/bc"):
        return "openvz"
    return "wsl" if "microsoft" in (system.value("/proc/sys/kernel/osrelease") or "").lower() else ""
