"""Where a directory lies, on a recorded host: partition, bind mount, LVM on RAID, LUKS, multipath, btrfs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.host import storage
from kdumpy.host.drivers import Drivers, drivers_of
from kdumpy.host.storage import find_device, place_of
from recordedhost import RecordedSystem, put, recorded

ID = "11111111-2222-4333-8444-00000000000"


def link(path: Path, to: Path) -> None:
    """Make a link as /sys has them: relative."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(to, path.parent))


@pytest.fixture
def host(tmp_path: Path) -> RecordedSystem:
    return recorded(tmp_path)


@pytest.mark.parametrize(("path", "url", "kinds", "modules"), [
    ("/a/var/crash", f"disk:UUID={ID}0/var/crash", (), ("virtio_pci", "virtio_blk")),
    ("/f/not yet", f"disk:UUID={ID}0/srv/not%20yet", (), ("virtio_pci", "virtio_blk")),
    ("/b", f"disk:UUID={ID}1", ("raid", "lvm"), ("ahci", "sd_mod", "virtio_pci", "virtio_scsi")),
    ("/c/d", f"disk:UUID={ID}2/d", ("luks",), ("nvme",)),
    ("/d", f"disk:UUID={ID}3", ("multipath",), ("xhci_pci", "usbcore", "usb_storage", "sd_mod")),
    ("/e/crash", f"disk:UUID={ID}4/@var/crash", (), ("xhci_pci", "usbcore", "usb_storage", "sd_mod")),
], ids=["partition", "bind", "lvm", "luks", "multipath", "btrfs"])
def test_a_directory_becomes_a_path_on_a_disk(host: RecordedSystem, path: str, url: str, kinds: tuple[str, ...],
                                              modules: tuple[str, ...]) -> None:
    place = place_of(host, path)
    assert place.device is not None
    assert place.url() == url
    assert place.device.kinds() == kinds
    assert place.device.drivers.modules == modules


def test_layers_are_told_with_their_names(host: RecordedSystem) -> None:
    device = place_of(host, "/b").device
    assert device is not None
    assert [(layer.name, layer.kind, layer.detail) for layer in device.layers] == [
        ("dm-0", "lvm", "vg--0-var--crash"), ("md0", "raid", "raid1"), ("sda", "disk", ""), ("sdb", "disk", "")]


def test_a_link_is_followed_before_it_is_looked_where_it_lies(host: RecordedSystem) -> None:
    (host.root / "var").mkdir()
    (host.root / "var" / "crash").symlink_to("../b")
    assert place_of(host, "/var/crash/today").url() == f"disk:UUID={ID}1/today"


def test_what_is_mounted_last_on_a_directory_is_meant(host: RecordedSystem) -> None:
    mounts = host.root / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text() + "40 27 254:1 /over /b rw - ext4 /dev/vda1 rw\n")
    assert place_of(host, "/b").url() == f"disk:UUID={ID}0/over"


def test_a_directory_of_a_server_is_a_target_of_the_network(host: RecordedSystem) -> None:
    mounts = host.root / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text() + "40 1 0:50 / /srv\\040x rw - nfs4 filer:/export/logs rw,vers=4.2\n")
    assert place_of(host, "/srv x/crash").url() == "nfs://filer/export/logs/crash"


@pytest.mark.parametrize(("line", "words"), [
    ("40 1 0:50 / /srv rw - tmpfs tmpfs rw", "tmpfs"), ("40 1 0:50 / /srv rw - zfs rpool/srv rw", "zfs"),
    ("40 1 254:1 / /srv rw - xfs /dev/vda1 rw,logdev=/dev/sdc", "logdev=/dev/sdc"),
    ("40 1 250:9 / /srv rw - ext4 /dev/gone rw", "cannot find the device")])
def test_what_a_capture_kernel_cannot_mount_is_refused_with_the_reason(host: RecordedSystem, line: str,
                                                                       words: str) -> None:
    mounts = host.root / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text() + line + "\n")
    with pytest.raises(HostError, match=words):
        place_of(host, "/srv")


def test_a_file_system_is_known_by_its_own_bytes_where_they_can_be_read(host: RecordedSystem) -> None:
    image = put(host.root, "dev/vda1", b"")
    image.write_bytes(bytes(16 << 20))
    own = "22222222-2222-4333-8444-000000000009"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-U", own, image], check=True)
    assert place_of(host, "/a").url() == f"disk:UUID={own}"
    subprocess.run(["mkswap", "--quiet", image], check=True)
    image.write_bytes(image.read_bytes()[:0x400] + bytes(0x800) + image.read_bytes()[0xc00:])
    with pytest.raises(HostError, match="swap where ext4 is mounted"):
        place_of(host, "/a")


