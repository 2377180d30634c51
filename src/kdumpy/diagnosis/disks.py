"""Disks, and the requests that they have not answered.

Sources: include/linux/blk-mq.h, include/linux/blk_types.h, include/linux/part_stat.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import drgn
from drgn.helpers.linux.block import for_each_disk
from drgn.helpers.linux.mm import compound_head

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel import Kernel
from kdumpy.kernel.requests import Queues

MAPPED = ("dm_blk_dops", "dm_rq_blk_dops")
"""The operations of device mapper's disks (drivers/md/dm.c)."""
SUSPENDED = 1 << 1
"""DMF_SUSPENDED, a bit of mapped_device.flags (drivers/md/dm-core.h; dm.c before 5.16)."""
_MOST_DISKS = 4096
_MOST_REQUESTS = 8192
"""Of all disks together; beyond, they are only not listed."""
_MOST_BIOS, _MOST_VECTORS = 256, 256
"""Of one request (BIO_MAX_VECS is 256)."""
_MOST_BIOS_OF_ALL, _MOST_PAGES_OF_ALL = 1 << 16, 1 << 18
"""Of all disks together."""
_MOST_CPUS = 1024
_OPERATION = 0xFF
"""REQ_OP_MASK, include/linux/blk_types.h."""
_OPERATIONS = {0: "read", 1: "write", 2: "flush", 3: "discard", 34: "command", 35: "command"}
"""enum req_op: REQ_OP_READ and so on."""


@dataclass(frozen=True)
class Request:
    """A request that its disk has not answered."""

    disk: str
    address: int
    """Of the struct request."""
    operation: str
    sector: int
    size: int
    """Bytes that are left of it."""
    seconds: float | None
    """Since it was made; None where the kernel does not keep that."""

    @property
    def words(self) -> str:
        """`write of 4096 bytes at sector 8 of vda`."""
        return f"{self.operation} of {self.size} bytes at sector {self.sector} of {self.disk}"


@dataclass(frozen=True)
class Disk:
    """A block device that is no partition."""

    name: str
    address: int
    """Of the struct gendisk."""
    driver: str
    """The symbol of its operations (struct block_device_operations), which tells the driver; empty where unknown."""
    requests: tuple[Request, ...]
    """In flight, the oldest first."""
    accounted: int
    """What the disk's statistics say is in flight: all that there is of a device without requests (dm, md)."""

    @property
    def oldest(self) -> float | None:
        """Seconds that the oldest request has been in flight; None where there is none or that is not known."""
        return max((item.seconds for item in self.requests if item.seconds is not None), default=None)


