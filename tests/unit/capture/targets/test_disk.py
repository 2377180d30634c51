"""A disk that the capture mounts itself, and how devices and what lies on them are recognised."""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpy.capture.targets import devices, mounting, superblock, target_of
from kdumpy.errors import HostError, UsageError
from saving import assert_is_the_dump, config, need_program, run, save_dump

UUID = str(uuid.uuid4())
"""Not a fixed one: a device that a former run left would have it too."""

Loop = Callable[[int], Path]


def mkfs(device: Path, label: str = "crash dumps", kind: str = "ext4") -> None:
    need_program(f"mkfs.{kind}")
    run(f"mkfs.{kind}", "-q", "-F", "-L", label, "-U", UUID, device)


@pytest.fixture
def disk(loop: Loop) -> Path:
    device = loop(96)
    mkfs(device)
    return device


@pytest.mark.parametrize("name", [f"UUID={UUID}", f"UUID={UUID.upper()}", "LABEL=crash%20dumps", "{}"],
                         ids=["UUID", "UUID in capitals", "LABEL", "device"])
def test_a_disk_is_mounted_by_any_of_its_names(disk: Path, name: str, tmp_path: Path) -> None:
    target = target_of(f"disk:{name.format(disk)}/var/crash", config(), "here")
    target.prepare()
    assert len(mounting.mounted_at(disk)) == 1
    assert save_dump(target) == "vmcore"
    assert target.place("vmcore").endswith(": /var/crash/here/vmcore")
    target.close()
    assert mounting.mounted_at(disk) == []
    run("mount", "-o", "ro", disk, tmp_path)
    try:
        assert_is_the_dump(tmp_path / "var" / "crash" / "here" / "vmcore")
    finally:
        run("umount", tmp_path)


def test_the_disk_s_own_root_can_be_the_directory(disk: Path) -> None:
    target = target_of(f"disk:{disk}", config(), "here")
    target.prepare()
    target.put("vmcore-dmesg.txt", b"log")
    target.close()
    assert b"log" in run("debugfs", "-R", "cat /here/vmcore-dmesg.txt", disk)


def test_a_disk_that_is_mounted_elsewhere_serves_too(disk: Path, tmp_path: Path) -> None:
    run("mount", disk, tmp_path)
    try:
        target = target_of(f"disk:{disk}/crash", config(), "here")
        target.prepare()
        target.put("vmcore-dmesg.txt", b"log")
        target.close()
        assert (tmp_path / "crash" / "here" / "vmcore-dmesg.txt").read_bytes() == b"log"
    finally:
        run("umount", tmp_path)


def test_a_disk_that_never_appears_is_told_with_those_that_are_there(disk: Path) -> None:
    target = target_of("disk:UUID=11111111-2222-3333-4444-555555555555/x", config(device_wait_s=1), "here")
    before = time.monotonic()
    with pytest.raises(HostError, match=f"did not appear.*waited 1 s; there are .*{disk.name}"):
        target.prepare()
    assert 1 <= time.monotonic() - before < 10


def test_a_disk_that_appears_late_is_waited_for(loop: Loop) -> None:
    device = loop(32)
    target = target_of(f"disk:UUID={UUID}", config(device_wait_s=30), "here")
    late = threading.Timer(1.0, mkfs, (device,))
    late.start()
    try:
        target.prepare()
        target.close()
    finally:
        late.join()


def test_a_device_without_a_file_system_is_told(loop: Loop) -> None:
    with pytest.raises(HostError, match="nothing on it was recognised"):
        target_of(f"disk:{loop(16)}/x", config(), "here").prepare()


