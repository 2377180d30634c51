"""A kernel's configuration: found, unpacked, read, and held against what a dump needs."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import otherhosts
from kdumpy.errors import HostError
from kdumpy.host.kernelconfig import NEEDED, config_of, missing, parse, places
from kdumpy.vm import paths

RELEASE = "6.1.0-44-amd64"
TEXT = """\
#
# Automatically generated file; DO NOT EDIT.
#
CONFIG_CRASH_DUMP=y
CONFIG_PROC_VMCORE=y
CONFIG_KEXEC_FILE=y
# CONFIG_KEXEC_SIG_FORCE is not set
CONFIG_XFS_FS=m
CONFIG_HZ=250
CONFIG_LOCALVERSION="-a\\"b\\\\c"
CONFIG_EMPTY=""
# CONFIG_WORDS are not options
garbage
"""


def test_values_are_read() -> None:
    assert parse(TEXT) == {"CONFIG_CRASH_DUMP": "y", "CONFIG_PROC_VMCORE": "y", "CONFIG_KEXEC_FILE": "y",
                           "CONFIG_KEXEC_SIG_FORCE": "n", "CONFIG_XFS_FS": "m", "CONFIG_HZ": "250",
                           "CONFIG_LOCALVERSION": '-a"b\\c', "CONFIG_EMPTY": ""}


@pytest.mark.parametrize("place", places(RELEASE))
def test_it_is_found_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    config = config_of(otherhosts.made(tmp_path, {place: TEXT}), RELEASE)
    assert config is not None
    assert config["CONFIG_HZ"] == "250"


def test_the_running_kernel_s_own_goes_first_and_is_no_other_kernel_s(tmp_path: Path) -> None:
    system = otherhosts.made(tmp_path, {"/proc/sys/kernel/osrelease": RELEASE + "\n", f"/boot/config-{RELEASE}": TEXT,
                                        "/proc/config.gz": gzip.compress(b"CONFIG_HZ=1000\n")})
    assert (config_of(system, RELEASE) or {})["CONFIG_HZ"] == "1000"
    assert config_of(system, "6.2") is None


def test_a_damaged_one_is_said(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT.encode())
    for damaged in (packed[:40], b"no gzip", packed[:20] + b"\xff" * 30):
        system = otherhosts.made(tmp_path, {"/proc/sys/kernel/osrelease": RELEASE, "/proc/config.gz": damaged})
        with pytest.raises(HostError, match=r"/proc/config\.gz"):
            config_of(system, RELEASE)


def names(text: str, architecture: str, *, capture: bool) -> set[str]:
    return {need.name for need in missing(parse(text), architecture, capture=capture) if need.required}


def test_what_is_missing_is_named_for_each_of_the_two_kernels() -> None:
    assert names(TEXT, "aarch64", capture=True) == {"CONFIG_BLK_DEV_INITRD", "CONFIG_DEVTMPFS"}
    assert names(TEXT, "x86_64", capture=True) == {"CONFIG_BLK_DEV_INITRD", "CONFIG_DEVTMPFS", "CONFIG_RELOCATABLE"}
    assert names(TEXT, "x86_64", capture=False) == {"CONFIG_SYSFS"}


def test_one_way_to_load_is_enough() -> None:
    assert "CONFIG_KEXEC_FILE" not in names("CONFIG_KEXEC=y", "x86_64", capture=False)
    assert "CONFIG_KEXEC_FILE" in names("CONFIG_KEXEC=n\n# CONFIG_KEXEC_FILE is not set", "x86_64", capture=False)


def test_debian_s_kernels_lack_nothing_that_is_required() -> None:
    """Of the real files: this machine's, and those of the laboratory's kernels."""
    found = [*Path("/boot").glob("config-*"), *paths.laboratory_home().glob("kernels/*/*/boot/config-*amd64*")]
    if not found:
        pytest.skip("there is no kernel here")
    for path in found:
        for capture in (False, True):
            assert names(path.read_text(), "x86_64", capture=capture) == set(), path


def test_every_need_has_a_meaning_and_a_name() -> None:
    assert all(need.name.startswith("CONFIG_") and need.meaning and not need.meaning.endswith(".") for need in NEEDED)