class Disks:
    """The disks of a kernel; read when first asked for."""

    def __init__(self, kernel: Kernel, now_ns: int | None) -> None:
        """`now_ns`: the kernel's clock at the crash (ns since boot); None where unknown."""
        self.kernel = kernel
        self.prog = kernel.prog
        self.now_ns = now_ns
        self._objects: dict[int, drgn.Object] = {}
        self._queues = Queues()

    @cached_property
    def all(self) -> tuple[Disk, ...]:
        """Every disk.

        Raises:
            READ_ERRORS: the list of disks cannot be read.
        """
        found, room = [], _MOST_REQUESTS
        for disk in islice(for_each_disk(self.prog), _MOST_DISKS):
            disk = disk.read_()
            name = disk.disk_name.string_().decode("utf-8", "backslashreplace")
            requests = self._requests(disk, name, room)
            room -= len(requests)
            found.append(Disk(name, disk.value_(), self._driver(disk), tuple(requests), self._accounted(disk)))
        return tuple(found)

    def named(self, name: str) -> Disk | None:
        """Return a disk by its name."""
        return next((disk for disk in self.all if disk.name == name), None)

    def of_page(self, page: int) -> Request | None:
        """Return the request that reads or writes a page or folio."""
        return self._by_page.get(page)

    def of_waiter(self, begin: int, end: int, task: int) -> Request | None:
        """Return the request that a task made and waits for: what tells of its end lies on the task's stack.

        Args:
            begin: of the stack's part that is in use.
            end: of the stack.
            task: the struct task_struct's address, which some callers leave in the request in its place.
        """
        return next((item for item, private, bio in self._private if begin <= private < end or begin <= bio < end
                     or private == task), None)

    def is_suspended(self, name: str) -> bool:
        """Whether a disk is a device of device mapper that is suspended; False also where that cannot be told."""
        disk = self.named(name)
        if disk is None or disk.driver not in MAPPED:
            return False
        try:
            gendisk = drgn.Object(self.prog, "struct gendisk *", disk.address)
            return bool(int(drgn.cast("struct mapped_device *", gendisk.private_data).flags.value_()) & SUSPENDED)
        except READ_ERRORS:
            return False

    def _driver(self, disk: drgn.Object) -> str:
        try:
            return str(self.prog.symbol(disk.fops.value_()).name)
        except LookupError:
            return ""

    def _requests(self, disk: drgn.Object, name: str, room: int) -> list[Request]:
        found = []
        try:
            for request in islice(self._queues.in_flight(disk.queue.read_()), room):
                item = self._request(request, name)
                found.append(item)
                self._objects[item.address] = request
        except READ_ERRORS as error:
            self.kernel.problems[f"the requests of {name}"] = str(error)
        return sorted(found, key=lambda item: -(item.seconds or 0))

    def _request(self, request: drgn.Object, name: str) -> Request:
        operation = int(request.cmd_flags.value_()) & _OPERATION
        begun = int(request.start_time_ns.value_())
        seconds = None
        if begun and self.now_ns is not None:
            # Two clocks that differ by a little: the log's is the scheduler's.
            seconds = max(0.0, (self.now_ns - begun) / 1e9)
        return Request(name, request.value_(), _OPERATIONS.get(operation, f"operation {operation}"),
                       int(request.member_("__sector").value_()), int(request.member_("__data_len").value_()), seconds)

    def _accounted(self, disk: drgn.Object) -> int:
        """Sum up what every CPU counts as begun less what it counts as ended."""
        from drgn.helpers.linux.cpumask import for_each_possible_cpu
        from drgn.helpers.linux.percpu import per_cpu_ptr

        try:
            part = disk.part0
            # 15e3d2c5cd53 "block: move disk stat accounting to struct block_device" (5.11)
            stats = part.bd_stats if part.type_.kind == drgn.TypeKind.POINTER else part.dkstats
            total = sum(int(count.a.counter.value_())
                        for cpu in islice(for_each_possible_cpu(self.prog), _MOST_CPUS)
                        for count in per_cpu_ptr(stats, cpu).in_flight)
        except READ_ERRORS:
            return 0
        return max(0, total)

    @cached_property
    def _by_page(self) -> dict[int, Request]:
        found: dict[int, Request] = {}
        for item, page in islice(self._every_page(), _MOST_PAGES_OF_ALL):
            found.setdefault(page, item)
        return found

    def _every_page(self) -> Iterator[tuple[Request, int]]:
        for item, bio in self._bios:
            try:
                for page in self._pages(bio):
                    yield item, page
            except READ_ERRORS:
                continue

    @cached_property
    def _private(self) -> list[tuple[Request, int, int]]:
        """(request, what it was given to remember its maker by, the bio's address)."""
        found = [(item, int(bio.bi_private.value_()), bio.value_()) for item, bio in self._bios]
        found += [(item, int(self._objects[item.address].end_io_data.value_()), 0)
                  for disk in self.all for item in disk.requests]
        return found

    @cached_property
    def _bios(self) -> list[tuple[Request, drgn.Object]]:
        return list(islice(self._every_bio(), _MOST_BIOS_OF_ALL))

    def _every_bio(self) -> Iterator[tuple[Request, drgn.Object]]:
        for disk in self.all:
            for item in disk.requests:
                try:
                    bio = self._objects[item.address].bio.read_()
                    for _ in range(_MOST_BIOS):
                        if not bio:
                            break
                        yield item, bio.read_()
                        bio = bio.bi_next.read_()
                except READ_ERRORS:
                    continue

    @staticmethod
    def _pages(bio: drgn.Object) -> Iterator[int]:
        """Yield the head pages of a bio. A clone has no count of its vectors, but a size."""
        left, at = int(bio.bi_iter.bi_size.value_()), int(bio.bi_iter.bi_idx.value_())
        for number in range(at, at + _MOST_VECTORS):
            if left <= 0:
                return
            vector = bio.bi_io_vec[number]
            left -= max(1, int(vector.bv_len.value_()))
            yield compound_head(vector.bv_page).value_()
