"""The disk that stands for the host's: what is made is read back by the capture's own eyes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdumpy.capture.targets.superblock import probe
from kdumpy.image.modules import ModuleTree
from kdumpy.vm import programs, targetdisk
from kdumpy.vm.qemu import BUSES
from kdumpy.vm.targetdisk import DRIVERS, MAKERS, TargetDisk, reachable_bus

UUID = "0b1c1f0e-6b64-4d70-9000-726568656172"


@pytest.mark.parametrize("kind", MAKERS)
def test_the_file_system_has_the_hosts_uuid_and_label(kind: str, tmp_path: Path) -> None:
    if programs.find(MAKERS[kind][0]) is None:
        pytest.skip(f"{MAKERS[kind][0]} is not installed")
    disk = TargetDisk(64, kind, UUID, "crashes", "nvme").make(tmp_path / "disk")
    found = probe(disk.path)
    assert (found.kind, found.uuid, found.label) == (kind, UUID, "crashes")
    assert disk.bus == "nvme"


def test_every_bus_has_its_drivers() -> None:
    assert DRIVERS.keys() == BUSES.keys()


@pytest.fixture
def _all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    names = " ".join(f"{' '.join(controllers)} {device}" for controllers, device in BUSES.values())
    monkeypatch.setattr(targetdisk, "qemu_devices", lambda: frozenset(re.findall(r"[\w-]+", names)))


@pytest.mark.usefixtures("_all_devices")
@pytest.mark.parametrize(("modules", "bus"), [
    ({"nvme", "nvme_core", "ext4"}, "nvme"),
    ({"ahci", "libahci", "libata", "sd_mod"}, "ahci"),
    ({"virtio_blk", "virtio_pci", "nvme"}, "virtio-blk"),
    ({"megaraid_sas", "sd_mod"}, "megasas"),
    ({"mpt3sas", "sd_mod"}, None),
    ({"virtio_blk"}, None),
])
def test_the_disk_hangs_on_a_bus_that_the_image_drives(modules: set[str], bus: str | None) -> None:
    assert reachable_bus(modules) == bus


def test_a_bus_that_this_qemu_lacks_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targetdisk, "qemu_devices", lambda: frozenset({"ich9-ahci", "ide-hd"}))
    assert reachable_bus({"nvme", "ahci", "sd_mod"}) == "ahci"


@pytest.mark.usefixtures("_all_devices")
def test_a_kernels_built_in_drivers_count(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/drivers/block/virtio_blk.ko:\n")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    assert reachable_bus(ModuleTree(tmp_path)) == "virtio-blk"
