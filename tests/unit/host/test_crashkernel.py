"""crashkernel=: read as the kernel reads it, advised by architecture, memory and what a rehearsal measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.errors import UsageError
from kdumpy.host import crashkernel
from kdumpy.host.crashkernel import GIB, MIB, PACKAGED, TABLE, Advice, advise, effective, parse, size_for
from kdumpy.host.distribution import Distribution
from kdumpy.host.machine import Machine
from kdumpy.host.settings import Settings

DEBIAN = Distribution(id="debian", like=(), name="Debian", version="12", package_manager="apt",
                      generator="initramfs-tools")
MACHINE = Machine(distribution=DEBIAN, architecture="x86_64", release="6.1.0-44-amd64", cmdline="ro quiet",
                  memory_bytes=16 * GIB, cpus=4, boot_loader="grub", generator="initramfs-tools", secure_boot=False,
                  lockdown="", virtualization="", container="")
AUTO = Settings()
RHEL = "1G-4G:192M,4G-64G:256M,64G-:512M"


@pytest.mark.parametrize(("text", "memory", "size"), [
    ("256M", GIB, 256 * MIB), ("0x10000000", GIB, 256 * MIB), ("1g", GIB, GIB), ("262144k", GIB, 256 * MIB),
    ("010M", GIB, 8 * MIB), ("256M@16M", GIB, 256 * MIB), ("512M,high", GIB, 512 * MIB), ("72M,low", GIB, 72 * MIB),
    ("1G,cma", GIB, GIB), (RHEL, GIB, 192 * MIB), (RHEL, 4 * GIB, 256 * MIB), (RHEL, 64 * GIB, 512 * MIB),
    (RHEL, 512 * MIB, 0), ("384M-:128M", 8 * GIB, 128 * MIB), ("2G-64G:256M,64G-:512M@32M", 3 * GIB, 256 * MIB)])
def test_a_size_is_what_the_kernel_reserves(text: str, memory: int, size: int) -> None:
    assert size_for(text, memory) == size


def test_memory_is_rounded_up_before_ranges_are_looked_at() -> None:
    assert size_for(RHEL, 4 * GIB - 100 * MIB) == 256 * MIB
    assert size_for(RHEL, 4 * GIB - 128 * MIB) == 192 * MIB


@pytest.mark.parametrize("text", ["", "M", "256X", "256M,far", "auto", "256M,", "2G:256M", "4G-2G:256M", "2G-2G:1M",
                                  "2G-4G:", "2G-4G:256M,", "256M@", "512M,high@16M", "08M", "-1M", "256 M"])
def test_what_the_kernel_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="as the kernel takes it"):
        parse(text)


@given(st.text(st.sampled_from("0123456789MGKx-:,@highlowcma"), max_size=25), st.integers(0, 1 << 50))
def test_any_text_is_read_or_refused(text: str, memory: int) -> None:
    with contextlib.suppress(UsageError):
        assert size_for(text, memory) >= 0


@pytest.mark.parametrize(("cmdline", "size"), [
    ("ro", 0), ("crashkernel=256M", 256), ("crashkernel=128M ro crashkernel=256M", 256),
    ("crashkernel=512M,high crashkernel=72M,low", 512), ("crashkernel=256M crashkernel=512M,high", 256),
    ("crashkernel=auto", 0), ("crashkernel=64G-:512M crashkernel=1G,high", 1024), ("crashkernel=1G,cma", 0)])
def test_a_command_line_reserves_what_its_last_plain_value_says(cmdline: str, size: int) -> None:
    assert effective(cmdline, 16 * GIB) == size * MIB


@pytest.mark.parametrize(("architecture", "memory", "value"), [
    ("x86_64", GIB, "192M"), ("x86_64", 2 * GIB, "256M"), ("x86_64", 64 * GIB, "512M"), ("x86_64", 256 * MIB, "192M"),
    ("aarch64", 8 * GIB, "320M"), ("s390x", 8 * GIB, "192M"), ("ppc64le", 200 * GIB, "4096M"),
    ("riscv64", 8 * GIB, "384M")])
def test_the_table_goes_by_architecture_and_memory(architecture: str, memory: int, value: str) -> None:
    advice = advise(replace(MACHINE, architecture=architecture, memory_bytes=memory), AUTO)
    assert (advice.value, advice.keep) == (value, False)
    assert architecture in advice.why


def test_pages_of_64_kib_need_more() -> None:
    machine = replace(MACHINE, architecture="aarch64", release="5.14.0-503.el9.aarch64+64k")
    assert advise(machine, AUTO).value == "432M"


@pytest.mark.parametrize("table", [*TABLE.values(), crashkernel.OTHERS])
def test_the_table_is_in_steps_and_grows(table: str) -> None:
    ranges = parse(table).ranges
    assert all(one.size % crashkernel.STEP == 0 for one in ranges)
    assert [one.size for one in ranges] == sorted(one.size for one in ranges)
    assert all(one.end == later.start for one, later in pairwise(ranges))
    assert ranges[-1].end is None


def test_a_measured_need_raises_it_and_never_lowers_it() -> None:
    advice = advise(MACHINE, AUTO, 300 * MIB)
    assert advice.value == "304M"
    assert "a rehearsal needed 300.0 MiB" in advice.why
    assert advise(MACHINE, AUTO, 100 * MIB).value == "256M"


def test_what_the_configuration_says_is_taken_and_checked() -> None:
    advice = advise(MACHINE, replace(AUTO, crashkernel="128M"), 200 * MIB)
    assert advice.value == "128M"
    assert any("a rehearsal needed 200.0 MiB, and 128.0 MiB are reserved" in one for one in advice.warnings)
    with pytest.raises(UsageError, match="as the kernel takes it"):
        advise(MACHINE, replace(AUTO, crashkernel="lots"))


def test_a_high_and_a_low_part_go_together() -> None:
    advice = advise(MACHINE, replace(AUTO, crashkernel="128M,low 512M,high"))
    assert (advice.value, advice.warnings) == ("512M,high 128M,low", ())
    assert crashkernel.spelled(advice.value) == "crashkernel=512M,high crashkernel=128M,low"
    assert crashkernel.size_for("512M,high 128M,low", MACHINE.memory_bytes) == 512 * MIB
    small = advise(MACHINE, replace(AUTO, crashkernel="64M,high 0,low"))
    assert any("less than the advised" in one for one in small.warnings)
    assert any("nothing below 4 GiB" in one for one in small.warnings)
    for wrong in ("512M 128M,low", "512M,high 128M,high", "512M,high 128M,cma", "1M,high 2M,low 3M,low"):
        with pytest.raises(UsageError, match="go together"):
            crashkernel.read(wrong)


def test_what_was_set_by_hand_stays_and_too_little_is_said() -> None:
    advice = advise(MACHINE, AUTO, next_cmdline="ro crashkernel=128M")
    assert (advice.value, advice.keep) == ("128M", True)
    assert any("less than the advised 256.0 MiB" in one and "--crashkernel 256M" in one for one in advice.warnings)
    several = advise(MACHINE, AUTO, next_cmdline="crashkernel=303M,high crashkernel=72M,low crashkernel=auto")
    assert (several.value, several.keep, several.warnings) == ("303M,high 72M,low", True, ())
    plenty = advise(MACHINE, AUTO, next_cmdline="ro crashkernel=1G")
    assert (plenty.value, plenty.keep, plenty.warnings) == ("1G", True, ())


@pytest.mark.parametrize("advised", [
    lambda: advise(MACHINE, replace(AUTO, crashkernel="256M"), image=1124 * MIB),
    lambda: advise(MACHINE, AUTO, next_cmdline="ro crashkernel=256M", image=1124 * MIB)])
def test_what_opens_the_target_is_held_against_what_was_set_by_hand(advised: Callable[[], Advice]) -> None:
    (warning,) = advised().warnings
    assert "less than the advised 1.1 GiB" in warning
    assert "what opens the target take about 1.1 GiB" in warning


def test_what_kdumpy_or_a_package_set_is_raised() -> None:
    assert advise(MACHINE, AUTO, 500 * MIB, next_cmdline="crashkernel=256M", ours=True).value == "512M"
    raised = advise(MACHINE, AUTO, next_cmdline=f"crashkernel={PACKAGED[0]}")
    assert (raised.value, raised.keep) == ("256M", False)
    enough = advise(MACHINE, AUTO, next_cmdline=f"crashkernel={PACKAGED[2]}")
    assert (enough.value, enough.keep) == (PACKAGED[2], True)


def test_what_is_there_already_is_kept() -> None:
    advice = advise(MACHINE, AUTO, next_cmdline="crashkernel=256M", ours=True)
    assert (advice.value, advice.keep) == ("256M", True)


def test_what_reserves_nothing_is_no_choice() -> None:
    for cmdline in ("crashkernel=auto", "crashkernel=64G-:512M", "crashkernel=1G,cma"):
        advice = advise(MACHINE, AUTO, next_cmdline=cmdline)
        assert (advice.value, advice.keep) == ("256M", False), cmdline


def test_without_a_next_command_line_the_running_one_counts() -> None:
    assert advise(replace(MACHINE, cmdline="crashkernel=1G"), AUTO).keep


@pytest.mark.parametrize(("value", "architecture", "said"), [
    ("1G,cma", "x86_64", "lends the memory"), ("128M,low", "x86_64", "beside crashkernel=…,high"),
    ("512M,high", "s390x", "not known on s390x"), ("256M@16M", "x86_64", "fails where anything else lies"),
    ("64G-:512M", "x86_64", "nothing is reserved"), ("5G", "x86_64", "takes 5.0 GiB of the machine's 16.0 GiB")])
def test_what_is_doubtful_is_warned_of(value: str, architecture: str, said: str) -> None:
    advice = advise(replace(MACHINE, architecture=architecture), replace(AUTO, crashkernel=value))
    assert any(said in warning for warning in advice.warnings)


def test_a_sound_value_is_not_warned_of() -> None:
    for value in ("256M", "512M,high", RHEL):
        assert advise(MACHINE, replace(AUTO, crashkernel=value)).warnings == ()
