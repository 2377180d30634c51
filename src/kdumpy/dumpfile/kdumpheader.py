"""The headers of the kdump-compressed format: each field with its unit and where it is defined.

Source: makedumpfile diskdump_mod.h and IMPLEMENTATION; crash diskdump.h. LP64, little endian. What no reader uses
is said so; it is a remnant of the diskdump facility of 2004.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import PAGE_SIZES
from kdumpy.errors import DamagedDump, DumpFormatError

SIGNATURES = {b"KDUMP   ": "kdump", b"DISKDUMP": "diskdump"}

_HEADER = struct.Struct("<8si390s6xqqIiiIIIIIIi")
_SUB_HEADER = struct.Struct("<qii11Q")
_DESCRIPTOR = struct.Struct("<QIIQ")
assert (_HEADER.size, _SUB_HEADER.size, _DESCRIPTOR.size) == (464, 104, 24)

HEADER_SIZE = _HEADER.size
"""Bytes of struct disk_dump_header; its block is padded with zeros."""
SUB_HEADER_SIZE = _SUB_HEADER.size
"""Bytes of struct kdump_sub_header of version 6."""
DESCRIPTOR_SIZE = _DESCRIPTOR.size
"""Bytes of a page descriptor."""
INCOMPLETE = 0x8
"""Bit of the header's status, DUMP_DH_COMPRESSED_INCOMPLETE: makedumpfile ran out of space."""
NEWEST_VERSION = 6
PART_UNIT = 64
"""Pages; the parts of a split set start at multiples of it. Source: crash diskdump.c, read_dump_header(), which
counts the bits before a page in whole words from the part's first page on. makedumpfile's own parts do not."""
_BLOCK_SIZE_AT = 428
MACHINE_AT = 12 + 4 * 65


class Header(NamedTuple):
    """struct disk_dump_header, the file's first 464 bytes."""

    signature: bytes
    """`KDUMP   `, or `DISKDUMP` (8 bytes)."""
    header_version: int
    """0 to 6: how many fields the sub header has (`FIELDS_OF_VERSION`)."""
    utsname: bytes
    """struct new_utsname: six texts of 65 bytes, NUL-ended; 6 bytes of padding follow."""
    time_seconds: int
    """Seconds since the epoch: the crash (makedumpfile, from VMCOREINFO) or the writing; 0 where unknown."""
    time_microseconds: int
    """Microseconds beside them; always 0 in practice."""
    status: int
    """Bits: the compression methods of `compression` (1 zlib, 2 lzo, 4 snappy, 0x20 zstd), 8 `INCOMPLETE`,
    0x10 the struct pages of pages left out were left out as well."""
    block_size: int
    """Bytes of a block: the kernel's page (QEMU takes the largest of the architecture)."""
    sub_header_blocks: int
    """Blocks of sub header, notes and VMCOREINFO; they start in block 1."""
    bitmap_blocks: int
    """Blocks of both bitmaps; they start behind the sub header."""
    max_mapnr: int
    """One more than the largest block number, low 32 bits; all of it is in the sub header of version 6."""
    total_ram_blocks: int
    """Not used: blocks that should be written."""
    device_blocks: int
    """Not used: blocks of the dump device."""
    written_blocks: int
    """Not used: blocks written so far."""
    current_cpu: int
    """Not used: the CPU that wrote the dump."""
    cpus: int
    """Number of CPUs whose registers are in the notes."""

    def pack(self) -> bytes:
        """Return the bytes of the file."""
        return _HEADER.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """Return the fields of the file's first 464 bytes, unchecked."""
        return cls._make(_HEADER.unpack(data))


class SubHeader(NamedTuple):
    """struct kdump_sub_header, at the start of block 1; fields newer than the header's version are 0."""

    phys_base: int = 0
    """Bytes: physical minus virtual address of the kernel's image (x86-64), or where memory starts (arm64)."""
    dump_level: int = 0
    """Version 1. The bits of makedumpfile's -d: 1 zero pages, 2 cache, 4 private cache, 8 user, 16 free."""
    split: int = 0
    """Version 2. 1 when the file is one part of a split set."""
    start_pfn: int = 0
    """Version 2. First page of this part; low 32 bits."""
    end_pfn: int = 0
    """Version 2. One past the last page of this part; low 32 bits."""
    offset_vmcoreinfo: int = 0
    """Version 3. In the file, bytes; mostly inside of the notes. 0 for none, as with the two others."""
    size_vmcoreinfo: int = 0
    """Version 3. Bytes."""
    offset_note: int = 0
    """Version 4. In the file, bytes: the ELF notes."""
    size_note: int = 0
    """Version 4. Bytes."""
    offset_eraseinfo: int = 0
    """Version 5. In the file, bytes: lines such as `erase key_jar size 64`, one for each thing erased."""
    size_eraseinfo: int = 0
    """Version 5. Bytes."""
    start_pfn_64: int = 0
    """Version 6. First page of this part."""
    end_pfn_64: int = 0
    """Version 6. One past the last page of this part."""
    max_mapnr_64: int = 0
    """Version 6. One more than the largest block number."""

    def pack(self) -> bytes:
        """Return the bytes of the file, version 6."""
        return _SUB_HEADER.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> SubHeader:
        """Return the fields of 104 bytes, those of version 6, unchecked."""
        return cls._make(_SUB_HEADER.unpack(data))


