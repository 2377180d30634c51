"""Find the layout of a kdump-compressed dump whose headers are damaged, by what lies behind them.

The table of page descriptors has looks of its own, it starts at a block's border, and the first page's data
follows it: so it tells how many pages there are, and of the ways to cut the blocks before it into sub header and
two bitmaps, only the right one has a second bitmap with that many bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.bulk import DESCRIPTOR
from kdumpy.dumpfile.kdumpheader import HEADER_SIZE, NEWEST_VERSION, SUB_HEADER_SIZE, Header, SubHeader
from kdumpy.dumpfile.notes import parse_notes
from kdumpy.dumpfile.patched import PatchedSource
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import PAGE_SIZES
from kdumpy.errors import DamagedDump

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FARTHEST = 1 << 30
"""Bytes; the table of a machine with 16 TiB starts before it."""
_WINDOW = 4 << 20
_LOOKED_AT = 64
"""Descriptors that must have the looks of some."""
_MOST_SUB_BLOCKS = 1024
_LARGEST_OFFSET = 1 << 48
_NOTE_NAMES = (b"CORE\0", b"VMCOREINFO\0", b"LINUX\0")
_NOTE_HEADER = 12


class Layout(NamedTuple):
    """Where the parts of the file are."""

    block_size: int
    sub_header_blocks: int
    bitmap_blocks: int
    """Of both bitmaps."""
    pages: int
    """Descriptors in the table."""
    flags: int
    """The compression method's bit."""


def mended(source: Source) -> tuple[PatchedSource, list[str]]:
    """Return the file with headers that fit what is behind them, and what was mended, in words.

    Raises:
        DamagedDump: nothing in the file has the looks of a dump's tables.
    """
    layout = find_layout(source)
    size = layout.block_size
    told: list[str] = []
    header = _header(source, layout, told)
    patches = {0: header.pack().ljust(size, b"\0")}
    sub = _sub_header(source, layout, told)
    patches[size] = sub.pack()
    return PatchedSource(source, patches), told


def find_layout(source: Source) -> Layout:
    """Return the layout that the table of descriptors and the bitmaps prove."""
    for block_size in PAGE_SIZES:
        for table in _tables(source, block_size):
            pages, flags = _measure(source, table, block_size)
            layout = _cut(source, table, block_size, pages, flags)
            if layout is not None:
                return layout
    raise DamagedDump("the header is damaged, and nothing behind it tells how the dump is laid out",
                      where=source.name, why="no page descriptors and no bitmap that fits them were found")


def _looks_right(table: NDArray[np.void], at: int, block_size: int) -> NDArray[np.bool_]:
    offset, size, flags = (table[name] for name in ("offset", "size", "flags"))
    known = (flags == 0) | (flags == compression.ZLIB) | (flags == compression.LZO) | \
        (flags == compression.SNAPPY) | (flags == compression.ZSTD)
    right: NDArray[np.bool_] = known & (size > 0) & (size <= block_size) & ((flags != 0) | (size == block_size)) \
        & (offset > at) & (offset < _LARGEST_OFFSET) & (table["page_flags"] == 0)
    return right


def _tables(source: Source, block_size: int) -> list[int]:
    """Return the blocks at which a table of descriptors may start: where it begins, not where it goes on."""
    found = []
    need = _LOOKED_AT * DESCRIPTOR.itemsize
    before = False
    for start in range(2 * block_size, min(source.size - need, _FARTHEST), _WINDOW):
        data = source.read(start, min(_WINDOW + need, source.size - start))
        for at in range(0, min(len(data) - need, _WINDOW), block_size):
            # A table goes on over the next border in the middle of a descriptor, two times of three.
            table = np.frombuffer(data, DESCRIPTOR, _LOOKED_AT, at)
            right = bool(_looks_right(table, start + at, block_size).all())
            if right and not before:
                found.append(start + at)
            before = right
        if len(found) > 16:
            break
    return found


def _measure(source: Source, table: int, block_size: int) -> tuple[int, int]:
    """Return how many descriptors a table has, and the compression that most of them name."""
    lowest, count, at = source.size, 0, table
    flags: dict[int, int] = {}
    while at < lowest:
        held = min(_WINDOW, source.size - at) // DESCRIPTOR.itemsize
        if not held:
            break
        piece = np.frombuffer(source.read(at, held * DESCRIPTOR.itemsize), DESCRIPTOR)
        right = _looks_right(piece, table, block_size)
        held = held if right.all() else int(np.argmin(right))
        if not held:
            break
        lowest = min(lowest, int(piece["offset"][:held].min()))
        names, counts = np.unique(piece["flags"][:held], return_counts=True)
        for name, number in zip(names.tolist(), counts.tolist(), strict=True):
            flags[name] = flags.get(name, 0) + number
        count += held
        at += held * DESCRIPTOR.itemsize
        if held < len(right):
            break
    flags.pop(0, None)
    # Page data may look like descriptors, and descriptors may be damaged: the first data tells where they end.
    count = (lowest - table) // DESCRIPTOR.itemsize if lowest > table else count
    return count, max(flags, key=lambda name: flags[name], default=0)