def test_a_damaged_file_system_is_told_in_mount_s_words_and_leaves_nothing(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(1024 + 0x10)      # counts of free blocks and inodes, and what follows
        file.write(b"\xff" * 16)
    before = sorted(mounting.MOUNTS.iterdir()) if mounting.MOUNTS.exists() else []
    with pytest.raises(HostError, match="cannot mount the target"):
        target_of(f"disk:{disk}/x", config(), "here").prepare()
    assert sorted(mounting.MOUNTS.iterdir()) == before


def test_a_link_that_leads_out_of_the_disk_is_refused(disk: Path, tmp_path: Path) -> None:
    run("mount", disk, tmp_path)
    (tmp_path / "crash").symlink_to("/")
    run("umount", tmp_path)
    with pytest.raises(HostError, match="leads out of the file system"):
        target_of(f"disk:{disk}/crash", config(), "here").prepare()
    assert mounting.mounted_at(disk) == []


def test_names_of_devices() -> None:
    assert devices.split("UUID=1-2/var/crash") == ("UUID=1-2", "/var/crash")
    assert devices.split("LABEL=%2Fboot") == ("LABEL=/boot", "")
    assert devices.split("/dev/vg/lv/dir") == ("/dev/vg/lv/dir", "")
    for wrong in ("sda1", "ID=3/x", ""):
        with pytest.raises(UsageError):
            devices.split(wrong)
    assert devices.find("/dev/no/such/device") is None


@pytest.mark.parametrize(("kind", "command"), [
    ("ext2", ["mkfs.ext2", "-q", "-F", "-L", "name", "-U", UUID]),
    ("ext3", ["mkfs.ext3", "-q", "-F", "-L", "name", "-U", UUID]),
    ("ext4", ["mkfs.ext4", "-q", "-F", "-L", "name", "-U", UUID]),
    ("xfs", ["mkfs.xfs", "-q", "-f", "-L", "name", "-m", f"uuid={UUID}"]),
    ("btrfs", ["mkfs.btrfs", "-q", "-f", "-L", "name", "-U", UUID]), ("f2fs", ["mkfs.f2fs", "-q", "-l", "name"]),
    ("vfat", ["mkfs.vfat", "-n", "NAME", "-i", "12345678"]), ("swap", ["mkswap", "-q", "-L", "name"]),
    ("crypto_LUKS", ["cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]),
    ("gpt", ["sgdisk", "-n", "1:2048:4096"]), ("squashfs", ["mksquashfs", "/etc/hostname"]),
])
def test_what_lies_on_a_device_is_named_as_blkid_does(tmp_path: Path, kind: str, command: list[str]) -> None:
    need_program(command[0])
    file = tmp_path / "image"
    with file.open("wb") as out:
        out.truncate(400 << 20)
    data = b"secret" if kind == "crypto_LUKS" else None
    if kind == "squashfs":
        run(*command, file, "-quiet", "-noappend")
    else:
        run(*command, file, data=data)
    found = superblock.probe(file)
    assert found.kind == kind
    told = dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", file).decode().splitlines())
    assert kind == told.get("TYPE", told.get("PTTYPE"))
    if kind in superblock.MOUNTABLE or kind == "vfat":
        assert found.uuid == told["UUID"]
        assert found.label == told["LABEL"].replace("\\", "")


def test_a_blank_device_is_told_from_one_with_something(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(bytes(1 << 20))
    assert superblock.probe(file) == superblock.Content("", blank=True)
    file.write_bytes(bytes(50000) + b"x" + bytes(1 << 20))
    assert superblock.probe(file) == superblock.Content("")


def test_a_member_of_an_array_is_known_by_its_end(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(bytes((1 << 20) - 8192) + b"\xfc\x4e\x2b\xa9" + bytes(8188))
    assert superblock.probe(file).kind == "linux_raid_member"


def test_the_programs_that_are_needed_are_there() -> None:
    for program in mounting.PROGRAMS:
        assert subprocess.run([program, "--version"], check=False, capture_output=True).returncode == 0


def test_a_path_counts_from_the_top_of_a_btrfs_whatever_it_mounts_by_itself(loop: Loop, tmp_path: Path) -> None:
    need_program("mkfs.btrfs")
    device = loop(120)
    run("mkfs.btrfs", "-q", "-f", "-U", UUID, device)
    run("mount", device, tmp_path)
    try:
        run("btrfs", "subvolume", "create", tmp_path / "@")
        run("btrfs", "subvolume", "set-default", tmp_path / "@")
    finally:
        run("umount", tmp_path)
    target = target_of(f"disk:UUID={UUID}/@/var/crash", config(), "here")
    target.prepare()
    target.put("vmcore-dmesg.txt", b"log")
    target.close()
    run("mount", device, tmp_path)      # the subvolume, as it is the one by default
    try:
        assert (tmp_path / "var" / "crash" / "here" / "vmcore-dmesg.txt").read_bytes() == b"log"
    finally:
        run("umount", tmp_path)
