"""Boot loader entries: their order, their options, and what new ones are made of."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import otherhosts
from kdumpy.errors import HostError
from kdumpy.host import bootloaders
from kdumpy.host.bootloaders import entries, esp, uki
from kdumpy.host.bootloaders.bls import Bls
from kdumpy.host.bootloaders.sdbootutil import Sdbootutil
from kdumpy.host.bootloaders.systemdboot import SystemdBoot
from kdumpy.host.system import System

ENTRIES = "/boot/loader/entries"
SET = {"crashkernel": "256M"}


@pytest.mark.parametrize(("older", "newer"), [
    ("5.14.0-70", "5.14.0-427"), ("6.9", "6.10"), ("1.0~rc1", "1.0"), ("1.0", "1.0^20240101"), ("a", "b"),
    ("1.0-1", "1.0.1"), ("abc-0-rescue", "abc-5.14"), ("1", "1.1"), ("a", "1"), ("", "1"), ("~", "")])
def test_versions_are_compared_as_the_specification_does(older: str, newer: str) -> None:
    assert entries.compare(older, newer) == -1
    assert entries.compare(newer, older) == 1
    assert entries.compare(older, older) == 0


def ids(system: System) -> list[str]:
    return [entry.id for entry in entries.read(system, ENTRIES)]


def test_entries_are_in_the_menu_s_order(tmp_path: Path) -> None:
    texts = {"b-5.9": "linux /a\n", "b-5.10": "linux /a\n", "failed+0-3": "sort-key a\nversion 9\nlinux /a\n",
             "new+2-1": "sort-key debian\nversion 6.12\nlinux /a\n", "old": "sort-key debian\nversion 6.1\nlinux /a\n",
             "shell": "efi /shell.efi\n", "arch": "sort-key arch\nlinux /a\n", "comment": "# linux /a\n"}
    system = otherhosts.made(tmp_path, {f"{ENTRIES}/{name}.conf": text for name, text in texts.items()})
    assert ids(system) == ["arch", "new", "old", "b-5.10", "b-5.9", "failed"]


@pytest.mark.parametrize(("text", "after"), [
    ("linux /a\noptions ro\n", "linux /a\noptions ro crashkernel=256M\n"),
    ("linux /a\n", "linux /a\noptions crashkernel=256M\n"),
    ("linux /a", "linux /a\noptions crashkernel=256M\n"),
    ("options\ta  b \nlinux /a\n", "options\ta  b  crashkernel=256M\nlinux /a\n"),
    ("linux /a\noptions crashkernel=1M a\noptions b\n", "linux /a\noptions crashkernel=256M a\noptions b\n"),
    ("linux /a\noptions crashkernel=1M\noptions b crashkernel=2M c\n",
     "linux /a\noptions \noptions b crashkernel=256M c\n"),
    ("linux /a\noptions   crashkernel=1M a\noptions b\n", "linux /a\noptions   a\noptions b crashkernel=256M\n"),
    ("linux /a\r\noptions ro\r\n", "linux /a\r\noptions ro crashkernel=256M\r\n")])
def test_options_are_edited_in_their_lines(tmp_path: Path, text: str, after: str) -> None:
    system = otherhosts.made(tmp_path, {f"{ENTRIES}/a.conf": text.encode()})
    changes = list(entries.plan(system, entries.read(system, ENTRIES), SET))
    assert otherhosts.files(changes) == {f"{ENTRIES}/a.conf": after}


def test_on_rhel_8_the_options_in_the_environment_are_edited_through_its_link(tmp_path: Path) -> None:
    system = otherhosts.copy("rhel-8", tmp_path)
    assert list(otherhosts.files(Bls().plan(system, SET))) == ["/boot/efi/EFI/rocky/grubenv", "/etc/default/grub"]


def test_an_entry_s_own_value_beside_the_shared_options_goes_away(tmp_path: Path) -> None:
    system = otherhosts.copy("rhel-8", tmp_path)
    path = system.glob(f"{ENTRIES}/*x86_64.conf")[0]
    text = system.read(path) or ""
    system.path(path).write_text(text.replace("$tuned_params", "$tuned_params crashkernel=64M"))
    assert otherhosts.files(Bls().plan(system, SET))[path] == text


def test_the_entry_that_grub_saved_is_the_next(tmp_path: Path) -> None:
    system = otherhosts.copy("rhel-9", tmp_path)
    _newest, older = entries.read(system, ENTRIES)
    system.path(older.path).write_text("linux /old\noptions old\n")
    assert "old" not in (Bls().next_cmdline(system) or "")
    env = system.path("/boot/grub2/grubenv")
    for saved, options in ((older.id, "old"), ("1", "old"), ("0", None), ("gone", None)):
        env.write_text(f"# GRUB Environment Block\nsaved_entry={saved}\n####")
        assert (Bls().next_cmdline(system) == "old") == (options == "old"), saved


def test_without_entries_blscfg_has_nothing_to_tell(tmp_path: Path) -> None:
    system = otherhosts.made(tmp_path, {"/boot/grub2/grub.cfg": "blscfg\n"})
    assert bootloaders.detect(system) is None
    assert Bls().next_cmdline(system) is None


def variable(system: System, name: str, text: str) -> None:
    path = system.path(f"/sys/firmware/efi/efivars/{name}-{esp.VENDOR}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\6\0\0\0" + text.encode("utf-16-le") + b"\0\0")


def test_systemd_boot_s_default_is_found(tmp_path: Path) -> None:
    system = otherhosts.copy("arch", tmp_path)
    loader = SystemdBoot()
    system.path(f"{ENTRIES}/arch-fallback.conf").write_text("linux /b\noptions fallback\n")
    assert loader.next_cmdline(system) != "fallback"
    system.path("/boot/loader/loader.conf").write_text("#default x\ndefault *-fallback\n")
    assert loader.next_cmdline(system) == "fallback"
    variable(system, "LoaderEntryDefault", "arch.conf")
    assert loader.next_cmdline(system) != "fallback"
    variable(system, "LoaderEntryOneShot", "arch-fallback")
    assert loader.next_cmdline(system) == "fallback"


def test_what_started_the_system_says_which_loader_it_is(tmp_path: Path) -> None:
    system = otherhosts.copy("arch", tmp_path)
    menu = "menuentry 'a' {\n linux /a b\n}\n"
    otherhosts.made(tmp_path, {"/boot/grub/grub.cfg": menu, "/etc/default/grub": ""})
    for info, name in (("GRUB 2.12", "grub"), ("systemd-boot 257.3", "systemd-boot")):
        variable(system, "LoaderInfo", info)
        found = bootloaders.detect(system)
        assert found is not None
        assert found.name == name


def test_kernels_that_are_installed_later_get_it_too(tmp_path: Path) -> None:
    system = otherhosts.copy("arch", tmp_path)
    otherhosts.made(tmp_path, {"/etc/kernel/cmdline": "# for kernel-install\nroot=/dev/a\nrw\n"})
    assert otherhosts.files(SystemdBoot().plan(system, SET))["/etc/kernel/cmdline"] == (
        "# for kernel-install\nroot=/dev/a\nrw crashkernel=256M\n")


def test_one_folder_under_two_names_is_one(tmp_path: Path) -> None:
    system = otherhosts.copy("arch", tmp_path)
    (tmp_path / "efi").symlink_to("boot")
    assert len(otherhosts.files(SystemdBoot().plan(system, SET))) == 2


def image(cmdline: str | None) -> bytes:
    """Return an EFI program with a command line in it."""
    sections = [(b".text", b"\x90" * 16), *([(b".cmdline", cmdline.encode() + b"\0")] if cmdline is not None else [])]
    head = bytearray(b"MZ" + b"\0" * 58 + struct.pack("<I", 64))
    head += struct.pack("<4sHH12xHH", b"PE\0\0", 0x8664, len(sections), 16, 0) + b"\0" * 16
    offset = len(head) + 40 * len(sections)
    for name, data in sections:
        head += struct.pack("<8sIIII16x", name, len(data), 0x1000, len(data), offset)
        offset += len(data)
    return bytes(head) + b"".join(data for _, data in sections)


def uki_host(tmp_path: Path, files: dict[str, str | bytes]) -> System:
    return otherhosts.made(tmp_path, {"/efi/EFI/systemd/systemd-bootx64.efi": "MZ",
                                      "/efi/EFI/Linux/arch-linux.efi": image("root=/dev/a rw\n"), **files})


PRESET: dict[str, str | bytes] = {"/etc/mkinitcpio.d/linux.preset": 'default_uki="/efi/EFI/Linux/arch-linux.efi"\n',
                                  "/usr/bin/mkinitcpio": ""}


@pytest.mark.parametrize(("given", "changed"), [
    ({"/etc/kernel/cmdline": "root=/dev/a rw\n"}, {"/etc/kernel/cmdline": "root=/dev/a rw crashkernel=256M\n"}),
    ({"/etc/cmdline.d/root.conf": "root=/dev/a\n", "/etc/cmdline.d/z.conf": "rw\n"},
     {"/etc/cmdline.d/z.conf": "rw crashkernel=256M\n"}),
    ({"/etc/kernel/cmdline": "rw\n", "/etc/cmdline.d/crash.conf": "crashkernel=1M\n"},
     {"/etc/cmdline.d/crash.conf": "crashkernel=256M\n"}),
    ({}, {"/etc/kernel/cmdline": "root=/dev/a rw crashkernel=256M\n"})])
def test_what_a_unified_image_is_made_of_is_edited_and_it_is_made_anew(
        tmp_path: Path, given: dict[str, str | bytes], changed: dict[str, str]) -> None:
    system = uki_host(tmp_path, {**PRESET, **given})
    loader = bootloaders.detect(system)
    assert isinstance(loader, SystemdBoot)
    assert loader.next_cmdline(system) == "root=/dev/a rw"
    changes = loader.plan(system, SET)
    assert otherhosts.files(changes) == changed
    assert otherhosts.commands(changes) == [("mkinitcpio", "-P")]


def test_kernel_install_makes_unified_images_too(tmp_path: Path) -> None:
    system = uki_host(tmp_path, {"/etc/kernel/install.conf": "# a\nlayout = uki\n", "/usr/bin/kernel-install": "",
                                 "/etc/kernel/cmdline": "rw\n"})
    assert otherhosts.commands(SystemdBoot().plan(system, SET)) == [("kernel-install", "add-all")]


def test_a_vendor_s_unified_image_cannot_be_changed(tmp_path: Path) -> None:
    system = uki_host(tmp_path, {"/etc/kernel/cmdline": "rw\n"})
    with pytest.raises(HostError, match="inside of a kernel image"):
        SystemdBoot().plan(system, SET)
    assert SystemdBoot().plan(system, {"crashkernel": None}) == ()


@pytest.mark.parametrize("data", [b"", b"MZ", b"\x7fELF" + b"\0" * 100, image("a")[:90],
                                  image("a")[:64] + b"XX" + image("a")[66:]])
def test_what_is_no_efi_program_is_refused(data: bytes) -> None:
    with pytest.raises(HostError, match="no EFI program"):
        uki.cmdline_of(data, "x.efi")


def test_an_image_without_a_command_line_has_none() -> None:
    assert uki.cmdline_of(image(None), "x.efi") is None
    assert uki.cmdline_of(image("a  b\n"), "x.efi") == "a  b"


def test_opensuse_s_entries_are_made_of_their_own_options_where_no_file_says_them(tmp_path: Path) -> None:
    system = otherhosts.copy("opensuse-tumbleweed", tmp_path)
    system.path("/etc/kernel/cmdline").unlink()
    loader = bootloaders.detect(system)
    assert isinstance(loader, Sdbootutil)
    after = otherhosts.files(loader.plan(system, SET))["/etc/kernel/cmdline"]
    assert after == f"{loader.next_cmdline(system)} crashkernel=256M\n"


def test_opensuse_s_loader_is_told_by_its_settings_or_what_is_installed(tmp_path: Path) -> None:
    system = otherhosts.copy("opensuse-tumbleweed", tmp_path)
    system.path("/etc/sysconfig/bootloader").write_text('LOADER_TYPE="systemd-boot"\n')
    found = bootloaders.detect(system)
    assert found is not None
    assert found.name == "systemd-boot"
    assert "splash=silent" in (found.next_cmdline(system) or "")
