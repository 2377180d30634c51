"""The requests that a queue of a disk has and that were not answered.

Sources: block/blk-mq-tag.c, include/linux/blk-mq.h, include/linux/sbitmap.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import drgn
from drgn.helpers.linux.sbitmap import sbitmap_for_each_set
from drgn.helpers.linux.xarray import xa_for_each

from kdumpy.errors import DamagedDump

_MOST_HARDWARE_QUEUES = 8192
_MOST_WORDS = 1 << 21
"""Of the bitmaps of all disks together."""
_MOST_TAGS, _LARGEST_SHIFT = 1 << 16, 6
"""Of one bitmap: BLK_MQ_MAX_DEPTH is 10240 (include/linux/blk-mq.h); a word holds at most 2^6 bits
(lib/sbitmap.c, sbitmap_calculate_shift)."""


class Queues:
    """Goes through queues, all of which share one bound."""

    def __init__(self) -> None:
        self._words = 0
        """Words of bitmaps that were read."""

    def in_flight(self, queue: drgn.Object) -> Iterator[drgn.Object]:
        """Yield each `struct request *` that a `struct request_queue *` has, with its driver or still in its scheduler.

        drgn's request_queue_busy_iter() (0.3.0) takes the bits of common tags for numbers of requests, before which the
        reserved ones stand: where there are some (SCSI's own commands, 7.x), it finds others.

        Raises:
            DamagedDump: a bitmap is larger than any can be.
            READ_ERRORS: they cannot be read.
        """
        tag_set = queue.tag_set.read_()
        if not tag_set:
            return                              # a device of bios, such as dm's
        seen: set[int] = set()
        for request in self._tagged(queue, tag_set):
            if request.value_() in seen or request.q.value_() != queue.value_():
                continue
            seen.add(request.value_())
            # A command of the driver's own has no bio, but has begun; what has neither is only kept at hand.
            if request.bio or int(request.state.value_()):
                yield request

    def _tagged(self, queue: drgn.Object, tag_set: drgn.Object) -> Iterator[drgn.Object]:
        for tags in tag_set.tags[:min(int(tag_set.nr_hw_queues.value_()), _MOST_HARDWARE_QUEUES)]:
            if tags:
                yield from self._marked(tags, tags.rqs, "tag")
        for context in islice(_hardware_contexts(queue), _MOST_HARDWARE_QUEUES):
            if context.sched_tags:
                yield from self._marked(context.sched_tags, context.sched_tags.static_rqs, "internal_tag")

    def _marked(self, tags: drgn.Object, requests: drgn.Object, member: str) -> Iterator[drgn.Object]:
        """Yield the requests whose bits are set in a `struct blk_mq_tags *`; those of reserved tags stand first."""
        reserved = int(tags.nr_reserved_tags.value_())
        maps = [(tags.bitmap_tags, reserved), *([(tags.breserved_tags, 0)] if reserved else [])]
        for bitmap, first in maps:
            for bit in self._set_bits(bitmap.sb.address_of_()):
                request = requests[first + bit].read_()
                if request and int(request.member_(member).value_()) == first + bit:
                    yield request

    def _set_bits(self, bitmap: drgn.Object) -> Iterator[int]:
        """Return the bits that are set in a `struct sbitmap *`.

        Raises:
            DamagedDump: it claims to have more than any has, or all of them together do.
        """
        depth, shift, words = (int(bitmap.member_(name).value_()) for name in ("depth", "shift", "map_nr"))
        self._words += words
        if depth > _MOST_TAGS or shift > _LARGEST_SHIFT or words > depth or self._words > _MOST_WORDS:
            raise DamagedDump("a bitmap of requests is larger than any can be", where=f"address {bitmap.value_():#x}",
                              why=f"{depth} bits in {words} words of {1 << min(shift, 64)}")
        return sbitmap_for_each_set(bitmap)


def _hardware_contexts(queue: drgn.Object) -> Iterator[drgn.Object]:
    if queue.type_.type.has_member("queue_hw_ctx"):
        yield from queue.queue_hw_ctx[:min(int(queue.nr_hw_queues.value_()), _MOST_HARDWARE_QUEUES)]
    else:                                   # 4e5cc99e1e48 "blk-mq: manage hctx map via xarray" (5.18 to 6.18)
        made = queue.prog_.type("struct blk_mq_hw_ctx *")
        for _, entry in xa_for_each(queue.hctx_table.address_of_()):
            yield drgn.cast(made, entry)
