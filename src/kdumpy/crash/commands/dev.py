"""`dev`: devices and their drivers; I/O ports; PCI; the requests of disks; what drivers left in the dump."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import drgn
from drgn.helpers.linux.block import disk_name, for_each_disk, rq_data_dir
from drgn.helpers.linux.device import MKDEV
from drgn.helpers.linux.pci import (
    PCI_EXP_TYPE,
    for_each_pci_root_bus,
    pci_bus_for_each_child,
    pci_bus_for_each_dev,
    pci_bus_name,
    pci_is_bridge,
    pci_name,
    pci_pcie_type,
)

from kdumpy.crash.command import Arg, Command, Line, Options, columns
from kdumpy.crash.session import Session
from kdumpy.crash.unread import Unread
from kdumpy.debuginfo.lists import chain
from kdumpy.errors import DamagedDump, NotInDump, UsageError
from kdumpy.kernel.requests import Queues

_KIND = 0x700
"""NT_VMCOREDD. Source: include/uapi/linux/vmcore.h, struct vmcoredd_header."""
_NAME = 44
"""Bytes of dump_name in front of the data."""
_LINE = 16
_MOST = 1 << 16
"""Devices of a kind."""
_DEEPEST = 256
"""Buses below buses: PCI has no more numbers."""


@dataclass(frozen=True)
class DeviceRow:
    """A registered device number."""

    kind: str
    """character, block."""
    major: int
    minor: int
    """The first of its range; 0 of a block device."""
    name: str
    device: int
    """Address of its struct cdev or gendisk; 0 where none is registered."""
    operations: str
    """The driver's table of operations, by its symbol."""


@dataclass(frozen=True)
class ResourceRow:
    """A region of I/O ports or of the physical address space."""

    kind: str
    """port, memory."""
    resource: int
    """Address of its struct resource."""
    start: int
    end: int
    """The last one, included."""
    name: str


@dataclass(frozen=True)
class PciRow:
    """A PCI device."""

    bus: str
    root: int
    """Address of the root's struct pci_bus."""
    device: int
    """Address of its struct pci_dev."""
    slot: str
    """domain:bus:slot.function"""
    device_class: int
    """Class and subclass."""
    vendor_id: int
    device_id: int
    type: str


@dataclass(frozen=True)
class DiskRow:
    """A disk and its requests in flight."""

    major: int
    disk: int
    """Address of its struct gendisk."""
    name: str
    queue: int
    """Address of its struct request_queue."""
    total: int
    reads: int
    writes: int


@dataclass(frozen=True)
class DeviceDumpRow:
    """What a driver wrote into the dump."""

    index: int
    size: int
    """Bytes."""
    name: str
    """The driver's name for it."""