FIELDS_OF_VERSION = (1, 2, 5, 7, 9, 11, 14)
"""How many fields of the sub header each header version (0 to 6) has."""


class Descriptor(NamedTuple):
    """struct page_desc: where a page's data is. One for each set bit of the second bitmap, in its order."""

    offset: int
    """In the file, bytes. Several descriptors may name the same data (zero pages, equal pages)."""
    size: int
    """In the file, bytes; at most a block."""
    flags: int
    """The compression method's bit; 0 where the page is stored as it is."""
    page_flags: int
    """Not used: 0."""

    @classmethod
    def read(cls, source: Source, offset: int) -> Descriptor:
        """Read one at `offset` in the file."""
        return cls._make(_DESCRIPTOR.unpack(source.read(offset, DESCRIPTOR_SIZE)))


def descriptors_of(table: bytes) -> map[Descriptor]:
    """Return the descriptors that a piece of the table holds."""
    return map(Descriptor._make, _DESCRIPTOR.iter_unpack(table))


def check_descriptor(descriptor: Descriptor, page_size: int, where: str) -> None:
    """Refuse a descriptor that cannot be right, before anything is read for it."""
    if descriptor.offset == 0 and descriptor.size == 0:
        raise DamagedDump("the page was never written", where=where,
                          why="the program that wrote the dump stopped before it")
    compressed = descriptor.flags & compression.ANY
    if descriptor.size > page_size or (not compressed and descriptor.size != page_size) or not descriptor.size:
        raise DamagedDump("the page's descriptor is wrong", where=where,
                          why=f"{descriptor.size} bytes, flags {descriptor.flags:#x}")


def read_header(source: Source) -> Header:
    """Read and check the header; DumpFormatError or DamagedDump when nothing can be made of it."""
    if source.size < _HEADER.size:
        raise DamagedDump("the dump's header is cut short", where=source.name,
                          why=f"the file has {source.size} bytes")
    header = Header._make(_HEADER.unpack(source.read(0, _HEADER.size)))
    if header.block_size not in PAGE_SIZES:
        swapped = int.from_bytes(header.block_size.to_bytes(4, "little", signed=True), "big")
        if swapped in PAGE_SIZES:
            raise DumpFormatError("big-endian dumps are not supported", where=source.name,
                                  why="x86_64 and aarch64 are", mend="open it with crash")
        machine = Utsname.parse(header.utsname).machine
        if machine in ("i686", "i386", "armv7l"):
            Machine.named(machine, where=source.name)
        raise DamagedDump(f"block size {header.block_size} in the header",
                          where=f"{source.name} at {_BLOCK_SIZE_AT:#x}", why="4096, 16384 and 65536 exist")
    if not 0 <= header.header_version <= NEWEST_VERSION:
        raise DamagedDump(f"header version {header.header_version}", where=f"{source.name} at 0x8",
                          why=f"versions 0 to {NEWEST_VERSION} exist")
    blocks = 1 + header.sub_header_blocks + header.bitmap_blocks
    if header.sub_header_blocks < 0 or blocks * header.block_size > source.size:
        raise DamagedDump("the header speaks of more than the file holds", where=source.name,
                          why=f"{header.sub_header_blocks} blocks of sub header and {header.bitmap_blocks} of bitmaps "
                              f"in {source.size} bytes: the file was cut short, or its header is wrong",
                          mend="copy the dump again from where it was captured")
    return header


def read_sub_header(source: Source, header: Header) -> SubHeader:
    """Read as many fields of the sub header as the header's version has."""
    if not header.sub_header_blocks:
        return SubHeader()
    values = _SUB_HEADER.unpack(source.read(header.block_size, _SUB_HEADER.size))
    return SubHeader._make((*values[:FIELDS_OF_VERSION[header.header_version]],
                            *(0,) * (len(SubHeader._fields) - FIELDS_OF_VERSION[header.header_version])))
