"""Checks of disks: requests that were not answered, and what device mapper, md, SCSI and NVMe know of theirs.

Sources: drivers/md/dm-core.h, dm-mpath.c, md.h, include/scsi/scsi_device.h, scsi_host.h, drivers/nvme/host/nvme.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import drgn
from drgn.helpers.linux.list import list_for_each_entry

from kdumpy.diagnosis.disks import MAPPED, SUSPENDED, Disk
from kdumpy.diagnosis.findings.base import CRITICAL, INFO, WARNING, Check, Found, Machine, text
from kdumpy.units import human_seconds

_SLOW, _STUCK = 5.0, 30.0
"""Seconds that a request is in flight: more than a healthy disk takes; the kernel's own timeout of SCSI and NVMe."""
_MOST = 256
_FAULTY = 1 << 0
"""Faulty, enum flag_bits, drivers/md/md.h."""


def requests(machine: Machine) -> Iterator[Found]:
    """Disks that did not answer for long; in all others, how much was in flight."""
    busy = [disk for disk in machine.disks if disk.requests]
    late = [disk for disk in busy if (disk.oldest or 0) >= _SLOW]
    for disk in late:
        oldest = max(disk.requests, key=lambda item: item.seconds or 0)
        count = len(disk.requests)
        yield Found(CRITICAL if (disk.oldest or 0) >= _STUCK else WARNING,
                    f"{disk.name} did not answer a request for {human_seconds(disk.oldest or 0)}",
                    f"{count} request{'s' if count > 1 else ''} in flight; the oldest is a {oldest.words}", "dev -d")
    others = [disk for disk in busy if disk not in late]
    if others:
        total = sum(len(disk.requests) for disk in others)
        yield Found(INFO, f"{total} request{'s were' if total > 1 else ' was'} in flight",
                    ", ".join(f"{disk.name} {len(disk.requests)}" for disk in others[:8]), "dev -d")


def _private(machine: Machine, disk: Disk, made: str) -> drgn.Object:
    gendisk = drgn.Object(machine.kernel.prog, "struct gendisk *", disk.address)
    return drgn.cast(made, gendisk.private_data)


def _of(machine: Machine, *operations: str) -> Iterator[Disk]:
    return (disk for disk in machine.disks if disk.driver in operations)


def _mapped(machine: Machine) -> Iterator[tuple[str, drgn.Object]]:
    """Yield (name, struct mapped_device *) of the devices of device mapper."""
    for disk in _of(machine, *MAPPED):
        device = _private(machine, disk, "struct mapped_device *")
        cell = drgn.cast("struct hash_cell *", device.interface_ptr)
        yield f"{disk.name} ({text(cell.name)})" if cell else disk.name, device


def suspended(machine: Machine) -> Iterator[Found]:
    """A device of device mapper is suspended: what is written to it waits."""
    for name, device in _mapped(machine):
        if not int(device.flags.value_()) & SUSPENDED:
            continue
        waiting, bio = 0, device.deferred.head.read_()
        while bio and waiting < _MOST:
            waiting, bio = waiting + 1, bio.bi_next.read_()
        yield Found(WARNING, f"The mapped device {name} is suspended",
                    f"{waiting}{' or more' if waiting == _MOST else ''} bios wait for it" if waiting else "",
                    f"struct mapped_device {device.value_():x}")


def paths(machine: Machine) -> Iterator[Found]:
    """Paths of a multipath device have failed."""
    for name, device in _mapped(machine):
        table = drgn.cast("struct dm_table *", device.map)
        if not table:
            continue
        for number in range(min(int(table.num_targets.value_()), _MOST)):
            target = table.targets[number]
            if text(target.type.name) != "multipath":
                continue
            known = list(_paths(drgn.cast("struct multipath *", target.private)))
            failed = [path for path, active in known if not active]
            if failed:
                yield Found(CRITICAL if len(failed) == len(known) else WARNING,
                            f"{len(failed)} of {len(known)} paths of {name} have failed",
                            ", ".join(failed[:8]), f"struct multipath {target.private.value_():x}")


def _paths(multipath: drgn.Object) -> Iterator[tuple[str, bool]]:
    for group in islice(list_for_each_entry("struct priority_group", multipath.priority_groups.address_of_(), "list"),
                        _MOST):
        for path in islice(list_for_each_entry("struct pgpath", group.pgpaths.address_of_(), "list"), _MOST):
            yield text(path.path.dev.name), bool(path.is_active.value_())


