"""Every boot loader on a tree of its distribution's files: found, read, set, set again, taken back to the byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import otherhosts
from kdumpy.errors import HostError
from kdumpy.host import bootloaders, distribution
from kdumpy.host.bootloaders import grub, parameters, shell
from kdumpy.host.changes import FileChange
from kdumpy.host.system import System


@dataclass(frozen=True)
class Host:
    """What is to be found in a tree."""

    loader: str
    manager: str | None
    generator: str | None
    crashkernel: tuple[str, ...]
    """What the next boot has."""
    begins: str
    """How the next boot's command line begins."""
    command: tuple[str, ...]
    """What is run after a change; empty: nothing."""


HOSTS = {
    "debian-12": Host("grub", "apt", "initramfs-tools", (), "root=/dev/vda1 ro  quiet", ("update-grub",)),
    "ubuntu-24.04": Host("grub", "apt", "initramfs-tools",
                         ("2G-4G:320M,4G-32G:512M,32G-64G:1024M,64G-128G:2048M,128G-:4096M",),
                         "root=/dev/vda1 ro  console=tty1 console=ttyS0", ("update-grub",)),
    "fedora-42": Host("grub-bls", "dnf", "dracut", (), "root=/dev/mapper/fedora-root ro rd.lvm.lv=fedora/root", ()),
    "rhel-9": Host("grub-bls", "dnf", "dracut", ("1G-4G:192M,4G-64G:256M,64G-:512M",),
                   "root=/dev/mapper/rhel-root ro", ()),
    "rhel-8": Host("grub-bls", "dnf", "dracut", ("auto",), "root=/dev/mapper/rl-root ro", ()),
    "opensuse-leap-15.6": Host("grub", "zypper", "dracut", ("203M,high", "72M,low"),
                               "root=UUID=3c1b3a0e-5f0f-4a8b-9f39-6b2f8d1a7c10",
                               ("grub2-mkconfig", "-o", "/boot/grub2/grub.cfg")),
    "opensuse-tumbleweed": Host("grub2-bls", "zypper", "dracut", (),
                                "root=UUID=3c1b3a0e-5f0f-4a8b-9f39-6b2f8d1a7c10 splash=silent",
                                ("sdbootutil", "update-all-entries")),
    "arch": Host("systemd-boot", "pacman", "mkinitcpio", (), "root=UUID=0a3407de-014b-458b-b5c1-848e92a327a3 rw", ()),
    "ubuntu-s390x": Host("zipl", "apt", "initramfs-tools", (), "root=LABEL=cloudimg-rootfs console=tty1", ("zipl",)),
    "rhel-9-s390x": Host("zipl", "dnf", "dracut", ("1G-4G:160M,4G-64G:192M,64G-1T:256M,1T-:512M",),
                         "root=/dev/mapper/rhel-root", ("zipl",)),
    "debian-arm64-uboot": Host("extlinux", "apt", "initramfs-tools", (), "root=/dev/mmcblk0p2 ro quiet",
                               ("u-boot-update",)),
    "extlinux": Host("extlinux", None, None, (), "root=/dev/mmcblk0p1 rw rootwait", ()),
    "raspberry-pi": Host("raspberry", "apt", "initramfs-tools", (), "console=tty0 console=ttyS1,115200", ()),
    "fedora-coreos": Host("ostree", None, "dracut", (), "rw $ignition_firstboot",
                          ("rpm-ostree", "kargs", "--append=crashkernel=320M")),
}

EACH = pytest.mark.parametrize(("name", "host"), list(HOSTS.items()), ids=list(HOSTS))


def loader_of(system: System) -> bootloaders.BootLoader:
    loader = bootloaders.detect(system)
    assert loader is not None
    return loader


def configured(system: System, loader: str) -> str:
    """Return the command line that the loader's own tool will make of the files."""
    if loader == "grub":
        return grub.Settings(system).cmdline()
    if loader == "grub2-bls":
        return system.read("/etc/kernel/cmdline") or ""
    if loader == "extlinux" and system.which("u-boot-update"):
        return shell.values(system.read("/etc/default/u-boot") or "", "u-boot").get("U_BOOT_PARAMETERS", "ro quiet")
    return loader_of(system).next_cmdline(system) or ""


@EACH
def test_it_is_known(tmp_path: Path, name: str, host: Host) -> None:
    system = otherhosts.copy(name, tmp_path)
    found = distribution.of(system)
    assert (found.package_manager, found.generator) == (host.manager, host.generator)
    assert loader_of(system).name == host.loader


