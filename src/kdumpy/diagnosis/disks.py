"""Disks, and the requests that they have not answered.

Sources: block/blk-mq-tag.c, include/linux/blk-mq.h, include/linux/blk_types.h, include/linux/part_stat.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import drgn
from drgn.helpers.linux.block import for_each_disk
from drgn.helpers.linux.mm import compound_head
from drgn.helpers.linux.sbitmap import sbitmap_for_each_set
from drgn.helpers.linux.xarray import xa_for_each

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump
from kdumpy.kernel import Kernel

MAPPED = ("dm_blk_dops", "dm_rq_blk_dops")
"""The operations of device mapper's disks (drivers/md/dm.c)."""
SUSPENDED = 1 << 1
"""DMF_SUSPENDED, a bit of mapped_device.flags (drivers/md/dm-core.h; dm.c before 5.16)."""
_MOST_DISKS = 4096
_MOST_REQUESTS = 8192
"""Of all disks together; beyond, they are only not listed."""
_MOST_BIOS, _MOST_VECTORS = 256, 256
"""Of one request (BIO_MAX_VECS is 256)."""
_MOST_BIOS_OF_ALL, _MOST_PAGES_OF_ALL, _MOST_WORDS_OF_ALL = 1 << 16, 1 << 18, 1 << 21
"""Of all disks together: bios, their pages, and the words of the bitmaps of requests."""
_MOST_TAGS, _LARGEST_SHIFT = 1 << 16, 6
"""Of one bitmap: BLK_MQ_MAX_DEPTH is 10240 (include/linux/blk-mq.h); a word holds at most 2^6 bits
(lib/sbitmap.c, sbitmap_calculate_shift)."""
_MOST_CPUS, _MOST_HARDWARE_QUEUES = 1024, 8192
_OPERATION = 0xFF
"""REQ_OP_MASK, include/linux/blk_types.h."""
_OPERATIONS = {0: "read", 1: "write", 2: "flush", 3: "discard", 34: "command", 35: "command"}
"""enum req_op: REQ_OP_READ and so on."""

Bits = Callable[[drgn.Object], Iterator[int]]
"""Gives the bits that are set in a `struct sbitmap *`."""


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
        self._words = 0
        """Words of bitmaps that were read."""

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
            for request in islice(_in_flight(disk.queue.read_(), self._set_bits), room):
                item = self._request(request, name)
                found.append(item)
                self._objects[item.address] = request
        except READ_ERRORS as error:
            self.kernel.problems[f"the requests of {name}"] = str(error)
        return sorted(found, key=lambda item: -(item.seconds or 0))

    def _set_bits(self, bitmap: drgn.Object) -> Iterator[int]:
        """Return the bits that are set in a `struct sbitmap *`.

        Raises:
            DamagedDump: it claims to have more than any has, or all of them together do.
        """
        depth, shift, words = (int(bitmap.member_(name).value_()) for name in ("depth", "shift", "map_nr"))
        self._words += words
        if depth > _MOST_TAGS or shift > _LARGEST_SHIFT or words > depth or self._words > _MOST_WORDS_OF_ALL:
            raise DamagedDump("a bitmap of requests is larger than any can be", where=f"address {bitmap.value_():#x}",
                              why=f"{depth} bits in {words} words of {1 << min(shift, 64)}")
        return sbitmap_for_each_set(bitmap)

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


def _in_flight(queue: drgn.Object, bits: Bits) -> Iterator[drgn.Object]:
    """Yield each `struct request *` that a `struct request_queue *` has, with its driver or still in its scheduler.

    drgn's request_queue_busy_iter() (0.3.0) takes the bits of common tags for numbers of requests, before which the
    reserved ones stand: where there are some (SCSI's own commands, 7.x), it finds others.
    """
    tag_set = queue.tag_set.read_()
    if not tag_set:
        return                              # a device of bios, such as dm's
    seen: set[int] = set()
    for request in _tagged(queue, tag_set, bits):
        if request.value_() in seen or request.q.value_() != queue.value_():
            continue
        seen.add(request.value_())
        # A command of the driver's own has no bio, but has begun; what has neither is only kept at hand.
        if request.bio or int(request.state.value_()):
            yield request


def _tagged(queue: drgn.Object, tag_set: drgn.Object, bits: Bits) -> Iterator[drgn.Object]:
    for tags in tag_set.tags[:min(int(tag_set.nr_hw_queues.value_()), _MOST_HARDWARE_QUEUES)]:
        if tags:
            yield from _marked(tags, tags.rqs, "tag", bits)
    for context in islice(_hardware_contexts(queue), _MOST_HARDWARE_QUEUES):
        if context.sched_tags:
            yield from _marked(context.sched_tags, context.sched_tags.static_rqs, "internal_tag", bits)


def _hardware_contexts(queue: drgn.Object) -> Iterator[drgn.Object]:
    if queue.type_.type.has_member("queue_hw_ctx"):
        yield from queue.queue_hw_ctx[:min(int(queue.nr_hw_queues.value_()), _MOST_HARDWARE_QUEUES)]
    else:                                   # 4e5cc99e1e48 "blk-mq: manage hctx map via xarray" (5.18 to 6.18)
        made = queue.prog_.type("struct blk_mq_hw_ctx *")
        for _, entry in xa_for_each(queue.hctx_table.address_of_()):
            yield drgn.cast(made, entry)


def _marked(tags: drgn.Object, requests: drgn.Object, member: str, bits: Bits) -> Iterator[drgn.Object]:
    """Yield the requests whose bits are set in a `struct blk_mq_tags *`; those of reserved tags stand first."""
    reserved = int(tags.nr_reserved_tags.value_())
    maps = [(tags.bitmap_tags, reserved), *([(tags.breserved_tags, 0)] if reserved else [])]
    for bitmap, first in maps:
        for bit in bits(bitmap.sb.address_of_()):
            request = requests[first + bit].read_()
            if request and int(request.member_(member).value_()) == first + bit:
                yield request
