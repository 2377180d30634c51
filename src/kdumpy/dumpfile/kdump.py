"""The kdump-compressed format ("diskdump"): makedumpfile's, QEMU's and kdumpy's own vmcore.

Blocks of one page: header | sub header (and VMCOREINFO, notes) | first bitmap | second bitmap |
page descriptors, one a set bit of the second bitmap, in order | page data. The headers' fields are in `kdumpheader`.

Source: makedumpfile diskdump_mod.h and IMPLEMENTATION; crash diskdump.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.base import MAX_PHYSICAL, PagedDump
from kdumpy.dumpfile.bitmap import Bitmap
from kdumpy.dumpfile.kdumpheader import (
    DESCRIPTOR_SIZE,
    INCOMPLETE,
    MACHINE_AT,
    NEWEST_VERSION,
    SIGNATURES,
    Descriptor,
    check_descriptor,
    descriptors_of,
    read_header,
    read_sub_header,
)
from kdumpy.dumpfile.notes import LARGEST as LARGEST_NOTES
from kdumpy.dumpfile.notes import Machine, Note, machine_of, parse_notes
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import LARGEST, PAGE_SIZES, VmcoreInfo
from kdumpy.errors import DamagedDump, KdumpyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kdumpy.dumpfile.descriptors import Survey


def recognised(start: bytes) -> bool:
    """Tell whether a file that starts so is in this format."""
    return start[:8] in SIGNATURES


class KdumpDump(PagedDump):
    """A dump in the kdump-compressed format; one file, or one part of a split set."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._last_block = (-1, b"")
        self.damaged_reads = 0
        """How often a block was asked for that the dump should hold and does not give."""
        self.source = source
        self.header = read_header(source)
        self.format = SIGNATURES[self.header.signature]
        self.page_size = self.block_size = self.header.block_size
        """Bytes of the kernel's page; `block_size`, the file's own unit, may be a multiple (QEMU, arm64)."""
        self.sub_header = read_sub_header(source, self.header)
        self.blocks = self.sub_header.max_mapnr_64 or self.header.max_mapnr
        """One more than the largest block number there can be."""
        self.incomplete = bool(self.header.status & INCOMPLETE)
        self._read_notes()
        self.machine = self._find_machine()
        start, size, self.descriptors_offset = self._lay_out_bitmap()
        self.split = self._split_range()
        """(first, one past the last) pfn of this part of a split set, or None."""
        first, last = self.split or (0, self.blocks)
        self.bitmap = Bitmap(source, start, size, first, min(last, self.blocks))
        self._count_pages()

    # The headers.

    def _read_notes(self) -> None:
        sub, name = self.sub_header, self.source.name
        data = _claimed(self.source, sub.offset_note, sub.size_note, LARGEST_NOTES)
        self.notes: tuple[Note, ...] = tuple(parse_notes(data))
        info = _claimed(self.source, sub.offset_vmcoreinfo, sub.size_vmcoreinfo, LARGEST)
        self._choose_vmcoreinfo(VmcoreInfo(info, where=f"{name}, VMCOREINFO at {sub.offset_vmcoreinfo:#x}")
                               if info else None)

    @property
    def eraseinfo(self) -> bytes:
        """Lines that tell what was erased (`SubHeader.offset_eraseinfo`), without padding; mostly empty."""
        sub = self.sub_header
        return _claimed(self.source, sub.offset_eraseinfo, sub.size_eraseinfo, LARGEST).rstrip(b"\0")

    def _find_machine(self) -> Machine:
        name = Utsname.parse(self.header.utsname).machine
        if name in ("", "Unknown"):  # QEMU leaves it so for arm64
            found = machine_of(self.notes)
            if found is not None:
                return found
        return Machine.named(name, where=f"{self.source.name} at {MACHINE_AT:#x}")

    def _lay_out_bitmap(self) -> tuple[int, int, int]:
        """Return the second bitmap's offset and size, and the descriptors' offset (bytes)."""
        start = (1 + self.header.sub_header_blocks) * self.block_size
        size = self.header.bitmap_blocks * self.block_size
        descriptors = start + size
        needed = -(-self.blocks // 8)
        if self.blocks * self.block_size > MAX_PHYSICAL or needed > size:
            raise DamagedDump(f"the header speaks of {self.blocks} pages", where=self.source.name,
                              why=f"the bitmap of {self.header.bitmap_blocks} blocks has no room for them")
        self._memory_bitmap = start
        if needed <= size // 2:  # the usual dump: a bitmap of what is memory, and one of what was kept
            start += size // 2
        return start, needed, descriptors

    def _count_pages(self) -> None:
        """Count pages as the kernel does; the bitmap and the descriptors go on counting blocks."""
        try:
            size = self.vmcoreinfo.page_size if self.vmcoreinfo else self.block_size
        except KdumpyError:
            size = self.block_size
        if size in PAGE_SIZES and size < self.block_size:
            self.page_size = size
        self.pages_per_block = self.block_size // self.page_size
        self.max_pfn = self.blocks * self.pages_per_block

    def _split_range(self) -> tuple[int, int] | None:
        sub = self.sub_header
        if not sub.split:
            return None
        first, last = sub.start_pfn, sub.end_pfn
        if self.header.header_version >= NEWEST_VERSION:
            first, last = sub.start_pfn_64, sub.end_pfn_64
        if not first <= last or first > self.blocks:
            raise DamagedDump("the part of a split dump is wrong", where=f"{self.source.name}, sub header",
                              why=f"it says pages {first} to {last} of {self.blocks}")
        return first, last

    def _header_utsname(self) -> Utsname | None:
        found = Utsname.parse(self.header.utsname)
        return found if found.sysname == "Linux" and found.release else None

    @property
    def dump_level(self) -> int | None:
        """The bits of makedumpfile's -d; None before header version 1."""
        return self.sub_header.dump_level if self.header.header_version >= 1 else None

    @property
    def crash_time(self) -> int | None:
        """Seconds since the epoch: VMCOREINFO's, else the header's."""
        return super().crash_time or self.header.time_seconds or None

    @property
    def compression(self) -> str:
        """What the header says; a page that did not shrink is stored as it is all the same."""
        return compression.name_of(self.header.status)

    # The pages.

    @property
    def pages_present(self) -> int:  # type: ignore[override]  # counted when asked for
        """Pages whose bit is set; the first call reads the whole bitmap."""
        return self.bitmap.count * self.pages_per_block

    def has_page(self, pfn: int) -> bool:
        """Tell whether a page's bit is set."""
        return self.bitmap.has(pfn // self.pages_per_block)

    def held(self, pfns: Sequence[int] | NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell of many pages at once whether their bits are set; shape (n,)."""
        import numpy as np

        from kdumpy.dumpfile.bulk import held
        return held(self.bitmap, np.asarray(pfns, np.int64) // self.pages_per_block)

    def present(self) -> Iterator[range]:
        """Yield the page frame numbers held, as rising ranges."""
        times = self.pages_per_block
        for run in self.bitmap.ranges():
            yield range(run.start * times, run.stop * times)

    def kept_beyond_memory(self) -> int:
        """Return how many pages are kept that are not memory; more than 0 tells that a bitmap is damaged."""
        kept = self.bitmap
        if kept.offset == self._memory_bitmap:
            return 0  # there is one bitmap only
        memory = Bitmap(self.source, self._memory_bitmap, kept.size, kept.first, kept.last)
        return sum((int.from_bytes(one, "little") & ~int.from_bytes(two, "little")).bit_count()
                   for (_, one), (_, two) in zip(kept.chunks(), memory.chunks(), strict=True))

    @cached_property
    def survey(self) -> Survey:
        """What all descriptors together say; the first call reads them all."""
        from kdumpy.dumpfile.descriptors import survey

        return survey(self)

    def descriptor(self, rank: int) -> Descriptor:
        """Return the descriptor of the rank-th page held (from 0)."""
        at = self.descriptors_offset + rank * DESCRIPTOR_SIZE
        return Descriptor.read(self.source, at)

    def descriptors(self, rank: int, count: int) -> Iterator[Descriptor]:
        """Yield `count` descriptors from the rank-th on."""
        at = self.descriptors_offset + rank * DESCRIPTOR_SIZE
        yield from descriptors_of(self.source.read(at, count * DESCRIPTOR_SIZE))

    def _page(self, pfn: int) -> bytes:
        if self.pages_per_block == 1:
            return self.block(pfn)
        number, part = divmod(pfn, self.pages_per_block)
        if self._last_block[0] != number:
            self._last_block = (number, self.block(number))
        return self._last_block[1][part * self.page_size:(part + 1) * self.page_size]

    def block(self, number: int) -> bytes:
        """Return one block of `block_size` bytes, from physical address number * block_size on."""
        if not self.bitmap.has(number):
            if self.split and not self.split[0] <= number < self.split[1]:
                raise self._missing(number * self.pages_per_block, "it is in another part of this split dump")
            raise self._missing(number * self.pages_per_block,
                                "it was filtered out when the dump was written, or is not memory")
        try:
            return self.stored(self.descriptor(self.bitmap.rank(number)),
                                f"{self.source.name}, physical {number * self.block_size:#x}")
        except DamagedDump:
            self.damaged_reads += 1
            raise

    def stored(self, descriptor: Descriptor, where: str) -> bytes:
        """Return the block that a descriptor leads to."""
        check_descriptor(descriptor, self.block_size, where)
        if descriptor.offset + descriptor.size > self.source.size:
            raise DamagedDump("the page's data lies beyond the end of the file", where=where,
                              why=f"{descriptor.size} bytes at {descriptor.offset:#x} are wanted, the file has "
                                  f"{self.source.size}: it was cut short, or the descriptor is wrong",
                              mend="copy the dump again from where it was captured")
        data = self.source.read(descriptor.offset, descriptor.size)
        if descriptor.flags & compression.ANY:
            return compression.decompress(descriptor.flags, data, self.block_size, where)
        return data

    def read_pages(self, pfns: Sequence[int] | NDArray[np.integer],
                   missing: Literal["raise", "zero"] = "raise") -> NDArray[np.uint8]:
        """Return whole pages, shape (n, page_size), in the order asked for; see `kdumpy.dumpfile.bulk`."""
        from kdumpy.dumpfile.bulk import read_kdump_pages
        return read_kdump_pages(self, pfns, missing)


def _claimed(source: Source, offset: int, size: int, limit: int) -> bytes:
    """Return what of an extent that a header claims is in the file; health tells of the rest."""
    size = min(size, max(source.size - offset, 0), limit)
    return source.read(offset, size) if offset and size else b""