class Dev(Command[Any]):
    """Show devices and their drivers; with -V, what drivers left in the dump for their developers.

    Example:
        crash> dev
        CHRDEV    NAME                 CDEV        OPERATIONS
           1      mem            ff390e1a819bee80  memory_fops
    """

    names = ("dev",)
    example = "dev"
    row = DeviceRow
    args = (
        Arg("file", nargs="?", metavar="FILE", help="with -v: write it there"),
        Arg("-i", dest="resources", action="store_true", help="I/O ports and the physical address space"),
        Arg("-p", dest="pci", action="store_true", help="PCI devices"),
        Arg("-d", dest="disks", action="store_true", help="disks with their requests in flight"),
        Arg("-D", dest="busy", action="store_true", help="only disks that have some"),
        Arg("-V", dest="dumps", action="store_true", help="the device dumps (of drivers, in ELF notes)"),
        Arg("-v", dest="index", metavar="INDEX", help="one of them, as bytes; or into FILE"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield what is asked for."""
        if options.dumps or options.index is not None:
            return _device_dumps(session, options)
        if options.file:
            raise UsageError(f"{options.file!r} is not expected", where="dev", mend="FILE goes with -v")
        if options.resources:
            return itertools.islice(_resources(session), _MOST)
        if options.pci:
            return itertools.islice(_pci(session), _MOST)
        if options.disks or options.busy:
            return itertools.islice((row for row in _disks(session) if row.total or not options.busy), _MOST)
        return itertools.islice(_devices(session), _MOST)

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay the answer out as crash does."""
        if options.index is not None:
            yield from (row.line for row in rows)
        elif options.dumps:
            yield from columns(("INDEX", "SIZE", "NAME"),
                               ((str(row.index), f"{row.size:x}", row.name) for row in rows), "><<")
        elif options.resources:
            yield from _resource_lines(list(rows))
        elif options.pci:
            yield from _pci_lines(rows)
        elif options.disks or options.busy:
            yield "MAJOR GENDISK            NAME       REQUEST_QUEUE      TOTAL  READ WRITE"
            yield from (f"{row.major:>5} {row.disk:<19x} {row.name:<10} {row.queue:<16x} {row.total:>7} {row.reads:>5} "
                        f"{row.writes:>5}" for row in rows)
        else:
            yield from _device_lines(list(rows))


def _operations(session: Session, address: int) -> str:
    return session.place(address) or (f"{address:x}" if address else "")


def _devices(session: Session) -> Iterator[DeviceRow]:
    unread = Unread("devices")
    yield from _character(session, unread)
    yield from _block(session, unread)
    unread.tell()


def _character(session: Session, unread: Unread) -> Iterator[DeviceRow]:
    """Yield the character devices, bucket by bucket. Source: fs/char_dev.c, chrdevs; drivers/base/map.c, cdev_map."""
    probes = session.prog["cdev_map"].probes
    kind = session.prog.type("struct cdev *")

    def row_of(entry: drgn.Object) -> DeviceRow:
        major, minor = entry.major.value_(), entry.baseminor.value_()
        device = entry.cdev.read_()
        if not device:          # registered by cdev_add() alone: looked up by its number
            for probe in unread.all(chain(probes[major % len(probes)], "next")):
                if probe.next and probe.dev.value_() == MKDEV(major, minor):    # the last one stands for all others
                    device = drgn.cast(kind, probe.data)
                    break
        return DeviceRow("character", major, minor, entry.name.string_().decode("utf-8", "backslashreplace"),
                         device.value_(), _operations(session, device.ops.value_()) if device else "")

    for bucket in session.prog["chrdevs"]:
        yield from unread.rows(chain(bucket, "next"), row_of)


def _block(session: Session, unread: Unread) -> Iterator[DeviceRow]:
    """Yield the block devices. Source: block/genhd.c, major_names."""
    disks: dict[int, list[drgn.Object]] = {}
    for major, disk in unread.rows(itertools.islice(for_each_disk(session.prog), _MOST),
                                   lambda disk: (disk.major.value_(), disk)):
        disks.setdefault(major, []).append(disk)

    def row_of(major: int, name: str, disk: drgn.Object | None) -> DeviceRow:
        if disk is None:
            return DeviceRow("block", major, 0, name, 0, "")
        return DeviceRow("block", major, 0, name, disk.value_(), _operations(session, disk.fops.value_()))

    for bucket in session.prog["major_names"]:
        for entry in unread.all(chain(bucket, "next")):
            major, name = entry.major.value_(), entry.name.string_().decode("utf-8", "backslashreplace")
            yield from unread.rows(disks.get(major, (None,)), partial(row_of, major, name))


def _device_lines(rows: list[DeviceRow]) -> Iterator[str]:
    for kind, header in (("character", "CHRDEV    NAME                 CDEV        OPERATIONS"),
                         ("block", "BLKDEV    NAME                GENDISK      OPERATIONS")):
        own = [row for row in rows if row.kind == kind]
        if kind == "block" and own:
            yield ""
        if own:
            yield header
        for row in own:
            device = f"{row.device:016x}" if row.device else "     (none)"
            yield f"{row.major:>4}      {row.name:<13}  {device}  {row.operations}".rstrip()


def _resources(session: Session) -> Iterator[ResourceRow]:
    unread = Unread("regions")
    for kind, name in (("port", "ioport_resource"), ("memory", "iomem_resource")):
        def row_of(resource: drgn.Object, kind: str = kind) -> ResourceRow:
            text = resource.name.string_().decode("utf-8", "backslashreplace") if resource.name else ""
            return ResourceRow(kind, resource.value_(), resource.start.value_(), resource.end.value_(), text)

        yield from unread.rows(_within(session.prog[name].address_of_(), unread, 0), row_of)
    unread.tell()


def _within(resource: drgn.Object, unread: Unread, depth: int) -> Iterator[drgn.Object]:
    """Yield a resource and those that lie in it. Source: kernel/resource.c, next_resource()."""
    yield resource
    if depth > _DEEPEST:
        raise DamagedDump("regions lie in each other without an end", where=f"address {resource.value_():016x}")
    for child in unread.all(chain(resource.child, "sibling")):
        if child.parent != resource:
            unread.lost(f"{child.value_():016x}", DamagedDump(f"it does not lie in {resource.value_():016x}"))
            return
        yield from _within(child, unread, depth + 1)


def _resource_lines(rows: list[ResourceRow]) -> Iterator[str]:
    for kind, width in (("port", 4), ("memory", 8)):
        if kind == "memory":
            yield ""
        yield f"    RESOURCE      {'RANGE':^{2 * width + 1}}  NAME"
        yield from (f"{row.resource:016x}  {row.start:0{width}x}-{row.end:0{width}x}  {row.name}"
                    for row in rows if row.kind == kind)


def _pci(session: Session) -> Iterator[PciRow]:
    for root in for_each_pci_root_bus(session.prog):
        yield from _on_bus(root, root, 0)


def _on_bus(root: drgn.Object, bus: drgn.Object, depth: int) -> Iterator[PciRow]:
    if depth > _DEEPEST:
        raise DamagedDump("PCI buses lie in each other without an end", where=f"address {bus.value_():016x}")
    for device in pci_bus_for_each_dev(bus):
        kind = pci_pcie_type(device)
        text = kind.name if isinstance(kind, PCI_EXP_TYPE) else f"{kind:x}"
        yield PciRow(pci_bus_name(bus), root.value_(), device.value_(), pci_name(device),
                     device.member_("class").value_() >> 8, device.vendor.value_(), device.device.value_(),
                     f"{text} [BRIDGE]" if pci_is_bridge(device) else text)
    for child in pci_bus_for_each_child(bus):
        yield from _on_bus(root, child, depth + 1)


def _pci_lines(rows: Iterable[PciRow]) -> Iterator[str]:
    for number, (root, devices) in enumerate(itertools.groupby(rows, key=lambda row: row.root)):
        found = list(devices)
        if number:
            yield ""
        yield "    ROOT BUS     BUSNAME"
        yield f"{root:016x} {found[0].bus}"
        yield "      PCI DEV      DO:BU:SL.FN  CLASS   PCI_ID      TYPE"
        yield from (f"  {row.device:016x} {row.slot}  {row.device_class:04x}  {row.vendor_id:04x}:{row.device_id:04x}  "
                    f"{row.type}" for row in found)


def _disks(session: Session) -> Iterator[DiskRow]:
    queues = Queues()
    unread = Unread("disks")

    def row_of(disk: drgn.Object) -> DiskRow:
        counts = [0, 0]
        for request in unread.all(itertools.islice(queues.in_flight(disk.queue.read_()), _MOST)):
            counts[rq_data_dir(request)] += 1
        return DiskRow(disk.major.value_(), disk.value_(), disk_name(disk).decode("utf-8", "backslashreplace"),
                       disk.queue.value_(), sum(counts), *counts)

    yield from unread.rows(for_each_disk(session.prog), row_of)
    unread.tell()


def _device_dumps(session: Session, options: Options) -> Iterator[Any]:
    found = [note.data for note in session.kernel.dump.notes if note.kind == _KIND]
    if not found:
        raise NotInDump("no device dump is in this file",
                        why="drivers write them only where the kernel has CONFIG_PROC_VMCORE_DEVICE_DUMP, and not "
                            "with 'novmcoredd'")
    if options.index is None:
        for index, data in enumerate(found):
            yield DeviceDumpRow(index, len(data) - _NAME, _name(data))
        return
    if not options.index.isdecimal() or int(options.index) >= len(found):
        raise UsageError(f"there is no device dump {options.index}", mend="see 'dev -V'")
    data = found[int(options.index)][_NAME:]
    if options.file:
        Path(options.file).expanduser().write_bytes(data)
        yield Line(f"written to {options.file}: {len(data)} bytes")
        return
    for at in range(0, len(data), _LINE):
        part = data[at:at + _LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield Line(f"{at:16x}:  {part.hex(' ', 8):<33}   {text}")


def _name(data: bytes) -> str:
    return data[:_NAME].partition(b"\0")[0].decode("utf-8", "backslashreplace")


COMMAND = Dev()
