from __future__ import annotations

import ctypes
import importlib.metadata
import struct
from pathlib import Path

import pytest
from tools.packages.elf import ENTRY, compacted

LIBRARIES = sorted(Path(str(file.locate())) for name in ("drgn", "numpy", "zstandard", "cramjam", "isal")
                   for file in importlib.metadata.files(name) or () if ".so" in file.name)


def segments(data: bytes) -> list[tuple[int, ...]]:
    """Return (type, flags, address, size, size in memory, contents' hash) of all segments: what the loader sees."""
    (table,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    found = []
    for index in range(count):
        kind, flags, offset, address, _, size, memory, align = ENTRY.unpack_from(data, table + index * ENTRY.size)
        if kind == 1:
            assert (address - offset) % max(align, 1) == 0
            assert (address - offset) % 4096 == 0
            body = bytearray(data[offset:offset + size])
            if offset == 0:
                body[32:64] = bytes(32)                     # the header's places of tables
            for other in range(count):                      # the table itself holds offsets
                at = table + other * ENTRY.size + 8 - offset
                if 0 <= at < len(body):
                    body[at:at + 8] = bytes(8)
                    body[at + 40:at + 48] = bytes(8)
            found.append((kind, flags, address, size, memory, hash(bytes(body))))
        elif size:
            found.append((kind, flags, address, size, memory, hash(data[offset:offset + size])))
    # PT_PHDR's contents are the table.
    return [segment[:5] if segment[0] == 6 else segment for segment in found]


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.name)
def test_a_compacted_library_maps_to_the_same_memory(path: Path) -> None:
    data = path.read_bytes()
    small = compacted(data)
    assert len(small) <= len(data)
    assert segments(small) == segments(data)
    assert compacted(small) == small


def test_the_holes_are_what_goes() -> None:
    of_drgn = [path for path in LIBRARIES if path.parent.name == "drgn.libs"]
    before, after = (sum(map(len, group)) for group in ([path.read_bytes() for path in of_drgn],
                                                         [compacted(path.read_bytes()) for path in of_drgn]))
    assert before > 50e6
    assert after < before / 5


def test_a_compacted_library_loads_and_runs(tmp_path: Path) -> None:
    source = next(path for path in LIBRARIES if path.name.startswith("libbz2"))
    copy = tmp_path / "library.so"
    copy.write_bytes(compacted(source.read_bytes()))
    assert copy.stat().st_size < source.stat().st_size / 4
    version = ctypes.CDLL(str(copy)).BZ2_bzlibVersion
    version.restype = ctypes.c_char_p
    assert version().startswith(b"1.")


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n",
                                  b"\x7fELF\x01\x01" + bytes(100),
                                  b"\x7fELF\x02\x02" + bytes(100)])
def test_what_is_no_such_file_comes_back_as_it_is(data: bytes) -> None:
    assert compacted(data) == data


def test_segments_that_share_bytes_are_left_alone() -> None:
    header = bytearray(b"\x7fELF\x02\x01\x01".ljust(64, b"\0"))
    struct.pack_into("<HH", header, 16, 3, 62)
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 2)
    table = ENTRY.pack(1, 5, 0, 0, 0, 4096, 4096, 0x200000)
    table += ENTRY.pack(1, 6, 2048, 0x202800, 0x202800, 2048, 2048, 0x200000)
    data = (bytes(header) + table).ljust(4096, b"\1")
    assert compacted(data) == data
