"""A capture image for a kernel that has none on this machine: kdumpy's own, for a disk that the guest can have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import HostError
from kdumpy.image import capture
from kdumpy.image.capture import Built, Contents
from kdumpy.image.modules import ModuleTree
from kdumpy.vm import capturing, programs
from kdumpy.vm.targetdisk import DRIVERS, MAKERS, TargetDisk, reachable_bus

UUID = "7b1c1f0e-6b64-4d70-8000-726568656172"
"""Of the guest's disk: any would do."""


@dataclass(frozen=True)
class StandIn:
    """An image, and the disk that it saves to."""

    built: Built
    disk: TargetDisk


def build(modules: ModuleTree, path: Path, *, disk_mib: int, level: int = 31, compress: str = "zstd") -> StandIn:
    """Write a capture image for the kernel that the modules belong to.

    Raises:
        HostError: the kernel reaches no disk that QEMU has, or no file system that can be made here.
    """
    bus = reachable_bus(modules)
    if bus is None:
        raise HostError("the kernel reaches no disk of a virtual machine", where=str(modules.directory),
                        why="it has none of " + ", ".join(names[-1] for names in DRIVERS.values()))
    kinds = [kind for kind, maker in MAKERS.items() if programs.find(maker[0])]
    filesystem = next((kind for kind in kinds if modules.has(kind)), None)
    if filesystem is None:
        raise HostError("the kernel has no file system that can be made here", where=str(modules.directory),
                        why=", ".join(kinds) or "no mkfs is installed", mend="install e2fsprogs or xfsprogs")
    text = capturing.config([f"disk:UUID={UUID}/crash"], level=level, compress=compress, path_name="")
    contents = Contents(text, modules=(*DRIVERS[bus], filesystem))
    python = capturing.packed_python(compress)
    built = capture.build(modules, python.tree, contents, path, packed_python=python.data)
    return StandIn(built, TargetDisk(disk_mib, filesystem, UUID, bus=bus))
