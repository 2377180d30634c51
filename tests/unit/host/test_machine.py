"""The machine as its files tell it: distribution, memory, secure boot, what it runs in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import otherhosts
from kdumpy.errors import HostError
from kdumpy.host import distribution, machine
from kdumpy.host.machine import SECURE_BOOT, look
from kdumpy.host.system import System

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-bffdbfff : System RAM
  1e000000-1edfffff : Kernel code
  2f000000-3effffff : Crash kernel
feffc000-feffffff : Reserved
100000000-43fffffff : System RAM
"""

MEMINFO = "MemTotal:       16374532 kB\nMemFree:  1 kB\n"


def test_a_debian_server(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    otherhosts.made(tmp_path, {
        "/proc/sys/kernel/arch": "x86_64\n", "/proc/sys/kernel/osrelease": "6.1.0-44-amd64\n",
        "/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda1 ro quiet\n", "/proc/iomem": IOMEM,
        "/sys/devices/system/cpu/present": "0-7,16-23\n", "/sys/kernel/security/lockdown": "none [integrity] conf\n",
        SECURE_BOOT: b"\6\0\0\0\1", "/sys/class/dmi/id/sys_vendor": "QEMU\n",
        "/sys/class/dmi/id/product_name": "Standard PC (Q35 + ICH9, 2009)\n"})
    found = look(system)
    assert (found.distribution.id, found.distribution.version, found.package_manager, found.generator) == (
        "debian", "12", "apt", "initramfs-tools")
    assert (found.architecture, found.release, found.cpus) == ("x86_64", "6.1.0-44-amd64", 16)
    assert found.cmdline.endswith("ro quiet")
    assert found.memory_bytes == 0xa0000 - 0x1000 - 0x400 + 0xbffdc000 - 0x100000 + 0x340000000
    assert (found.boot_loader, found.secure_boot, found.lockdown) == ("grub", True, "integrity")
    assert (found.virtualization, found.container) == ("qemu", "")


def test_nothing_known_is_nothing_said(tmp_path: Path) -> None:
    found = look(System(tmp_path))
    assert found.distribution.id == "linux"
    assert (found.architecture, found.release, found.cmdline, found.memory_bytes, found.cpus) == ("", "", "", 0, 0)
    assert (found.boot_loader, found.generator, found.package_manager) == (None, None, None)
    assert (found.secure_boot, found.lockdown, found.virtualization, found.container) == (False, "", "", "")


def test_this_very_machine_is_looked_at_without_running_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(System, "run", lambda *_args, **_more: pytest.fail("a program was run"))
    found = look(System())
    assert found.architecture == os.uname().machine
    assert found.release == os.uname().release
    assert found.memory_bytes > 256 << 20
    assert found.cpus >= 1


def test_where_iomem_shows_zeroes_memory_is_what_the_kernel_uses_and_what_is_reserved(tmp_path: Path) -> None:
    hidden = "\n".join(f"00000000-00000000 : {line.partition(' : ')[2]}" for line in IOMEM.splitlines())
    system = otherhosts.made(tmp_path, {"/proc/iomem": hidden, "/proc/meminfo": MEMINFO,
                                        "/sys/kernel/kexec_crash_size": "268435456\n"})
    assert look(system).memory_bytes == 16374532 * 1024 + (256 << 20)


@pytest.mark.parametrize(("files", "on"), [
    ({}, False), ({SECURE_BOOT: b"\6\0\0\0\1"}, True), ({SECURE_BOOT: b"\6\0\0\0\0"}, False),
    ({SECURE_BOOT: b"\6\0"}, None), ({"/sys/firmware/efi/fw_platform_size": b"64"}, None),
    ({"/sys/firmware/efi/efivars/Boot0001": b""}, False), ({"/sys/firmware/ipl/secure": b"1\n"}, True),
    ({"/sys/firmware/ipl/secure": b"0\n"}, False), ({"/proc/device-tree/ibm,secure-boot": b"\0\0\0\2"}, True)])
def test_secure_boot_is_told_known_or_unknown(tmp_path: Path, files: dict[str, str | bytes], on: bool | None) -> None:
    assert look(otherhosts.made(tmp_path, files)).secure_boot is on


@pytest.mark.parametrize(("files", "kind"), [
    ({"/sys/class/dmi/id/product_name": "KVM"}, "kvm"), ({"/sys/class/dmi/id/sys_vendor": "VMware, Inc."}, "vmware"),
    ({"/sys/class/dmi/id/product_name": "Virtual Machine", "/sys/class/dmi/id/sys_vendor": "Microsoft Corporation"},
     "microsoft"),
    ({"/sys/class/dmi/id/sys_vendor": "Dell Inc.", "/sys/class/dmi/id/product_name": "PowerEdge R750"}, ""),
    ({"/sys/class/dmi/id/sys_vendor": "Amazon EC2", "/proc/cpuinfo": "flags\t\t: fpu vme\n"}, ""),
    ({"/sys/class/dmi/id/sys_vendor": "Amazon EC2", "/proc/cpuinfo": "flags\t\t: fpu hypervisor lahf\n"}, "amazon"),
    ({"/proc/cpuinfo": "flags\t\t: fpu hypervisor\n"}, "vm"), ({"/sys/hypervisor/type": "xen\n"}, "xen"),
    ({"/proc/device-tree/hypervisor/compatible": "linux,kvm\0"}, "kvm"),
    ({"/proc/device-tree/ibm,partition-name": "lpar1\0"}, "powervm"),
    ({"/proc/sysinfo": "Manufacturer: IBM\nVM00 Control Program: KVM/Linux\n"}, "kvm"),
    ({"/proc/sysinfo": "VM00 Control Program: z/VM    7.2.0\n"}, "zvm")])
def test_what_it_runs_in(tmp_path: Path, files: dict[str, str | bytes], kind: str) -> None:
    assert look(otherhosts.made(tmp_path, files)).virtualization == kind


@pytest.mark.parametrize(("files", "kind"), [
    ({"/run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"), ({"/.dockerenv": ""}, "docker"),
    ({"/run/.containerenv": ""}, "podman"), ({"/proc/1/environ": "PATH=/bin\0container=lxc\0TERM=x\0"}, "lxc"),
    ({"/proc/1/environ": "mycontainer=lxc\0"}, ""), ({"/proc/vz/version": ""}, "openvz"),
    ({"/proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"}, "wsl")])
def test_a_container_is_known(tmp_path: Path, files: dict[str, str | bytes], kind: str) -> None:
    assert look(otherhosts.made(tmp_path, files)).container == kind


@pytest.mark.parametrize(("text", "values"), [
    ("NAME='a b'\nID=x\n# ID=y\n\nbroken\nPRETTY_NAME=\"open\nV=\"\\$5\"\n", {"NAME": "a b", "ID": "x", "V": "$5"}),
    ("ID=\nA B=1\nPATH_=$HOME\n", {"ID": "", "PATH_": "$HOME"})])
def test_os_release_is_read_as_the_shell_would(text: str, values: dict[str, str]) -> None:
    assert distribution.os_release(text) == values


def test_the_administrator_s_os_release_counts_and_a_link_is_followed(tmp_path: Path) -> None:
    system = otherhosts.made(tmp_path, {"/usr/lib/os-release": "ID=fedora\n",
                                        "/etc/os-release->": "/usr/lib/os-release"})
    assert distribution.of(system).id == "fedora"
    (tmp_path / "etc/os-release").unlink()
    otherhosts.made(tmp_path, {"/etc/os-release": "ID=mine\nID_LIKE=\"rhel fedora\"\n"})
    assert distribution.of(system).id == "mine"
    assert distribution.of(system).family("fedora")
    assert not distribution.of(system).family("debian")


def test_of_several_package_managers_the_distribution_s_own_is_taken(tmp_path: Path) -> None:
    programs: dict[str, str | bytes] = {f"/usr/bin/{name}": "" for name in ("apt-get", "dnf", "zypper", "pacman")}
    for text, manager in (("ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\n", "zypper"), ("ID=rhel\n", "dnf"),
                          ("ID=arch\n", "pacman"), ("ID=mint\nID_LIKE=ubuntu\n", "apt"), ("ID=other\n", "apt")):
        system = otherhosts.made(tmp_path, {"/etc/os-release": text, **programs})
        assert distribution.of(system).package_manager == manager, text


def test_an_unreadable_os_release_is_said(tmp_path: Path) -> None:
    (tmp_path / "etc/os-release").mkdir(parents=True)
    with pytest.raises(HostError, match="/etc/os-release"):
        distribution.of(System(tmp_path))


def test_vendors_are_those_of_systemd_detect_virt() -> None:
    assert {kind for _, kind in machine.VENDORS} >= {"kvm", "qemu", "vmware", "oracle", "xen", "microsoft", "amazon"}