@EACH
def test_the_next_command_line_is_read(tmp_path: Path, name: str, host: Host) -> None:
    system = otherhosts.copy(name, tmp_path)
    cmdline = loader_of(system).next_cmdline(system)
    assert cmdline is not None
    assert cmdline.startswith(host.begins)
    assert tuple(parameters.values(cmdline, "crashkernel")) == host.crashkernel


@EACH
def test_a_parameter_is_set_once_and_taken_back(tmp_path: Path, name: str, host: Host) -> None:
    system = otherhosts.copy(name, tmp_path)
    before, line = otherhosts.contents(system), configured(system, host.loader)
    changes = loader_of(system).plan(system, {"crashkernel": "320M"})
    assert otherhosts.contents(system) == before, "a plan writes nothing"
    commands = otherhosts.apply(system, changes)
    assert commands == ([host.command] if host.command else [])
    if host.loader != "ostree":
        after = configured(system, host.loader)
        assert parameters.values(after, "crashkernel")[-1:] == ["320M"]
        others = [word for word in line.split() if not word.startswith("crashkernel=")]
        assert [word for word in after.split() if not word.startswith("crashkernel=")] == others
        assert loader_of(system).plan(system, {"crashkernel": "320M"}) == ()
    otherhosts.undo(system, changes)
    assert otherhosts.contents(system) == before


@EACH
def test_a_parameter_is_removed_everywhere(tmp_path: Path, name: str, host: Host) -> None:
    system = otherhosts.copy(name, tmp_path)
    before = otherhosts.contents(system)
    changes = loader_of(system).plan(system, {"crashkernel": None})
    assert bool(changes) == bool(host.crashkernel)
    otherhosts.apply(system, changes)
    if host.loader != "ostree":
        assert parameters.values(configured(system, host.loader), "crashkernel") == []
    for path, data in otherhosts.contents(system).items():
        if isinstance(data, bytes) and not path.endswith("grub.cfg"):
            assert b" crashkernel=" not in data, path
    otherhosts.undo(system, changes)
    assert otherhosts.contents(system) == before


@EACH
def test_several_parameters_go_in_one_plan(tmp_path: Path, name: str, host: Host) -> None:
    system = otherhosts.copy(name, tmp_path)
    changes = loader_of(system).plan(system, {"crashkernel": "512M,high", "nmi_watchdog": "1", "quiet": None})
    otherhosts.apply(system, changes)
    if host.loader == "ostree":
        return
    after = configured(system, host.loader)
    assert parameters.values(after, "crashkernel") == ["512M,high"]
    assert parameters.values(after, "nmi_watchdog") == ["1"]
    assert parameters.values(after, "quiet") == []


@EACH
def test_a_file_that_is_no_text_is_refused_and_named(tmp_path: Path, name: str, host: Host) -> None:
    system = otherhosts.copy(name, tmp_path)
    changes = loader_of(system).plan(system, {"crashkernel": "320M"})
    edited = [path for path in otherhosts.files(changes) if system.exists(path)]
    for path in edited or ([] if host.loader == "ostree" else [grub.SETTINGS]):
        good = system.path(path).read_bytes()
        for bad in (b"\0" * 100, b"GRUB_CMDLINE_LINUX=quiet # \xff\xfe\0", b"#" * (3 << 20)):
            system.path(path).write_bytes(bad)
            with pytest.raises(HostError) as caught:
                loader_of(system).plan(system, {"crashkernel": "320M"})
            assert path.rpartition("/")[2] in str(caught.value)
        system.path(path).write_bytes(good)


@EACH
def test_bytes_that_are_no_utf_8_are_kept(tmp_path: Path, name: str, host: Host) -> None:
    system = otherhosts.copy(name, tmp_path)
    for path in [path for path in otherhosts.files(loader_of(system).plan(system, {"crashkernel": "320M"}))
                 if system.exists(path) and not path.endswith("grubenv")]:
        data = system.path(path).read_bytes()
        if b"\n" in data.rstrip(b"\n"):     # a file of several lines: a comment may be added
            system.path(path).write_bytes(b"# Gr\xfc\xdfe\n" + data)
    changes = loader_of(system).plan(system, {"crashkernel": "320M"})
    for change in changes:
        if isinstance(change, FileChange) and change.before and b"Gr\xfc\xdfe" in change.before:
            assert change.after is not None
            assert change.after.startswith(b"# Gr\xfc\xdfe\n")


def test_a_system_without_a_boot_loader_has_none(tmp_path: Path) -> None:
    assert bootloaders.detect(System(tmp_path)) is None


def test_every_loader_has_a_tree() -> None:
    assert {host.loader for host in HOSTS.values()} == {
        "grub", "grub-bls", "grub2-bls", "systemd-boot", "zipl", "extlinux", "raspberry", "ostree"}
    assert len(bootloaders.ORDER) == 8
