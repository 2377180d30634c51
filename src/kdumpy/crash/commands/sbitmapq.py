"""`sbitmapq`: a struct sbitmap_queue, its bits, and the objects that belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.block import disk_name, for_each_disk
from drgn.helpers.linux.sbitmap import sbitmap_for_each_set

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.struct import find_type, struct_text
from kdumpy.crash.layout import Layout
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, UsageError

_MOST_BITS = 1 << 24
_LARGEST_SHIFT = 6
"""A word holds at most 2^6 bits (lib/sbitmap.c, sbitmap_calculate_shift)."""
_FACTS = ("alloc_hint", "wake_batch", "wake_index", "ws_active", "round_robin", "min_shallow_depth")
"""Members of struct sbitmap_queue; which of them there are differs (include/linux/sbitmap.h)."""


@dataclass(frozen=True)
class BitRow:
    """A fact of the queue, or a bit that is set and the object that belongs to it."""

    name: str
    """The fact's name, or empty for a bit."""
    value: str
    bit: int | None
    address: int | None
    """Of the object in the array (-a)."""
    text: str
    """Its members, with -v or -s STRUCT.MEMBER."""


class Sbitmapq(Command[BitRow]):
    """Show a sbitmap_queue: its depth and the bits that are in use; with -a, the objects that belong to the bits.

    Example:
        crash> sbitmapq vda
        depth = 128
        busy = 0
    """

    names = ("sbitmapq",)
    example = "sbitmapq vda"
    row = BitRow
    args = (
        Arg("address", metavar="ADDRESS|DISK", help="of the struct sbitmap_queue; or a disk, whose tags are meant"),
        Arg("-s", dest="struct", metavar="STRUCT[.MEMBER,…]", help="what the array of -a holds"),
        Arg("-a", dest="array", metavar="ADDRESS", help="an array with an element a bit"),
        Arg("-p", dest="pointers", action="store_true", help="the array holds pointers"),
        Arg("-v", dest="verbose", action="store_true", help="the whole structure"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[BitRow]:
        """Yield the facts and bits, or the objects."""
        if bool(options.struct) != bool(options.array):
            raise UsageError("-s and -a belong together", where="sbitmapq")
        queue = drgn.Object(session.prog, "struct sbitmap_queue", address=_queue(session, options.address))
        depth = queue.sb.depth.value_()
        if not 0 < depth <= _MOST_BITS or queue.sb.map_nr.value_() > depth or queue.sb.shift.value_() > _LARGEST_SHIFT:
            raise DamagedDump(f"a queue of {depth} bits is not believed", where=options.address,
                              mend="the address must be that of a struct sbitmap_queue")
        if options.array:
            yield from _objects(session, queue, options)
            return
        bits = list(sbitmap_for_each_set(queue.sb.address_of_()))
        facts = {"depth": depth, "busy": len(bits), "bits_per_word": 1 << queue.sb.shift.value_(),
                 "map_nr": queue.sb.map_nr.value_()}
        layout = Layout(session, options.radix)
        for name, value in facts.items():
            yield BitRow(name, layout.integer(value), None, None, "")
        for name in _FACTS:
            try:
                member = queue.member_(name) if queue.type_.has_member(name) else queue.sb.member_(name)
                yield BitRow(name, layout.value(member), None, None, "")
            except READ_ERRORS:
                continue
        for bit in bits:
            yield BitRow("", "", bit, None, "")

    def render(self, rows: Iterable[BitRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the queue out as crash does; the bits stand as numbers and not as a dump of bytes."""
        bits = []
        for row in rows:
            if row.bit is None:
                yield f"{row.name} = {row.value}"
            elif row.address is None:
                bits.append(str(row.bit))
            elif row.text:
                yield f"{row.bit} ({row.address:#x}):\n{row.text}\n"
            else:
                yield f"{row.bit}: {row.address:#x}"
        if not options.array:
            yield f"bits in use: {' '.join(bits) or 'none'}"


def _queue(session: Session, text: str) -> int:
    """Return the address of a queue: of the tags of a disk's first hardware queue, where a disk is named.

    Source: include/linux/blk-mq.h; bitmap_tags was a pointer from 5.10 to 5.15.
    """
    for disk in for_each_disk(session.prog):
        if disk_name(disk).decode() == text:
            tags = disk.queue.tag_set.tags[0].bitmap_tags
            return int(tags.value_() if tags.type_.kind == drgn.TypeKind.POINTER else tags.address_ or 0)
    return session.address(text)


def _objects(session: Session, queue: drgn.Object, options: Options) -> Iterator[BitRow]:
    name, _, members = options.struct.partition(".")
    made = find_type(session, name)
    base = session.address(options.array)
    step = 8 if options.pointers else drgn.sizeof(made)
    for bit in sbitmap_for_each_set(queue.sb.address_of_()):
        address = base + bit * step
        if options.pointers:
            address = int(session.prog.read_u64(address))
        text = ""
        if members or options.verbose:
            wanted = [member for member in members.split(",") if member]
            text = struct_text(session, drgn.Object(session.prog, made, address=address), wanted, options.radix)
        yield BitRow("", "", bit, address, text)


COMMAND = Sbitmapq()
