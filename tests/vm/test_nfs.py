"""NFS for real: a guest with kdumpy's own image mounts a server that runs here, and saves a crash there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
from kdumpy.capture.config import render
from kdumpy.image import capture, python
from kdumpy.image.capture import Contents
from kdumpy.vm import kernels
from kdumpy.vm.qemu import Hardware, Machine
from nfsserver import HOST, NfsServer, serving
from saving import assert_is_the_dump, config

GUEST = """#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
mkdir -p -m 700 /run/kdumpy
exec </dev/console >/dev/console 2>&1
while read -r module; do insmod "$module"; done </lib/modules/load-order
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
KDUMPY_VMCORE=/vmcore /usr/lib/kdumpy/ladder
echo "GUEST ladder ended with $?, mounted: $(grep -c /run/kdumpy /proc/mounts)"
poweroff -f
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NfsServer]:
    with serving(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> python.PythonTree:
    return python.build(tmp_path_factory.mktemp("python"), network="none")


@pytest.mark.parametrize("path", ["/srv", "/srv/by/host"])
def test_a_crash_is_saved_over_nfs(server: NfsServer, carried: python.PythonTree, tmp_path: Path, path: str) -> None:
    kernel = kernels.get("6.1")
    settings = config(targets=[f"nfs://{HOST}:{server.port}{path}"], sha256=True, path_name="guest", device_wait_s=30)
    contents = Contents(render(settings), modules=("virtio_pci", "virtio_net", "nfsv4"),
                        files={"bin/guest": GUEST.encode(), "vmcore": lab.bundled()})
    image = tmp_path / "image"
    capture.build(kernel.modules, carried, contents, image)
    hardware = Hardware(kernel.image, image, "console=ttyS0 rdinit=/bin/guest quiet", 1024,
                        extra=("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"))
    with Machine(hardware, tmp_path / "console") as machine:
        machine.wait_for(r"GUEST ladder ended with 0, mounted: 0", 180, (r"GUEST ladder ended", "Kernel panic"))
        machine.wait_end(30)
    crashes = list((server.folder / path.removeprefix("/srv").strip("/")).iterdir())
    assert [crash.name[:11] for crash in crashes] == ["guest-2026-"]
    found = sorted(file.name for file in crashes[0].iterdir())
    assert found == ["kexec-dmesg.log", "vmcore", "vmcore-dmesg.txt", "vmcore.sha256"]
    assert_is_the_dump(crashes[0] / "vmcore")
    assert subprocess.run(["sha256sum", "-c", "vmcore.sha256"], cwd=crashes[0], check=False).returncode == 0
    assert "nfs://" in (crashes[0] / "kexec-dmesg.log").read_text()
    assert crashes[0].stat().st_mode & 0o777 == 0o700
