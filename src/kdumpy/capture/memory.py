"""Where the crashed machine had memory, whether the dump holds its pages or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdumpy.dumpfile.elf import ElfDump
from kdumpy.dumpfile.erased import ErasedDump
from kdumpy.dumpfile.storedcopy import memory_bitmap, parts_of

if TYPE_CHECKING:
    from kdumpy.dumpfile import Dump


def memory_of(dump: Dump) -> Iterator[range]:
    """Yield the page frame numbers of the machine's memory, held or not, as rising ranges."""
    if isinstance(dump, ErasedDump):
        dump = dump.dump
    parts = parts_of(dump)
    if parts:
        bitmap = memory_bitmap(parts[0])
        if bitmap is not None:
            yield from bitmap.ranges()
            return
    if isinstance(dump, ElfDump):
        done = 0
        for segment in dump.segments:
            start = max(-(-segment.address // dump.page_size), done)
            stop = min((segment.address + segment.memory_size) // dump.page_size, dump.max_pfn)
            if stop > start:
                yield range(start, stop)
                done = stop
        return
    yield from dump.present()


def filtered(dump: Dump) -> bool:
    """Tell whether a dump knows of memory that it does not hold."""
    if isinstance(dump, ElfDump):
        return any(segment.memory_size > segment.file_size for segment in dump.segments)
    return isinstance(dump, ErasedDump) or parts_of(dump) is not None
