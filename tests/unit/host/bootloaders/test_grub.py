"""GRUB with generated entries: which file a parameter goes to, and what the next boot gets."""

from __future__ import annotations

from pathlib import Path

import pytest

import otherhosts
from kdumpy.errors import HostError
from kdumpy.host.bootloaders import grub, grubcfg, parameters
from kdumpy.host.bootloaders.grub import OURS, SETTINGS, Grub
from kdumpy.host.system import System

KDUMP_TOOLS = "/etc/default/grub.d/kdump-tools.cfg"


def settings(system: System, text: str) -> None:
    system.path(SETTINGS).write_text(text)


def planned(system: System, value: str | None = "256M") -> dict[str, str]:
    return otherhosts.files(Grub().plan(system, {"crashkernel": value}))


def effective(system: System, value: str | None = "256M") -> list[str | None]:
    otherhosts.apply(system, Grub().plan(system, {"crashkernel": value}))
    return parameters.values(grub.Settings(system).cmdline(), "crashkernel")


def test_on_debian_a_new_parameter_gets_a_file_of_its_own(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    assert planned(system) == {OURS: grub.HEAD + 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT '
                                                 'crashkernel=256M"\n'}


def test_what_was_set_by_hand_is_changed_where_it_stands(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    settings(system, 'GRUB_CMDLINE_LINUX="crashkernel=128M  net.ifnames=0"\nGRUB_CMDLINE_LINUX_DEFAULT=quiet\n')
    assert planned(system) == {SETTINGS: 'GRUB_CMDLINE_LINUX="crashkernel=256M  net.ifnames=0"\n'
                                         "GRUB_CMDLINE_LINUX_DEFAULT=quiet\n"}


def test_set_in_both_variables_it_is_set_once(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    settings(system, 'GRUB_CMDLINE_LINUX="crashkernel=128M a"\nGRUB_CMDLINE_LINUX_DEFAULT="crashkernel=1G b"\n')
    assert planned(system) == {SETTINGS: 'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX_DEFAULT="crashkernel=256M b"\n'}


def test_a_package_s_file_is_left_alone_and_ours_comes_after_it(tmp_path: Path) -> None:
    system = otherhosts.copy("ubuntu-24.04", tmp_path)
    assert list(planned(system)) == [OURS]
    assert effective(system)[-1] == "256M"


def test_a_package_s_plain_value_goes_before_a_high_one_so_it_is_removed(tmp_path: Path) -> None:
    system = otherhosts.copy("ubuntu-24.04", tmp_path)
    assert sorted(planned(system, "512M,high")) == [KDUMP_TOOLS, OURS]
    assert effective(system, "512M,high") == ["512M,high"]
    assert effective(system, "512M,high 128M,low") == ["512M,high", "128M,low"]
    assert planned(system, "512M,high 128M,low") == {}


def test_a_pair_is_set_where_it_stands_by_hand(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    settings(system, "GRUB_CMDLINE_LINUX='crashkernel=64M,low a'\nGRUB_CMDLINE_LINUX_DEFAULT=crashkernel=1G,high\n")
    assert effective(system, "512M,high 128M,low") == ["512M,high", "128M,low"]
    assert planned(system, "512M,high 128M,low") == {}
    assert effective(system, "256M") == ["256M"]


def test_a_package_s_file_that_says_it_already_needs_nothing(tmp_path: Path) -> None:
    system = otherhosts.copy("ubuntu-24.04", tmp_path)
    value = "2G-4G:320M,4G-32G:512M,32G-64G:1024M,64G-128G:2048M,128G-:4096M"
    assert Grub().plan(system, {"crashkernel": value}) == ()


def test_removing_goes_through_every_file_and_ours_disappears(tmp_path: Path) -> None:
    system = otherhosts.copy("ubuntu-24.04", tmp_path)
    assert effective(system)[-1] == "256M"
    changes = Grub().plan(system, {"crashkernel": None})
    assert sorted(otherhosts.files(changes)) == [KDUMP_TOOLS, OURS]
    otherhosts.apply(system, changes)
    assert not system.exists(OURS)
    assert system.read(KDUMP_TOOLS) == 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT"\n'


def test_our_file_keeps_what_it_holds_of_other_parameters(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    otherhosts.apply(system, Grub().plan(system, {"crashkernel": "256M", "nmi_watchdog": "1"}))
    otherhosts.apply(system, Grub().plan(system, {"crashkernel": "512M"}))
    assert grub.Settings(system).cmdline() == "quiet crashkernel=512M nmi_watchdog=1"


def test_a_later_file_that_starts_anew_is_the_one_that_is_edited_or_named(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    late = system.path("/etc/default/grub.d/zz-site.cfg")
    late.write_text('GRUB_CMDLINE_LINUX_DEFAULT="quiet crashkernel=64M"\n')
    assert planned(system) == {"/etc/default/grub.d/zz-site.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet '
                                                                  'crashkernel=256M"\n'}
    late.write_text('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    with pytest.raises(HostError, match=r"zz-site\.cfg"):
        Grub().plan(system, {"crashkernel": "256M"})


def test_a_condition_that_decides_is_named_and_not_edited(tmp_path: Path) -> None:
    system = otherhosts.copy("opensuse-leap-15.6", tmp_path)
    settings(system, 'GRUB_CMDLINE_LINUX="a"\nif [ -e /x ]; then\n  GRUB_CMDLINE_LINUX="crashkernel=1M"\nfi\n')
    with pytest.raises(HostError, match="by hand"):
        Grub().plan(system, {"crashkernel": "256M"})


@pytest.mark.parametrize(("text", "after"), [
    ("", 'GRUB_CMDLINE_LINUX_DEFAULT="crashkernel=256M"\n'),
    ("A=1", 'A=1\nGRUB_CMDLINE_LINUX_DEFAULT="crashkernel=256M"\n'),
    ('GRUB_CMDLINE_LINUX="a"\n', 'GRUB_CMDLINE_LINUX="a crashkernel=256M"\n'),
    ("GRUB_CMDLINE_LINUX=''\n", "GRUB_CMDLINE_LINUX='crashkernel=256M'\n"),
    ("GRUB_CMDLINE_LINUX=quiet\n", 'GRUB_CMDLINE_LINUX="quiet crashkernel=256M"\n'),
    ("GRUB_CMDLINE_LINUX=\n", 'GRUB_CMDLINE_LINUX="crashkernel=256M"\n'),
    ("GRUB_CMDLINE_LINUX='a '\"b\" # c\n", "GRUB_CMDLINE_LINUX='a '\"b crashkernel=256M\" # c\n"),
    ('GRUB_CMDLINE_LINUX="a \\\n  b"\n', 'GRUB_CMDLINE_LINUX="a \\\n  b crashkernel=256M"\n'),
    ('GRUB_CMDLINE_LINUX="crashkernel=1M,low crash"\'kernel=2M,high\'\n', 'GRUB_CMDLINE_LINUX="crashkernel=256M"\n'),
    ('GRUB_CMDLINE_LINUX="dyndbg=\\"file a +p\\" -- x"\n',
     'GRUB_CMDLINE_LINUX="dyndbg=\\"file a +p\\" crashkernel=256M -- x"\n'),
    ('export GRUB_CMDLINE_LINUX="a"', 'export GRUB_CMDLINE_LINUX="a crashkernel=256M"'),
    ('GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX+=" crashkernel=1M b"\n',
     'GRUB_CMDLINE_LINUX="a"\nGRUB_CMDLINE_LINUX+=" crashkernel=256M b"\n'),
    ('GRUB_CMDLINE_LINUX="a"\r\n', 'GRUB_CMDLINE_LINUX="a crashkernel=256M\r"\n')])
def test_without_snippets_the_settings_are_edited(tmp_path: Path, text: str, after: str) -> None:
    system = otherhosts.copy("opensuse-leap-15.6", tmp_path)
    system.path(SETTINGS).write_bytes(text.encode())
    assert planned(system) == {SETTINGS: after}


def test_a_value_that_grub_s_tools_would_break_is_refused(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    with pytest.raises(HostError, match="without quotes"):
        Grub().plan(system, {"dyndbg": "file a.c +p"})


def test_a_missing_tool_is_said(tmp_path: Path) -> None:
    system = otherhosts.copy("debian-12", tmp_path)
    for program in ("update-grub", "grub-mkconfig"):
        system.path(f"/usr/sbin/{program}").unlink()
    with pytest.raises(HostError, match="install GRUB's tools"):
        Grub().plan(system, {"crashkernel": "256M"})


def test_the_menu_on_the_esp_of_an_old_fedora_is_found(tmp_path: Path) -> None:
    menu = "menuentry 'CentOS Linux' {\n linuxefi /vmlinuz root=/dev/sda1 crashkernel=auto\n}\n"
    system = otherhosts.made(tmp_path, {"/boot/efi/EFI/centos/grub.cfg": menu, "/usr/sbin/grub2-mkconfig": "",
                                        SETTINGS: 'GRUB_CMDLINE_LINUX="crashkernel=auto"\n'})
    assert Grub().next_cmdline(system) == "root=/dev/sda1 crashkernel=auto"
    assert otherhosts.commands(Grub().plan(system, {"crashkernel": "256M"})) == [
        ("grub2-mkconfig", "-o", "/boot/efi/EFI/centos/grub.cfg")]


MENU = """
set default="{default}"
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
fi
menuentry 'First' --class os $menuentry_id_option 'id-first' {{
  if [ x = y ]; then
    search a
  fi
  linux /vmlinuz-1 first $vt_handoff
}}
submenu "More" $menuentry_id_option 'id-more' {{
  menuentry 'Second' --id id-second {{
    linux /vmlinuz-2 second ${{shared}}
  }}
  menuentry 'Third' {{
    linux /vmlinuz-3
  }}
}}
menuentry 'Firmware' {{
  fwsetup
}}
set shared="a b"
"""


@pytest.mark.parametrize(("default", "environment", "cmdline"), [
    ("0", {}, "first "), ("1>0", {}, "second a b"), ("More>Third", {}, ""), ("id-more>id-second", {}, "second a b"),
    ("1", {}, "second a b"), ("${saved_entry}", {"saved_entry": "id-more>1"}, ""), ("${saved_entry}", {}, "first "),
    ("0", {"next_entry": "1>0"}, "second a b"), ("9", {}, "first "), ("gone>0", {}, "first ")])
def test_the_default_entry_is_grub_s(default: str, environment: dict[str, str], cmdline: str) -> None:
    menu = grubcfg.menu(MENU.format(default=default))
    variables = {**menu.variables, **environment}
    entry = grubcfg.chosen(menu, variables)
    assert entry is not None
    assert grubcfg.expand(entry.cmdline or "", variables) == cmdline


def test_a_menu_of_nothing_has_no_entry() -> None:
    assert grubcfg.chosen(grubcfg.menu("}\n}\nsubmenu 'a' {\n"), {}) is None


def test_an_entry_that_starts_no_linux_has_no_command_line(tmp_path: Path) -> None:
    system = otherhosts.made(tmp_path, {"/boot/grub/grub.cfg": MENU.format(default="Firmware")})
    assert Grub().next_cmdline(system) is None


def test_an_environment_block_keeps_its_size(tmp_path: Path) -> None:
    text = otherhosts.copy("rhel-8", tmp_path).read("/boot/grub2/grubenv") or ""
    after = grubcfg.with_value(text, "kernelopts", "ro a\\b", "grubenv")
    assert len(after) == 1024
    assert grubcfg.environment(after) == {**grubcfg.environment(text), "kernelopts": "ro a\\b"}
    assert grubcfg.environment(grubcfg.with_value(after, "new", "1", "grubenv"))["new"] == "1"


def test_an_environment_block_that_is_full_or_none_is_refused(tmp_path: Path) -> None:
    text = otherhosts.copy("rhel-8", tmp_path).read("/boot/grub2/grubenv") or ""
    with pytest.raises(HostError, match="full"):
        grubcfg.with_value(text, "kernelopts", "x" * 1024, "grubenv")
    with pytest.raises(HostError, match="no GRUB environment block"):
        grubcfg.with_value("kernelopts=a\n", "kernelopts", "b", "grubenv")
