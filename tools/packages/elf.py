"""Shared objects made small: the holes between their segments taken out, and what no segment holds.

Wheels' libraries are patched by tools that align each segment in the file on 2 MiB, whatever the page: drgn's
33 libraries take 120 MB on the disk, of which 100 MB are zeros.

Source: the System V ABI, chapter 5: a segment's file offset and address are congruent modulo its alignment, which
need not be more than the machine's largest page.
"""

from __future__ import annotations

import itertools
import struct

from kdumpy.image.elfimage import EM_X86_64, PT_LOAD, loaded_part

PAGES = {EM_X86_64: 0x1000}
"""The largest page of a machine, in bytes; 64 KiB elsewhere, as on AArch64."""

HEADER_BYTES = 64
ENTRY = struct.Struct("<IIQQQQQQ")
"""Program header of a 64-bit little endian file: type, flags, offset, vaddr, paddr, filesz, memsz, align."""


def compacted(data: bytes) -> bytes:
    """Return a shared object that the loader maps to the same memory, in fewer bytes.

    Files that are no 64-bit little endian ELF, or whose layout is not the usual one, come back as they are.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        return data
    data = loaded_part(data)
    (machine,) = struct.unpack_from("<H", data, 18)
    page = PAGES.get(machine, 0x10000)
    (table_at,) = struct.unpack_from("<Q", data, 32)
    entry_bytes, count = struct.unpack_from("<HH", data, 54)
    if entry_bytes != ENTRY.size:
        return data
    headers = [list(ENTRY.unpack_from(data, table_at + index * ENTRY.size)) for index in range(count)]
    loads = sorted((offset, size, address) for kind, _, offset, address, _, size, _, _ in headers
                   if kind == PT_LOAD and size)
    if not loads or loads[0][0] != 0 or loads[0][1] < HEADER_BYTES:
        return data                                    # the file's header has to stay where it is
    if any(before[0] + before[1] > after[0] for before, after in itertools.pairwise(loads)):
        return data                                    # segments share bytes
    moved: list[tuple[int, int, int]] = []             # old offset, size, new offset
    body = bytearray()
    for offset, size, address in loads:
        at = len(body) + (address - len(body)) % page
        body = body.ljust(at, b"\0")
        body += data[offset:offset + size]
        moved.append((offset, size, at))

    def place(offset: int) -> int | None:
        return next((new + offset - old for old, size, new in moved if old <= offset < old + size), None)

    table = place(table_at)
    if table is None:
        return data                                    # the table is not mapped: leave such a file alone
    for index, fields in enumerate(headers):
        if fields[5]:                                  # bytes in the file
            new = place(fields[2])
            if new is None:
                return data
            fields[2] = new
        if fields[0] == PT_LOAD:
            fields[7] = min(fields[7], page)
            if not fields[5]:
                fields[2] = fields[3] % page
        ENTRY.pack_into(body, table + index * ENTRY.size, *fields)
    struct.pack_into("<Q", body, 32, table)
    return bytes(body) if len(body) < len(data) else data
