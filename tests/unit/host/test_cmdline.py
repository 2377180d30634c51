"""The capture kernel's command line: what it inherits, what it must not, what wins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.errors import UsageError
from kdumpy.host.cmdline import APPEND, ELFCOREHDR, REMOVED, capture_cmdline, check_length, name_of, value_of, words

DEBIAN = ("BOOT_IMAGE=/boot/vmlinuz-6.1.0-56-amd64 root=UUID=6b64756d-7079-4000-8000-000000000001 ro console=tty0 "
          "console=ttyS0,115200n8 crashkernel=384M-:256M quiet splash intel_iommu=on mitigations=off")
FEDORA = ("BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.9.4-200.fc40.x86_64 root=/dev/mapper/fedora-root ro rd.lvm.lv=fedora/root "
          "rd.luks.uuid=luks-1 rhgb quiet crashkernel=2G-64G:256M,64G-:512M hugepagesz=1G hugepages=64")


@pytest.mark.parametrize("running", [DEBIAN, FEDORA])
@pytest.mark.parametrize("architecture", sorted(APPEND))
def test_nothing_of_the_first_kernels_own_is_inherited(running: str, architecture: str) -> None:
    names = {name_of(word) for word in words(capture_cmdline(running, architecture))}
    assert not names & {"BOOT_IMAGE", "root", "ro", "crashkernel", "quiet", "splash", "rhgb", "hugepages",
                        "hugepagesz", "rd.lvm.lv", "rd.luks.uuid"}
    assert {"panic", "novmcoredd", "cgroup_disable"} <= names


def test_what_reaches_the_hardware_stays_in_its_order() -> None:
    text = capture_cmdline(DEBIAN, "x86_64")
    assert text.startswith("console=tty0 console=ttyS0,115200n8 intel_iommu=on mitigations=off nr_cpus=1 ")


def test_what_the_field_appends_on_x86_is_there() -> None:
    wanted = ("irqpoll nr_cpus=1 reset_devices cgroup_disable=memory mce=off numa=off udev.children-max=2 panic=10 "
              "acpi_no_memhotplug transparent_hugepage=never nokaslr novmcoredd hest_disable pcie_ports=compat")
    assert set(wanted.split()) <= set(words(capture_cmdline("", "x86_64")))


def test_s390_resets_no_devices_and_power_gets_sixteen_cpus() -> None:
    assert "reset_devices" not in capture_cmdline("", "s390x")
    assert value_of(capture_cmdline("", "ppc64le"), "nr_cpus") == "16"


def test_the_configuration_wins() -> None:
    text = capture_cmdline("console=ttyS0 nr_cpus=32 panic=60 isolcpus=1-3", "x86_64", append="nr_cpus=4 debug",
                           remove="mce, acpi-no-memhotplug")
    assert [word for word in words(text) if name_of(word) == "nr_cpus"] == ["nr_cpus=4"]
    assert [word for word in words(text) if name_of(word) == "panic"] == ["panic=10"]
    assert text.endswith("nr_cpus=4 debug")
    assert "mce" not in text
    assert "memhotplug" not in text


def test_a_console_that_is_appended_leaves_the_others() -> None:
    text = capture_cmdline("console=tty0", "x86_64", append="console=ttyS1")
    assert next(words(text)) == "console=tty0"
    assert text.endswith("console=ttyS1")


def test_what_was_disabled_stays_disabled() -> None:
    text = capture_cmdline("cgroup_disable=rdma", "x86_64")
    assert "cgroup_disable=rdma" in text
    assert "cgroup_disable=memory" in text


def test_quotes_protect_spaces_and_inits_arguments_are_not_the_kernels() -> None:
    running = 'dyndbg="file a.c +p" "foo=b c" root=/dev/sda1 -- crashkernel=1 single'
    assert list(words(running)) == ['dyndbg="file a.c +p"', '"foo=b c"', "root=/dev/sda1"]
    text = capture_cmdline(running, "x86_64")
    assert text.startswith('dyndbg="file a.c +p" "foo=b c" nr_cpus=1')
    assert value_of(text, "dyndbg") == "file a.c +p"


def test_dash_and_underscore_are_the_same() -> None:
    assert "log-buf-len" not in capture_cmdline("log-buf-len=16M", "x86_64")
    assert value_of("a-b=1 a_b=2", "a_b") == "2"
    assert value_of("ro", "ro") == ""
    assert value_of("ro", "rw") is None


@given(st.lists(st.sampled_from([*sorted(REMOVED), "console=ttyS0", "iommu=pt", 'x="a b"', "--"]), max_size=12))
def test_twice_is_as_once(running: list[str]) -> None:
    once = capture_cmdline(" ".join(running), "x86_64")
    assert sorted(words(capture_cmdline(once, "x86_64"))) == sorted(words(once))


def test_a_line_that_is_too_long_is_refused_with_a_word_to_leave_out() -> None:
    room = 2047 - ELFCOREHDR - 1
    check_length("x" * room, 2047)
    with pytest.raises(UsageError, match=r"too long.*1 bytes over the 2047.*such as longest"):
        check_length("a=1 longest=" + "x" * (room - 11), 2047)
