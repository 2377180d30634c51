"""zipl, extlinux, ostree, the Raspberry Pi: what their trees in test_hosts leave open."""

from __future__ import annotations

from pathlib import Path

import pytest

import otherhosts
from kdumpy.errors import HostError
from kdumpy.host import bootloaders
from kdumpy.host.bootloaders import zipl
from kdumpy.host.bootloaders.extlinux import Extlinux
from kdumpy.host.bootloaders.ostree import Ostree
from kdumpy.host.bootloaders.raspberry import Raspberry
from kdumpy.host.bootloaders.zipl import Zipl
from kdumpy.host.changes import Command
from kdumpy.host.system import System

SET = {"crashkernel": "256M"}


def zipl_host(tmp_path: Path, text: str, **files: str) -> System:
    return otherhosts.made(tmp_path, {"/etc/zipl.conf": text, "/usr/sbin/zipl": "",
                                      **{f"/boot/{name}": contents for name, contents in files.items()}})


def test_sections_that_start_a_kernel_are_edited_and_dump_sections_are_not(tmp_path: Path) -> None:
    system = otherhosts.copy("ubuntu-s390x", tmp_path)
    before = system.read("/etc/zipl.conf") or ""
    after = otherhosts.files(Zipl().plan(system, SET))["/etc/zipl.conf"]
    assert after == before.replace('console=ttyS0"', 'console=ttyS0 crashkernel=256M"')


@pytest.mark.parametrize(("line", "after"), [
    ('parameters="a b"', 'parameters="a b crashkernel=256M"'),
    ("  parameters = 'a'  # c", "  parameters = 'a crashkernel=256M'  # c"),
    ("parameters=a b", "parameters=a b crashkernel=256M"),
    ("parameters=crashkernel=1M a", "parameters=crashkernel=256M a"),
    ('parameters = ""', 'parameters = "crashkernel=256M"')])
def test_parameters_are_edited_within_their_quotes(tmp_path: Path, line: str, after: str) -> None:
    text = "[defaultboot]\ndefault=a\n[a]\ntarget=/boot\nimage=/boot/image\n{}\n"
    system = zipl_host(tmp_path, text.format(line))
    assert otherhosts.files(Zipl().plan(system, SET)) == {"/etc/zipl.conf": text.format(after)}


def test_parameters_in_a_file_of_their_own_are_edited_there(tmp_path: Path) -> None:
    system = zipl_host(tmp_path, "[defaultboot]\ndefault=a\n[a]\nimage=/boot/image\nparmfile=/boot/parm\n",
                       parm="root=/dev/dasda1\nro\n")
    assert Zipl().next_cmdline(system) == "root=/dev/dasda1 ro"
    assert otherhosts.files(Zipl().plan(system, SET)) == {"/boot/parm": "root=/dev/dasda1\nro crashkernel=256M\n"}


def test_with_both_the_section_has_it_and_the_file_loses_it(tmp_path: Path) -> None:
    text = "[defaultboot]\ndefault=a\n[a]\nimage=/boot/image\nparmfile=/boot/parm\nparameters=\"{}\"\n"
    system = zipl_host(tmp_path, text.format("x"), parm="crashkernel=1M root=/dev/dasda1\n")
    assert Zipl().next_cmdline(system) == "crashkernel=1M root=/dev/dasda1 x"
    assert otherhosts.files(Zipl().plan(system, SET)) == {
        "/etc/zipl.conf": text.format("x crashkernel=256M"), "/boot/parm": "root=/dev/dasda1\n"}


def test_a_section_without_parameters_gets_them(tmp_path: Path) -> None:
    system = zipl_host(tmp_path, "[defaultboot]\ndefault=a\n[a]\nimage=/boot/image\ntarget=/boot\n")
    assert otherhosts.files(Zipl().plan(system, SET)) == {
        "/etc/zipl.conf": '[defaultboot]\ndefault=a\n[a]\nimage=/boot/image\nparameters = "crashkernel=256M"\n'
                          "target=/boot\n"}
    assert Zipl().plan(system, {"crashkernel": None}) == ()


def test_the_default_of_a_menu_is_followed(tmp_path: Path) -> None:
    text = "[defaultboot]\ndefaultmenu=m\n[a]\nimage=/i\nparameters=first\n[b]\nimage=/i\nparameters=second\n"
    assert Zipl().next_cmdline(zipl_host(tmp_path, text + ":m\n1=a\n2=b\ndefault=2\n")) == "second"


