"""The disk that stands for the host's in a rehearsal: the same file system, UUID and label, on a bus that QEMU has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from kdumpy.image.modules import ModuleTree
from kdumpy.vm.packages import run
from kdumpy.vm.qemu import BUSES, Disk, qemu_devices

SERIAL = "target"

DRIVERS: dict[str, tuple[str, ...]] = {
    "virtio-blk": ("virtio_pci", "virtio_blk"),
    "nvme": ("nvme",),
    "ahci": ("ahci", "sd_mod"),
    "virtio-scsi": ("virtio_pci", "virtio_scsi", "sd_mod"),
    "pvscsi": ("vmw_pvscsi", "sd_mod"),
    "megasas": ("megaraid_sas", "sd_mod"),
    "piix": ("ata_piix", "sd_mod"),
}
"""A bus of qemu.BUSES → the kernel's modules that reach a disk on it; the quickest bus first."""

EXT = ("ext4", "ext3", "ext2")
MAKERS: dict[str, tuple[str, ...]] = {
    **{kind: ("mke2fs", "-q", "-F", "-t", kind) for kind in EXT},
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
"""A file system that can be made → what makes it; all of them take a label by -L."""

_SMALLEST = {"xfs": 320, "btrfs": 128}
"""MiB that a file system must have."""

_UUID = {"xfs": ("-m", "uuid={}"), "btrfs": ("-U", "{}")}


@dataclass(frozen=True)
class TargetDisk:
    """What is made."""

    mib: int
    """Its size; a file with holes."""
    filesystem: str = "ext4"
    """A key of MAKERS."""
    uuid: str = ""
    """Empty: any."""
    label: str = ""
    bus: str = "virtio-blk"
    """A key of qemu.BUSES."""

    def make(self, path: Path) -> Disk:
        """Make it in a file.

        Raises:
            LaboratoryError: the program for this file system is missing, or refuses.
        """
        with path.open("wb") as file:
            file.truncate(max(self.mib, _SMALLEST.get(self.filesystem, 0)) << 20)
        named = ["-L", self.label] if self.label else []
        if self.uuid:
            named += [word.format(self.uuid) for word in _UUID.get(self.filesystem, ("-U", "{}"))]
        run([*MAKERS[self.filesystem], *named, str(path)], "making a disk")
        return Disk(path, SERIAL, self.bus)


def reachable_bus(drivers: Collection[str] | ModuleTree) -> str | None:
    """Return the bus whose drivers are all among these modules (or built into the kernel), and that QEMU has.

    Args:
        drivers: names of modules, with `_` for `-`; or a kernel's tree.
    """
    devices = qemu_devices()
    for bus, needed in DRIVERS.items():
        controllers, device = BUSES[bus]
        if not {text.partition(",")[0] for text in (*controllers, device)} <= devices:
            continue
        if isinstance(drivers, ModuleTree):
            if all(drivers.has(name) for name in needed):
                return bus
        elif set(needed) <= set(drivers):
            return bus
    return None
