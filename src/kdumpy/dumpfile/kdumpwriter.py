"""Write the kdump-compressed format, version 6: the sibling of `kdump`; `kdumpheader` explains each field.

The file, in the order of its blocks (one page each):

| what | bytes | written by |
|---|---|---|
| struct disk_dump_header | one block | `begin`, and again by `finish` |
| struct kdump_sub_header, ELF notes (VMCOREINFO is one of them), erase information | `sub_header_blocks` | `begin` |
| bitmap of what is memory | half of `bitmap_blocks` | `bitmap` |
| bitmap of the pages kept | the other half | `bitmap` |
| struct page_desc, one a page kept, by rising pfn | 24 each | `descriptors` |
| the one zero page | some | `begin` |
| page data, in any order | | the caller, from `data_offset` on |

Source: makedumpfile's IMPLEMENTATION, diskdump_mod.h, write_kdump_header().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.compressors import compressor
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.kdumpheader import (
    DESCRIPTOR_SIZE,
    INCOMPLETE,
    NEWEST_VERSION,
    PART_UNIT,
    SUB_HEADER_SIZE,
    Header,
    SubHeader,
)
from kdumpy.dumpfile.notes import Machine, Note, pack_notes
from kdumpy.dumpfile.sink import Sink, clear, is_one_way
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.errors import KdumpyError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOW_32 = 0xffffffff
_SIGNATURE: Final = b"KDUMP   "


class KdumpWriter:
    """One file in the kdump-compressed format, or one part of a split set.

    Order of calls: `begin`, then `bitmap` in rising cycles (or before `begin`), then `descriptors` and the data in
    any order, then `finish`. From `begin` to `finish` the dump is marked incomplete. A dump that was begun and
    not finished can be opened: pages whose descriptor is still zero are told as never written. A stream is not
    marked while it is written, for it cannot be changed: its missing end tells instead.
    """

    def __init__(self, sink: Sink, origin: Dump, *, level: int, compression: str, max_pfn: int | None = None,
                 part: tuple[int, int] | None = None, eraseinfo: bytes = b"") -> None:
        """Prepare a dump of what `origin` is a dump of.

        `level`: the bits of makedumpfile's -d by which pages are left out. `compression`: the method that the
        header names, also used for the zero page. `max_pfn`: one more than the largest page frame number.
        `part`: pages [first, last) are those of this part of a split set (`splitset.parts`). `eraseinfo`: lines
        that tell what was erased, behind what `origin` says of itself.
        """
        if part and part[0] % PART_UNIT:
            raise UsageError("a part of a split set cannot start there",
                             why=f"page {part[0]} is no multiple of {PART_UNIT}, and crash counts in such words")
        self.sink = sink
        self.page_size = origin.page_size
        self.block_size = self.page_size
        self.max_pfn = origin.max_pfn if max_pfn is None else max_pfn
        self.part = part
        self.compressor = compressor(compression)
        self.eraseinfo = erase_information(origin, eraseinfo)
        self.kept = -1
        """Pages that the dump will hold; known from `begin` on."""
        notes, info_at, info_size = pack_notes(notes_to_write(origin))
        sub_size = SUB_HEADER_SIZE + len(notes) + len(self.eraseinfo)
        sub_blocks = -(-sub_size // self.block_size)
        map_blocks = -(-self.max_pfn // (8 * self.block_size))
        self.memory_bitmap_offset = (1 + sub_blocks) * self.block_size
        self.bitmap_offset = self.memory_bitmap_offset + map_blocks * self.block_size
        self.descriptors_offset = self.bitmap_offset + map_blocks * self.block_size
        """In the file, bytes."""
        self.data_offset = 0
        """In the file, bytes: where page data may be written, known from `begin` on."""
        self.zero_descriptor = (0, 0, 0)
        """(offset, size, flags) of the stored zero page, for every page that is zero; known from `begin` on."""
        self._head = _header(origin, self.compressor.flag, self.block_size, sub_blocks, 2 * map_blocks, self.max_pfn)
        notes_at = self.block_size + SUB_HEADER_SIZE
        erased_at = notes_at + len(notes)
        first, last = part or (0, 0)
        sub = SubHeader(
            phys_base=_physical_base(origin), dump_level=level, split=int(part is not None),
            start_pfn=min(first, _LOW_32), end_pfn=min(last, _LOW_32),
            offset_vmcoreinfo=notes_at + info_at if info_size else 0, size_vmcoreinfo=info_size,
            offset_note=notes_at if notes else 0, size_note=len(notes),
            offset_eraseinfo=erased_at if self.eraseinfo else 0, size_eraseinfo=len(self.eraseinfo),
            start_pfn_64=first, end_pfn_64=last, max_mapnr_64=self.max_pfn)
        self._sub = sub.pack() + notes + self.eraseinfo
        self._sub_space = sub_blocks * self.block_size

    def begin(self, kept: int) -> None:
        """Write the headers, marked incomplete, and the zero page; `kept` pages will be in the file (or part)."""
        import numpy as np
        self.kept = kept
        table = kept * DESCRIPTOR_SIZE
        zero = self.compressor.pack(np.zeros((1, self.page_size), np.uint8))
        at = self.descriptors_offset + table
        self.zero_descriptor = (at, len(zero.data), int(zero.flags[0]))
        self.data_offset = at + len(zero.data)
        clear(self.sink, self.memory_bitmap_offset, at - self.memory_bitmap_offset)
        self._write_header(0 if is_one_way(self.sink) else INCOMPLETE)
        self.sink.write_at(self.block_size, self._sub.ljust(self._sub_space, b"\0"))
        self.sink.write_at(at, zero.data)

    def bitmap(self, first_pfn: int, memory: NDArray[np.bool_], kept: NDArray[np.bool_]) -> None:
        """Write a cycle of both bitmaps: is a page memory, is it kept; shapes (n,), from `first_pfn` on.

        `first_pfn` is a multiple of 8, and n as well where another cycle follows right behind. Pages of no cycle
        are neither memory nor kept. The parts of a split set get the whole bitmaps.
        """
        import numpy as np
        if first_pfn % 8:
            raise UsageError("bitmaps are written from a multiple of 8 on", why=f"page {first_pfn} was given")
        room = self.max_pfn - first_pfn
        for offset, bits in ((self.memory_bitmap_offset, memory), (self.bitmap_offset, kept)):
            if len(bits) > room and bits[room:].any():
                raise UsageError("a page beyond the largest is in the bitmap",
                                 why=f"pages {first_pfn} to {first_pfn + len(bits)} of {self.max_pfn}")
            packed = np.packbits(bits[:max(room, 0)], bitorder="little")
            if len(packed):
                self.sink.write_at(offset + first_pfn // 8, packed)

    def descriptors(self, rank: int, offsets: NDArray[np.uint64], sizes: NDArray[np.integer],
                    flags: NDArray[np.integer]) -> None:
        """Write the descriptors of the rank-th kept page (of this part) and those behind it; shapes (n,).

        Holds no state, so that workers forked after `begin` may call it.
        """
        import numpy as np
        if not 0 <= rank <= self.kept - len(offsets):
            raise UsageError("more page descriptors than pages", why=f"{rank} and {len(offsets)} of {self.kept}")
        table = np.zeros(len(offsets), [("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
        table["offset"], table["size"], table["flags"] = offsets, sizes, flags
        self.sink.write_at(self.descriptors_offset + rank * DESCRIPTOR_SIZE, table.view(np.uint8))

    def finish(self, *, incomplete: bool = False) -> None:
        """Write the header again, without the mark unless the dump stays incomplete; the sink stays open."""
        if incomplete or not is_one_way(self.sink):
            self._write_header(INCOMPLETE if incomplete else 0)

    def _write_header(self, status: int) -> None:
        # Always the same bytes at the same place: in a flattened stream the later record replaces the earlier one.
        header = self._head._replace(status=self._head.status | status)
        self.sink.write_at(0, header.pack().ljust(self.block_size, b"\0"))


def _header(origin: Dump, flag: int, block_size: int, sub_blocks: int, map_blocks: int, max_pfn: int) -> Header:
    found = origin.utsname
    if found is None:
        found = Utsname("Linux", "", origin.vmcoreinfo.osrelease, "", origin.machine.value, "")
    return Header(
        signature=_SIGNATURE, header_version=NEWEST_VERSION, utsname=found.pack(),
        time_seconds=origin.crash_time or 0, time_microseconds=0, status=flag, block_size=block_size,
        sub_header_blocks=sub_blocks, bitmap_blocks=map_blocks, max_mapnr=min(max_pfn, _LOW_32),
        # makedumpfile leaves these four 0, and nobody reads them.
        total_ram_blocks=0, device_blocks=0, written_blocks=0, current_cpu=0,
        cpus=max(len(origin.prstatus), 1))


def _physical_base(origin: Dump) -> int:
    """Return what crash takes for phys_base: where the kernel's image (x86-64) or all memory (arm64) starts."""
    if isinstance(origin, KdumpDump) and origin.sub_header.phys_base:
        return origin.sub_header.phys_base
    line = "phys_base" if origin.machine is Machine.X86_64 else "PHYS_OFFSET"
    try:
        base = origin.vmcoreinfo.number(line, 0) % (1 << 64)
    except KdumpyError:
        return 0
    return base - (1 << 64) if base >> 63 else base     # KASLR may put the image below where it is linked


def notes_to_write(origin: Dump) -> list[Note]:
    """Return the notes of a dump, VMCOREINFO among them even where it came from elsewhere; without ERASEINFO."""
    notes = [note for note in origin.notes if note.name != "ERASEINFO"]
    if origin.vmcoreinfo and not any(note.name == "VMCOREINFO" and note.data for note in notes):
        notes.append(Note("VMCOREINFO", 0, origin.vmcoreinfo.raw))
    return notes


def erase_information(origin: Dump, more: bytes = b"") -> bytes:
    """Return what a dump says was erased from it (makedumpfile's lines), and `more` behind it if it is not in it."""
    found = getattr(origin, "eraseinfo", None)  # kdump's sub header has it, and so has a dump that hides secrets
    if not isinstance(found, bytes):
        found = b"".join(note.data for note in origin.notes if note.name == "ERASEINFO").rstrip(b"\0")
    if more in found:
        return found
    return more if more.startswith(found) else found + more
