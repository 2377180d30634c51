"""The capture image that `kdumpy image` builds for a host, booted by a crash: the dump lies where the host said.

The host is a recorded one (tests/data/hosts/stacked): what a running system shows of its disks. The guest has such a
disk, and nothing else tells its capture kernel what to load.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

import lab
from kdumpy.dumpfile import open_dump
from kdumpy.host import images, settings
from kdumpy.host.system import System
from kdumpy.image.capture import Built
from kdumpy.vm import guest
from kdumpy.vm.capturing import OUT
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.trial import Builder, Trial, crash
from recordedhost import put, recorded

UUID = "33333333-2222-4333-8444-000000000000"

DISKS = {"virtio-blk": ("254:1", "/dev/vda1"), "nvme": ("259:0", "/dev/nvme0n1"), "virtio-scsi": ("8:16", "/dev/sdb")}
"""QEMU's bus → the recorded disk on such a one."""

full = pytest.mark.skipif(not lab.FULL, reason="KDUMPY_MATRIX=full")


def host(root: Path, kernel: Kernel, bus: str) -> System:
    """Return the recorded host with a kernel of the laboratory and a directory of a disk on the bus bound to /srv."""
    number, node = DISKS[bus]
    system = recorded(root, contents={number: ("ext4", UUID)})
    mounts = root / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text() + f"90 1 {number} /dumps /srv rw,relatime - ext4 {node} rw\n")
    put(root, "proc/sys/kernel/osrelease", kernel.release)
    shutil.copy(str(shutil.which("busybox")), put(root, "usr/bin/busybox", b""))
    modules = put(root, f"lib/modules/{kernel.release}", b"")
    modules.unlink()
    modules.symlink_to(os.path.relpath(kernel.modules.directory.resolve(), modules.parent.resolve()))
    return system


def builder(root: Path, bus: str, text: str) -> Builder:
    def build(kernel: Kernel, path: Path) -> Built:
        made = images.build(host(root, kernel, bus), settings.parse(text), kernel.release, output=path)
        assert made.builder == "builtin"
        assert path.stat().st_mode & 0o777 == 0o600
        return Built(path, made.bytes, made.unpacked, made.modules)
    return build


@pytest.mark.parametrize("bus", ["virtio-blk", pytest.param("nvme", marks=full),
                                 pytest.param("virtio-scsi", marks=full)])
def test_a_crash_arrives_on_the_host_s_own_disk(tmp_path: Path, bus: str) -> None:
    text = '[capture]\ntargets = ["/srv/crash"]\nfinal_action = "poweroff"\npath_name = "laboratory"\n'
    done: Trial = crash(tmp_path, builder(tmp_path / "host", bus, text), {OUT: 800}, crashkernel="160M", bus=bus,
                        uuids={OUT: UUID})
    saved = re.search(rf"^kdumpy: saved UUID={UUID}: /(dumps/crash/laboratory-\S+/vmcore)", done.console, re.M)
    assert saved, done.steps
    guest.fetch(done.disks[OUT], saved[1], tmp_path / "vmcore")
    with open_dump(tmp_path / "vmcore") as dump:
        assert "cloud" in dump.vmcoreinfo.osrelease