def test_open_quotes_and_quotes_within_quotes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="line 2"):
        list(zipl.settings('[a]\nparameters="open\n', "/etc/zipl.conf"))
    system = zipl_host(tmp_path, '[a]\nimage=/i\nparameters="a"\n')
    with pytest.raises(HostError, match="by hand"):
        Zipl().plan(system, {"dyndbg": "file a +p"})


def test_zipl_that_starts_a_grub_is_not_the_loader(tmp_path: Path) -> None:
    system = otherhosts.copy("opensuse-leap-15.6", tmp_path)
    otherhosts.made(tmp_path, {"/etc/zipl.conf": "[a]\n", "/usr/sbin/zipl": ""})
    found = bootloaders.detect(system)
    assert found is not None
    assert found.name == "grub"


@pytest.mark.parametrize(("settings", "after"), [
    ('U_BOOT_PARAMETERS="ro"\n', 'U_BOOT_PARAMETERS="ro crashkernel=256M"\n'),
    ("#U_BOOT_PARAMETERS=x\n", '#U_BOOT_PARAMETERS=x\nU_BOOT_PARAMETERS="ro quiet crashkernel=256M"\n')])
def test_u_boot_update_s_settings_are_edited(tmp_path: Path, settings: str, after: str) -> None:
    system = otherhosts.copy("debian-arm64-uboot", tmp_path)
    system.path("/etc/default/u-boot").write_text(settings)
    assert otherhosts.files(Extlinux().plan(system, SET)) == {"/etc/default/u-boot": after}


def test_a_snippet_or_the_kernel_s_own_file_may_hold_u_boot_s_parameters(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-arm64-uboot", tmp_path)
    otherhosts.made(tmp_path, {"/etc/kernel/cmdline": "root=/dev/a ro\n"})
    assert otherhosts.files(Extlinux().plan(system, SET)) == {
        "/etc/kernel/cmdline": "root=/dev/a ro crashkernel=256M\n"}
    otherhosts.made(tmp_path, {"/etc/u-boot-menu/conf.d/x.conf": "U_BOOT_PARAMETERS=ro\n"})
    assert otherhosts.files(Extlinux().plan(system, SET)) == {
        "/etc/u-boot-menu/conf.d/x.conf": 'U_BOOT_PARAMETERS="ro crashkernel=256M"\n'}


def test_alpine_s_menu_is_made_of_its_settings(tmp_path: Path) -> None:
    settings = "overwrite=1\ndefault_kernel_opts=\"quiet rootfstype=ext4\"\nmodules=ext4\n"
    system = otherhosts.made(tmp_path, {"/boot/extlinux.conf": "DEFAULT lts\nLABEL lts\n  APPEND quiet\n",
                                        "/etc/update-extlinux.conf": settings, "/sbin/update-extlinux": ""})
    changes = Extlinux().plan(system, SET)
    assert otherhosts.files(changes) == {
        "/etc/update-extlinux.conf": settings.replace("ext4\"", "ext4 crashkernel=256M\"")}
    assert otherhosts.commands(changes) == [("update-extlinux",)]


def test_the_label_that_a_menu_marks_is_the_next(tmp_path: Path) -> None:
    text = "label a\n  append first\nlabel b\n  menu default\n  append second\n"
    system = otherhosts.made(tmp_path, {"/boot/extlinux/extlinux.conf": text})
    assert Extlinux().next_cmdline(system) == "second"


def test_ostree_replaces_and_undoes_by_one_command_each(tmp_path: Path) -> None:
    system = otherhosts.copy("fedora-coreos", tmp_path)
    for path in system.glob("/boot/loader/entries/*.conf"):
        text = system.read(path) or ""
        system.path(path).write_text(text.replace("options rw", "options rw crashkernel=1M quiet"))
    (command,) = Ostree().plan(system, {"crashkernel": "256M", "quiet": None, "debug": ""})
    assert isinstance(command, Command)
    assert command.words == ("rpm-ostree", "kargs", "--delete=crashkernel=1M", "--append=crashkernel=256M",
                             "--delete=quiet", "--append=debug")
    assert command.undo == ("rpm-ostree", "kargs", "--delete=crashkernel=256M", "--append=crashkernel=1M",
                            "--append=quiet", "--delete=debug")
    assert Ostree().plan(system, {"crashkernel": "1M"}) == ()


def test_the_raspberry_s_extra_file_is_kept_when_it_is_there(tmp_path: Path) -> None:
    system = otherhosts.copy("raspberry-pi", tmp_path)
    otherhosts.made(tmp_path, {"/etc/default/raspi-extra-cmdline": "cma=64M\n"})
    assert otherhosts.files(Raspberry().plan(system, SET))["/etc/default/raspi-extra-cmdline"] == (
        "cma=64M crashkernel=256M\n")