def _cut(source: Source, table: int, block_size: int, pages: int, flags: int) -> Layout | None:
    """Return the layout in which the second bitmap has as many bits as there are descriptors."""
    blocks = table // block_size
    data = np.frombuffer(source.read(0, table), np.uint8).reshape(blocks, block_size)
    set_bits = np.zeros(blocks + 1, np.int64)
    set_bits[1:] = np.cumsum([int.from_bytes(row.tobytes(), "little").bit_count() for row in data])
    for sub in range(1, min(blocks - 2, _MOST_SUB_BLOCKS) + 1):
        both = blocks - 1 - sub
        if both % 2:
            continue
        first, second = 1 + sub, 1 + sub + both // 2
        if int(set_bits[blocks] - set_bits[second]) != pages:
            continue
        if not (data[second:] & ~data[first:second]).any():     # what is kept is memory
            return Layout(block_size, sub, both, pages, flags)
    return None


def _header(source: Source, layout: Layout, told: list[str]) -> Header:
    raw = source.read(0, HEADER_SIZE)
    largest = Header.unpack(raw).max_mapnr
    blocks = layout.bitmap_blocks // 2 * layout.block_size * 8
    names = Utsname.parse(raw[12:12 + 390])
    release = names.release.isascii() and names.release.isprintable() and names.sysname == "Linux"
    told.append("its header was written anew, after the page descriptors and the bitmaps")
    if not release:
        told.append("the host's name and the kernel's version in the header are lost")
    return Header(
        signature=b"KDUMP   ", header_version=NEWEST_VERSION, utsname=raw[12:12 + 390] if release else bytes(390),
        time_seconds=0, time_microseconds=0, status=layout.flags, block_size=layout.block_size,
        sub_header_blocks=layout.sub_header_blocks, bitmap_blocks=layout.bitmap_blocks,
        max_mapnr=(largest if 0 < blocks - largest <= layout.block_size * 8 else blocks) & 0xffffffff,
        total_ram_blocks=0, device_blocks=0, written_blocks=0, current_cpu=0, cpus=1)


def _sub_header(source: Source, layout: Layout, told: list[str]) -> SubHeader:
    size = layout.block_size
    found = SubHeader.unpack(source.read(size, SUB_HEADER_SIZE))
    largest = layout.bitmap_blocks // 2 * size * 8
    end = (1 + layout.sub_header_blocks) * size
    plausible = 0 <= found.dump_level <= 31 and found.split in (0, 1) and found.start_pfn_64 <= largest \
        and found.end_pfn_64 <= largest and (not found.split or found.end_pfn_64)
    if not plausible:
        found = SubHeader(dump_level=0)
        told.append("the dump level is lost")
    if not 0 < largest - found.max_mapnr_64 + 1 <= size * 8:
        found = found._replace(max_mapnr_64=largest)
    notes = source.read(found.offset_note, found.size_note) if found.offset_note and size < found.offset_note and \
        found.offset_note + found.size_note <= end else b""
    if not any(parse_notes(notes)):
        start = _find_notes(source, size, end)
        found = found._replace(offset_note=start or 0, size_note=end - start if start else 0, offset_vmcoreinfo=0,
                               size_vmcoreinfo=0)
        told.append("its notes were found by their looks" if start else "its notes are lost")
    if found.offset_vmcoreinfo + found.size_vmcoreinfo > end or found.offset_vmcoreinfo < size:
        found = found._replace(offset_vmcoreinfo=0, size_vmcoreinfo=0)
    if found.offset_eraseinfo + found.size_eraseinfo > source.size:
        found = found._replace(offset_eraseinfo=0, size_eraseinfo=0)
    return found


def _find_notes(source: Source, start: int, end: int) -> int | None:
    """Return where the first ELF note lies, or None."""
    data = source.read(start + SUB_HEADER_SIZE, max(end - start - SUB_HEADER_SIZE, 0))
    places = []
    for name in _NOTE_NAMES:
        at = data.find(name)
        while at >= _NOTE_HEADER:
            if int.from_bytes(data[at - _NOTE_HEADER:at - _NOTE_HEADER + 4], "little") == len(name):
                places.append(at - _NOTE_HEADER)
                break
            at = data.find(name, at + 1)
    return start + SUB_HEADER_SIZE + min(places) if places else None