def arrays(machine: Machine) -> Iterator[Found]:
    """A RAID array lacks disks."""
    for disk in _of(machine, *_ARRAY):
        array = _private(machine, disk, "struct mddev *")
        lacking, wanted = int(array.degraded.value_()), int(array.raid_disks.value_())
        if not array.pers or not 0 < lacking <= wanted:
            continue
        members = list(islice(list_for_each_entry("struct md_rdev", array.disks.address_of_(), "same_set"), _MOST))
        failed = sum(bool(int(item.flags.value_()) & _FAULTY) for item in members)
        # In newer kernels (6.15) the name is in `head`, a struct md_submodule_head.
        level = array.pers.name if array.pers.type_.type.has_member("name") else array.pers.head.name
        yield Found(WARNING, f"The array {disk.name} ({text(level)}) lacks {lacking} of {wanted} disks",
                    f"{failed} of its members failed" if failed else "", f"struct mddev {array.value_():x}")


def _state(value: drgn.Object) -> str:
    """Return the name of an enumerator without its prefix, in lower case: `SDEV_OFFLINE` is `offline`."""
    number = int(value.value_())
    name = next((item.name for item in value.type_.enumerators or () if item.value == number), str(number))
    for prefix in ("SDEV_", "SHOST_", "NVME_CTRL_"):
        name = name.removeprefix(prefix)
    return name.lower().replace("_", " ")


def scsi(machine: Machine) -> Iterator[Found]:
    """A SCSI disk is offline or stopped, or its host is mending an error."""
    hosts: dict[int, drgn.Object] = {}
    for disk in _of(machine, *_SCSI):
        gendisk = drgn.Object(machine.kernel.prog, "struct gendisk *", disk.address)
        device = drgn.cast("struct scsi_device *", gendisk.queue.queuedata)
        state = _state(device.sdev_state)
        if state != "running":
            yield Found(WARNING, f"The SCSI disk {disk.name} is {state}",
                        command=f"struct scsi_device {device.value_():x}")
        hosts.setdefault(device.host.value_(), device.host)
    for host in hosts.values():
        state, failed = _state(host.shost_state), int(host.host_failed.value_())
        if state != "running" or failed:
            yield Found(WARNING, f"The SCSI host {int(host.host_no.value_())} is mending errors (state {state})",
                        f"{failed} commands failed", f"struct Scsi_Host {host.value_():x}")


def nvme(machine: Machine) -> Iterator[Found]:
    """An NVMe controller does not work."""
    seen = set()
    for disk in _of(machine, *_NVME):
        controller = _private(machine, disk, "struct nvme_ns *").ctrl.read_()
        state = _state(controller.state)
        if state != "live" and controller.value_() not in seen:
            seen.add(controller.value_())
            yield Found(CRITICAL if state == "dead" else WARNING,
                        f"The NVMe controller nvme{int(controller.instance.value_())} is {state}",
                        f"the disk {disk.name} is on it", f"struct nvme_ctrl {controller.value_():x}")


_DISKS = ("struct gendisk", "struct request", "variable block_class")
_ARRAY, _SCSI, _NVME = ("md_fops",), ("sd_fops", "sr_bdops"), ("nvme_bdev_ops", "nvme_fops")
"""The operations by which the drivers of disks are known."""


def _with_disks(operations: tuple[str, ...]) -> Callable[[Machine], bool]:
    return lambda machine: any(disk.driver in operations for disk in machine.disks)


CHECKS = (
    Check("block requests", requests, _DISKS),
    Check("suspended devices", suspended, (*_DISKS, "struct mapped_device"), _with_disks(MAPPED)),
    Check("failed paths", paths, (*_DISKS, "struct mapped_device", "struct dm_table"), _with_disks(MAPPED)),
    Check("RAID arrays", arrays, (*_DISKS, "struct mddev"), _with_disks(_ARRAY)),
    Check("SCSI", scsi, (*_DISKS, "struct scsi_device"), _with_disks(_SCSI)),
    Check("NVMe", nvme, (*_DISKS, "struct nvme_ns"), _with_disks(_NVME)),
)
