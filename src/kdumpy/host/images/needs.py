"""What the capture image of this host has to hold, found out from its settings and the machine.

The targets of /etc/kdumpy.toml are as the running system sees them; the capture kernel gets them as it has to look for
them, with the drivers, programs, keys and the network that they take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from kdumpy.capture.config import CaptureConfig
from kdumpy.capture.targets import devices, programs
from kdumpy.errors import HostError
from kdumpy.host.carried import carried_for
from kdumpy.host.drivers import Drivers
from kdumpy.host.images import luks
from kdumpy.host.images.luks import Lock
from kdumpy.host.network import Network, network_for
from kdumpy.host.settings import Settings
from kdumpy.host.storage import Device, Place, device_of, find_device, place_of, quoted
from kdumpy.host.system import System

NOT_CARRIED = frozenset({"mount", "umount", "mount.nfs"})
"""busybox has the first two; NFS is mounted by the kernel itself where there is no mount.nfs."""

STACKED = ("lvm", "luks", "raid", "multipath", "btrfs-devices")
"""Layers that a generator of the distribution puts together."""

_NETWORK = ("nfs", "ssh", "http", "https")
_NETWORK_OPTIONAL = ("af_packet", "ipv6")


@dataclass(frozen=True)
class Needs:
    """What the targets of a host take."""

    config: CaptureConfig
    """As the capture kernel gets it: its targets are those that it can reach."""
    places: tuple[Place, ...] = ()
    """Directories of this host among the targets."""
    devices: tuple[Device, ...] = ()
    """Devices of all targets, with what they are stacked on."""
    network: Network | None = None
    """How the servers among the targets are reached; None: there are none."""
    filesystems: tuple[str, ...] = ()
    """Kinds that are mounted."""
    drivers: Drivers = field(default_factory=Drivers)
    modules: tuple[str, ...] = ()
    """Further modules that the capture kernel must have, by name."""
    optional: tuple[str, ...] = ()
    """Modules and aliases that are taken where the kernel has them."""
    programs: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Path in the image → file of this host: keys, certificates."""
    locks: tuple[Lock, ...] = ()
    """LUKS devices that targets lie on, with the keys that `files` has."""
    only_udev_knows: tuple[str, ...] = ()
    """Names of devices that udev makes and the kernel does not know."""

    @property
    def layers(self) -> tuple[str, ...]:
        """What is between disks and file systems: lvm, luks, raid, …"""
        return tuple(dict.fromkeys(kind for device in self.devices for kind in device.kinds()))


def look(system: System, settings: Settings, known: Mapping[str, tuple[str, ...]] | None = None) -> Needs:
    """Find out what the image needs.

    Args:
        system: the host.
        settings: its settings.
        known: addresses of servers that were looked up before.

    Raises:
        HostError: a target is not there, or no image can reach it.
    """
    carried = carried_for(system, settings.capture)
    needs = Needs(carried.config, files=carried.files, modules=settings.image.modules,
                  programs=tuple(name for name in programs(carried.config) if name not in NOT_CARRIED))
    targets = []
    servers = []
    for url in carried.config.targets:
        target, needs = _target(system, url, needs)
        targets.append(target)
        scheme = target.partition(":")[0]
        if scheme in _NETWORK:
            servers.append(str(urlsplit(target).hostname))
            if scheme == "nfs":
                needs = replace(needs, modules=(*needs.modules, "nfs"),
                                optional=(*needs.optional, "nfsv4", "nfsv3"))
    _check_layers(needs)
    needs = _with_keys(system, needs)
    needs = replace(needs, config=replace(needs.config, targets=tuple(targets)))
    return _with_network(system, needs, servers, known) if servers else needs


def _target(system: System, url: str, needs: Needs) -> tuple[str, Needs]:
    """Return a target as the capture kernel finds it, and what that takes."""
    if url.startswith(("/", "file:")):
        path = url if url.startswith("/") else unquote(urlsplit(url).path)
        place = place_of(system, path)
        needs = replace(needs, places=(*needs.places, place))
        return place.url(), _with_device(needs, place.device, place.content.kind)
    scheme, _colon, rest = url.partition(":")
    if scheme == "disk":
        device, inside = devices.split(rest)
        found = find_device(system, device)
        needs = _with_device(needs, device_of(system, found.name), found.content.kind)
        if not found.content.uuid:
            raise HostError("the device holds no file system for a dump", where=url,
                            why=f"it holds {found.content.kind}" if found.content.kind else "nothing was recognised")
        # A path under /dev, or a partition's name, may be another one's tomorrow.
        keep = device.startswith(("UUID=", "LABEL="))
        return url if keep else f"disk:UUID={found.content.uuid}{quoted(inside or found.rest)}", needs
    if scheme == "raw":
        found = find_device(system, rest)
        needs = _with_device(needs, device_of(system, found.name), "")
        if rest.startswith("/dev/disk/") or (rest.startswith("PARTUUID=") and not found.kernel_knows):
            needs = replace(needs, only_udev_knows=(*needs.only_udev_knows, rest))
    return url, needs


def _with_device(needs: Needs, device: Device | None, kind: str) -> Needs:
    if device is None:
        return needs
    kinds = tuple(dict.fromkeys((*needs.filesystems, *((kind,) if kind else ()))))
    return replace(needs, devices=(*needs.devices, device), filesystems=kinds,
                   drivers=needs.drivers.plus(device.drivers))


def _check_layers(needs: Needs) -> None:
    for device in needs.devices:
        for layer in device.layers:
            if layer.kind not in ("disk", "partition", *STACKED):
                raise HostError("a capture image cannot bring this device up", where=device.node,
                                why=f"{layer.name} is {layer.kind}" + (f" ({layer.detail})" if layer.detail else ""),
                                mend="name a target on a local disk, or a server: ssh://, nfs://, https://")


def _with_keys(system: System, needs: Needs) -> Needs:
    """Add the keys of encrypted devices; HostError where one cannot be opened without somebody at the keyboard."""
    found = luks.locks(system, needs.devices)
    return replace(needs, locks=found, files={**needs.files, **{lock.inside: lock.key for lock in found}})


def _with_network(system: System, needs: Needs, servers: list[str],
                  known: Mapping[str, tuple[str, ...]] | None) -> Needs:
    network = network_for(system, servers, known)
    modules = []
    if any(interface.bond for interface in network.interfaces):
        modules.append("bonding")
    if any(interface.vlan for interface in network.interfaces):
        modules.append("8021q")
    return replace(needs, network=network, drivers=needs.drivers.plus(network.drivers),
                   modules=(*needs.modules, *modules), optional=(*needs.optional, *_NETWORK_OPTIONAL))
