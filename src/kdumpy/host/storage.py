"""Where a directory or a device of this host really lies: file system, device, what it is stacked on, drivers.

What the running system sees as `/var/crash` is for the capture kernel a path inside a file system on a device that
it has to reach by itself: `disk:UUID=…/var/crash`. This file finds that, and the drivers on the way to the disk.

Source: proc_pid_mountinfo(5); Documentation/ABI/testing/sysfs-block, sysfs-block-dm, Documentation/admin-guide/md.rst
of the kernel.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from kdumpy.capture.targets.superblock import MOUNTABLE, Content, probe
from kdumpy.errors import HostError
from kdumpy.host.drivers import Drivers, drivers_of
from kdumpy.host.system import System

MOUNTINFO = "/proc/self/mountinfo"

NETWORK_KINDS = ("nfs", "nfs4")
"""File systems that lie on a server; `Place.server` has it."""

SPREAD = "btrfs-devices"
"""The kind of layer that makes one file system of several devices."""

_OCTAL = re.compile(r"\\([0-7]{3})")

_DM_KINDS = (("LVM-", "lvm"), ("CRYPT-", "luks"), ("mpath-", "multipath"), ("DMRAID-", "dmraid"),
             ("part", "partition"), ("VDO", "vdo"), ("stratis", "stratis"))
"""How device-mapper's names of a device's maker begin: /sys/block/dm-0/dm/uuid."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    device: str
    """Major and minor number, `254:1`."""
    root: str
    """The directory of the file system that is mounted: `/`, a bind mount's, a subvolume's."""
    point: str
    """Where."""
    kind: str
    """`ext4`, …"""
    source: str
    """`/dev/vda1`, `server:/export`, …"""
    options: str
    """Of the file system: `rw,logdev=/dev/sdb1`."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A block device, one of those that a file system lies on."""

    name: str
    """The kernel's: `vda1`, `dm-0`, `md0`."""
    kind: str
    """disk, partition, lvm, luks, multipath, raid, bcache, loop, network, or what it is called."""
    detail: str = ""
    """What its maker calls it: the volume group and volume, the name of the mapping, the RAID level."""
    uuid: str = ""
    """device-mapper's or md's own."""


@dataclass(frozen=True, slots=True)
class Device:
    """A block device with all that it is stacked on."""

    node: str
    """`/dev/vda1`."""
    layers: tuple[Layer, ...]
    """The device itself first, then what it is made of, the disks last."""
    drivers: Drivers
    """Of all its disks."""

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of layers that need more than drivers, each once, from the disk up."""
        found = (layer.kind for layer in reversed(self.layers) if layer.kind not in ("disk", "partition"))
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of this host as the capture kernel has to look for it."""

    path: str
    """As configured."""
    mount: Mount
    inside: str
    """The directory counted from the top of the file system: bind mounts and subvolumes are in it."""
    content: Content
    """Kind, UUID and label of the file system; without a UUID where it lies on a server."""
    device: Device | None
    """None: on a server."""

    def url(self) -> str:
        """Return it as a target of the capture kernel."""
        if self.device is None:
            server, _colon, export = self.mount.source.rpartition(":")
            return f"nfs://{server}{quoted(str(PurePosixPath(export, self.inside.lstrip('/'))))}"
        return f"disk:UUID={self.content.uuid}{quoted(self.inside)}".removesuffix("/")


def quoted(path: str) -> str:
    """Quote a path for a target's URL; a subvolume's `@` stays, for people and for the ladder's shell."""
    return quote(path, safe="/@:+,=~")


