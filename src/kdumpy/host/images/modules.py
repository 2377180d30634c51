"""The kernel modules of a capture image, by name: drivers up to the bus, file systems, what the settings add."""

from __future__ import annotations

from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host.images.needs import Needs
from kdumpy.image.modules import ModuleTree

FAMILIES = {"ext2": "ext4", "ext3": "ext4"}
"""File systems that another one's module mounts."""


@dataclass(frozen=True)
class Wanted:
    """Names for a ModuleTree's closure."""

    required: tuple[str, ...]
    optional: tuple[str, ...]


def wanted(tree: ModuleTree, needs: Needs, *, running: bool) -> Wanted:
    """Return the modules that the targets take.

    Args:
        tree: the capture kernel's modules.
        needs: the targets' needs.
        running: it is the kernel that runs now: a driver without a module is built in.

    Raises:
        HostError: another kernel than the running one has no driver for a device.
    """
    required, optional = [], list(needs.optional)
    for name in needs.drivers.modules:
        if tree.has(name):
            required.append(name)
        elif not any(tree.has(alias) for alias in needs.drivers.aliases):
            raise HostError("the capture kernel lacks a driver", where=str(tree.directory), why=name,
                            mend="choose another kernel with `kernel` of [image] in /etc/kdumpy.toml")
    optional += needs.drivers.aliases if not running or len(required) < len(needs.drivers.modules) else ()
    for kind in needs.filesystems:
        name = kind if tree.has(kind) else FAMILIES.get(kind, kind)
        if tree.has(name):
            required.append(name)
        elif not running:
            raise HostError("the capture kernel has no such file system", where=str(tree.directory), why=kind,
                            mend="choose another kernel with `kernel` of [image] in /etc/kdumpy.toml")
    # "nfs", "bonding", what the settings name: they may be built in, and then no list says so.
    for name in needs.modules:
        (required if tree.has(name) or not running else optional).append(name)
    return Wanted(tuple(dict.fromkeys(required)), tuple(dict.fromkeys(optional)))