def test_a_btrfs_on_several_devices_needs_them_all(host: RecordedSystem) -> None:
    folder = host.root / f"sys/fs/btrfs/{ID}4/devices"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("sdd", "nvme0n1"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"../../../../class/block/{name}")
    device = place_of(host, "/e").device
    assert device is not None
    assert device.kinds() == ("btrfs-devices",)
    assert {"nvme", "usb_storage"} <= set(device.drivers.modules)


@pytest.mark.parametrize(("text", "name", "rest"), [
    (f"UUID={ID}2", "dm-1", ""), (f"UUID={ID}0".upper(), "vda1", ""),
    ("PARTUUID=6b647079-01", "vda1", ""), ("/dev/mapper/safe/dumps/here", "dm-1", "/dumps/here")])
def test_a_device_is_found_by_what_people_call_it(host: RecordedSystem, text: str, name: str, rest: str) -> None:
    udev = host.root / "run/udev/data/b254:1"
    udev.write_text(udev.read_text() + "E:ID_PART_ENTRY_UUID=6b647079-01\n")
    put(host.root, "dev/dm-1", b"")
    (host.root / "dev/mapper").mkdir(parents=True)
    (host.root / "dev/mapper/safe").symlink_to("../dm-1")
    found = find_device(host, text)
    assert (found.name, found.rest) == (name, rest)
    # The 6.1 kernel does not tell a partition's UUID: without udev nobody finds it by that.
    assert found.kernel_knows == (not text.startswith("PARTUUID"))


def test_a_device_that_is_not_there_is_an_error(host: RecordedSystem) -> None:
    with pytest.raises(HostError, match="not there"):
        find_device(host, "LABEL=elsewhere")


@pytest.mark.parametrize(("where", "kind"), [
    ("sys/devices/platform/host9/session1/target9:0:0/9:0:0:0/block/sdz", "iscsi"),
    ("sys/devices/virtual/nvme-subsystem/nvme-subsys7/nvme7n1", "nvme-tcp")])
def test_a_disk_behind_a_network_is_told(host: RecordedSystem, where: str, kind: str) -> None:
    disk = host.root / where
    disk.mkdir(parents=True)
    if "nvme" in kind:
        controller = put(host.root, "sys/devices/virtual/nvme-fabrics/ctl/nvme7/transport", "tcp\n").parent
        link(disk.parent / "nvme7", controller)
    link(host.root / "sys/class/block" / disk.name, disk)
    assert storage.device_of(host, disk.name).kinds() == (kind,)


def test_native_nvme_multipathing_hides_the_bus_and_it_is_found_all_the_same(host: RecordedSystem) -> None:
    head = host.root / "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme9n1"
    head.mkdir(parents=True)
    link(head.parent / "nvme0", host.root / "sys/devices/pci0000:00/0000:00:03.0/nvme/nvme0")
    link(host.root / "sys/class/block/nvme9n1", head)
    device = storage.device_of(host, "nvme9n1")
    assert device.kinds() == ()
    assert device.drivers.modules == ("nvme",)


def test_suppliers_of_a_device_are_among_its_drivers(host: RecordedSystem) -> None:
    controller = host.root / "sys/devices/pci0000:00/0000:00:03.0"
    clock = put(host.root, "sys/devices/platform/clk/modalias", "of:Nclk\n").parent
    put(host.root, "sys/bus/platform/drivers/clk_x/uevent", "")
    (host.root / "sys/module/clk_x").mkdir(parents=True)
    link(host.root / "sys/bus/platform/drivers/clk_x/module", host.root / "sys/module/clk_x")
    link(clock / "driver", host.root / "sys/bus/platform/drivers/clk_x")
    between = host.root / "sys/devices/virtual/devlink/platform:clk--pci:0000:00:03.0"
    link(between / "supplier", clock)
    link(controller / "supplier:platform:clk", between)
    assert "clk_x" in drivers_of(host, "/sys/class/block/nvme0n1").modules


def test_drivers_add_up_without_repeating() -> None:
    both = Drivers(("a", "b"), ("x",)).plus(Drivers(("b", "c"), ("x", "y"), ("z",)))
    assert both == Drivers(("a", "b", "c"), ("x", "y"), ("z",))