def mounts(system: System) -> tuple[Mount, ...]:
    """Return what is mounted, in the order of mounting."""
    found = []
    for line in (system.read(MOUNTINFO) or "").splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        end = fields.index("-", 6)
        root, point, source = (_plain(text) for text in (fields[3], fields[4], fields[end + 2]))
        found.append(Mount(fields[2], root, point, fields[end + 1], source, fields[end + 3] if len(fields) > end + 3
                           else ""))
    return tuple(found)


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def mount_of(system: System, path: str) -> Mount:
    """Return the mount that a path (its links followed) lies on.

    Raises:
        HostError: nothing is mounted there, which only a broken /proc says.
    """
    real = PurePosixPath(path)
    found = None
    for mount in mounts(system):
        # The last of several on the same point is the one that is seen.
        if real.is_relative_to(mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    if found is None:
        raise HostError("nothing is mounted there", where=path, why=f"{MOUNTINFO} names no file system for it")
    return found


def real_path(system: System, path: str) -> str:
    """Return a path with its links followed; parts that are not there yet stay as they are."""
    root = system.root.resolve()
    real = Path(os.path.realpath(root / path.lstrip("/")))
    # A link in a tree that leads out of it stands for the same path below the tree.
    return "/" + str(real.relative_to(root)) if real.is_relative_to(root) else str(real)


def place_of(system: System, path: str) -> Place:
    """Return where a directory lies.

    Raises:
        HostError: on something that a capture kernel cannot mount; it says what, and what to do.
    """
    real = real_path(system, path)
    mount = mount_of(system, real)
    inside = str(PurePosixPath(mount.root, PurePosixPath(real).relative_to(mount.point)))
    if mount.kind in NETWORK_KINDS:
        return Place(path, mount, str(PurePosixPath("/", PurePosixPath(real).relative_to(mount.point))),
                     Content(mount.kind), None)
    if mount.kind not in MOUNTABLE:
        raise HostError("a capture kernel cannot save there", where=path,
                        why=f"it lies on {mount.kind} ({mount.source})",
                        mend=f"name a target on one of {', '.join(MOUNTABLE)}, or a server: ssh://, nfs://, https://")
    _no_second_device(path, mount)
    name = _device_name(system, mount)
    content = _content(system, name, mount)
    return Place(path, mount, inside, content, device_of(system, *_members(system, name, content)))


def _members(system: System, name: str, content: Content) -> tuple[str, ...]:
    """Return the device, and the others of the same file system: btrfs spreads over several."""
    folder = system.path(f"/sys/fs/btrfs/{content.uuid}/devices")
    others = sorted(entry.name for entry in folder.iterdir()) if content.kind == "btrfs" and folder.is_dir() else []
    return (name, *(other for other in others if other != name))


def _no_second_device(path: str, mount: Mount) -> None:
    for option in mount.options.split(","):
        if option.startswith(("logdev=", "rtdev=", "journal_path=")):
            raise HostError("a capture kernel cannot save there", where=path,
                            why=f"the file system has a second device: {option}",
                            mend="name another target in /etc/kdumpy.toml")


def _device_name(system: System, mount: Mount) -> str:
    """Return the kernel's name of the device that is mounted."""
    # btrfs shows a number that is no device's; its source names one of its devices.
    for number in (mount.device, _number_of(system, mount.source)):
        if number and not number.startswith("0:"):
            link = system.path(f"/sys/dev/block/{number}")
            if link.exists():
                return link.resolve().name
    raise HostError("cannot find the device of a file system", where=mount.point, why=f"{mount.source} ({mount.kind})")


def _number_of(system: System, node: str) -> str:
    if not node.startswith("/dev/"):
        return ""
    name = Path(real_path(system, node)).name
    return system.value(f"/sys/class/block/{name}/dev") or ""


def _content(system: System, name: str, mount: Mount) -> Content:
    node = node_of(name)
    try:
        found = probe(system.path(node))
    except OSError as error:
        told = _content_by_udev(system, name)
        if told is None:
            raise HostError("cannot read the file system's name", where=node, why=error.strerror or str(error),
                            mend="run it as root") from error
        found = told
    if found.kind != mount.kind and not (found.kind.startswith("ext") and mount.kind.startswith("ext")):
        raise HostError("the device does not hold what is mounted", where=node,
                        why=f"{found.kind or 'nothing known'} where {mount.kind} is mounted on {mount.point}")
    return Content(mount.kind, found.uuid, found.label)


def _content_by_udev(system: System, name: str) -> Content | None:
    """Return what udev has found on a device: it may be read without being root."""
    number = system.value(f"/sys/class/block/{name}/dev")
    lines = (system.value(f"/run/udev/data/b{number}") or "").splitlines()
    known = dict(line[2:].split("=", 1) for line in lines if line.startswith("E:ID_FS_") and "=" in line)
    kind, uuid = known.get("ID_FS_TYPE", ""), known.get("ID_FS_UUID", "")
    return Content(kind, uuid, known.get("ID_FS_LABEL", "")) if kind and uuid else None


def node_of(name: str) -> str:
    """Return the device node of a kernel's name: `cciss!c0d0` -> /dev/cciss/c0d0."""
    return "/dev/" + name.replace("!", "/")


def device_of(system: System, name: str, *others: str) -> Device:
    """Return a block device, by the kernel's name, and what it is stacked on; `others` belong to it as well."""
    layers: dict[str, Layer] = {}
    drivers = Drivers()
    if others:
        layers[SPREAD] = Layer(SPREAD, SPREAD, " ".join((name, *others)))
    queue = [name, *others]
    while queue:
        current = queue.pop(0)
        if current in layers:
            continue
        layers[current] = _layer(system, current)
        below = _below(system, current)
        queue += below
        if not below:
            drivers = drivers.plus(drivers_of(system, f"/sys/class/block/{current}"))
    return Device(node_of(name), tuple(layers.values()), drivers)


def _below(system: System, name: str) -> list[str]:
    folder = system.path(f"/sys/class/block/{name}")
    if (folder / "partition").exists():
        return [folder.resolve().parent.name]
    slaves = folder / "slaves"
    return sorted(entry.name for entry in slaves.iterdir()) if slaves.is_dir() else []


def _layer(system: System, name: str) -> Layer:
    folder = f"/sys/class/block/{name}"
    if system.exists(f"{folder}/partition"):
        return Layer(name, "partition")
    uuid = system.value(f"{folder}/dm/uuid")
    label = system.value(f"{folder}/dm/name")
    if label is not None:
        kind = next((kind for begin, kind in _DM_KINDS if (uuid or "").startswith(begin)), "device-mapper")
        return Layer(name, kind, label, uuid or "")
    level = system.value(f"{folder}/md/level")
    if level is not None:
        return Layer(name, "raid", level, system.value(f"{folder}/md/uuid") or "")
    if system.exists(f"{folder}/bcache"):
        return Layer(name, "bcache")
    if system.exists(f"{folder}/loop"):
        return Layer(name, "loop", system.value(f"{folder}/loop/backing_file") or "")
    if name.startswith(("nbd", "rbd", "drbd", "zd", "zram", "ram", "pmem")):
        return Layer(name, name.rstrip("0123456789"))
    real = str(system.path(folder).resolve())
    transport = _transport(system, real)
    return Layer(name, transport or "disk")


def _transport(system: System, real: str) -> str:
    """Return how a disk is reached where it is no part of this machine: iscsi, or nvme over a network."""
    if re.search(r"/session\d+/target", real):
        return "iscsi"
    for controller in nvme_controllers(system, real):
        transport = system.value(f"{controller}/transport") or "pcie"
        if transport != "pcie":
            return f"nvme-{transport}"
    return ""


def nvme_controllers(system: System, real: str) -> list[str]:
    """Return the controllers (paths in /sys) of a disk that native NVMe multipathing made: it has no parent."""
    match = re.search(r"/sys(/devices/virtual/nvme-subsystem/nvme-subsys\d+)/", real)
    if match is None:
        return []
    folder = system.path("/sys" + match[1])
    found = sorted(entry for entry in folder.glob("nvme[0-9]*") if entry.is_symlink())
    root = system.root.resolve()
    return ["/" + str(entry.resolve().relative_to(root)) for entry in found]


@dataclass(frozen=True, slots=True)
class Found:
    """A block device that was looked for by what people call it."""

    name: str
    """The kernel's."""
    rest: str
    """What follows its node in a path: a directory on it."""
    content: Content
    kernel_knows: bool
    """The capture kernel finds it by this name without udev, too."""


def find_device(system: System, text: str) -> Found:
    """Find a device by `UUID=`, `LABEL=`, `PARTUUID=`, `PARTLABEL=` or its path.

    Raises:
        HostError: it is not there: nobody could say which drivers it takes.
    """
    tag, equals, value = text.partition("=")
    if equals and tag in _UDEV_TAGS:
        for name in _block_devices(system):
            found = _named(system, name, tag, value)
            if found is not None:
                return found
    else:
        for path in (PurePosixPath(text), *PurePosixPath(text).parents):
            name = Path(real_path(system, str(path))).name
            if str(path).startswith("/dev/") and system.exists(str(path)) and system.exists(f"/sys/class/block/{name}"):
                rest = str(PurePosixPath(text).relative_to(path))
                return Found(name, "" if rest == "." else f"/{rest}", look_at(system, name), True)
    raise HostError("the target's device is not there", where=text, why="no block device has this name",
                    mend="attach it, or mend the target in /etc/kdumpy.toml; lsblk -f shows what there is")


_UDEV_TAGS = {"UUID": "ID_FS_UUID", "LABEL": "ID_FS_LABEL", "PARTUUID": "ID_PART_ENTRY_UUID",
              "PARTLABEL": "ID_PART_ENTRY_NAME"}


def _block_devices(system: System) -> list[str]:
    # What lies on top is meant, not the half of a mirror below it.
    names = [path.rsplit("/", 1)[-1] for path in system.glob("/sys/class/block/*")]
    return sorted(names, key=lambda name: (not name.startswith(("dm-", "md")), name))


def _named(system: System, name: str, tag: str, value: str) -> Found | None:
    content = look_at(system, name)
    uevent = _pairs(system.value(f"/sys/class/block/{name}/uevent"))
    kernel = {"UUID": content.uuid, "LABEL": content.label, "PARTUUID": uevent.get("PARTUUID", ""),
              "PARTLABEL": uevent.get("PARTNAME", "")}[tag]
    number = system.value(f"/sys/class/block/{name}/dev")
    udev = _pairs(system.value(f"/run/udev/data/b{number}")).get(f"E:{_UDEV_TAGS[tag]}", "")
    folded = str.lower if tag.endswith("UUID") else str
    if folded(value) not in (folded(kernel), folded(udev)):
        return None
    return Found(name, "", content, folded(kernel) == folded(value))


def look_at(system: System, name: str) -> Content:
    """Return what lies on a device, from its first bytes or from udev; nothing known where neither tells."""
    try:
        found = probe(system.path(node_of(name)))
    except OSError:
        found = Content("")
    return found if found.kind else _content_by_udev(system, name) or found


def _pairs(text: str | None) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (text or "").splitlines() if "=" in line)
