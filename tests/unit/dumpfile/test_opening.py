"""What is not a dump is told by name; malformed headers are refused by what is wrong with them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.opening import open_source
from kdumpy.dumpfile.source import BytesSource
from kdumpy.errors import DamagedDump, DumpFormatError, HostError, KdumpyError


def elf(machine: int = 62, kind: int = 4, size: int = 2, order: int = 1, programs: int = 0, each: int = 56) -> bytes:
    return struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", size, order, 1, kind, machine, 1, 0, 64, 0, 0, 64, each,
                       programs, 0, 0, 0)


def kdump(machine: bytes = b"x86_64", block: int = 4096, version: int = 6, sub: int = 1, bitmap: int = 2,
          pages: int = 8) -> bytes:
    utsname = b"".join(part.ljust(65, b"\0") for part in (b"Linux", b"host", b"6.1", b"#1", machine, b""))
    header = struct.pack("<8si390s6xqqIiiIIIIIIi", b"KDUMP   ", version, utsname, 0, 0, 0, block, sub, bitmap, pages,
                         0, 0, 0, 0, 1)
    return header.ljust(4096, b"\0") + bytes(4 * 4096)


@pytest.mark.parametrize(("data", "error", "words"), [
    (b"", DamagedDump, "empty"),
    (bytes(4096), DamagedDump, "zeros"),
    (b"#!/bin/sh\n", DumpFormatError, "not a dump.*23 21"),
    (b"\xfd7zXZ\0rest", DumpFormatError, "xz archive.*unpack"),
    (b"\x1f\x8brest", DumpFormatError, "gzip"),
    (b"age-encryption.org/v1\n-> X25519 ", DumpFormatError, r"encrypted with age.*age --decrypt -i"),
    (b"\x84\x5e\x03\x4a\x15\x6e", DumpFormatError, r"encrypted with OpenPGP.*gpg --decrypt"),
    (b"\x85\x01\x8c\x03\x27\xb7", DumpFormatError, "encrypted with OpenPGP"),
    (b"\x28\xb5\x2f\xfdrest", DumpFormatError, "zstd archive"),
    (elf()[:40], DamagedDump, "cut short"),
    (elf(size=1), DumpFormatError, "32-bit little-endian"),
    (elf(order=2), DumpFormatError, "64-bit big-endian"),
    (elf(kind=2), DumpFormatError, "not a core dump.*not the vmlinux"),
    (elf(machine=22), DumpFormatError, "s390x"),
    (elf(machine=243), DumpFormatError, "riscv64"),
    (elf(machine=999), DumpFormatError, "number 999"),
    (elf(), DumpFormatError, "no memory in it"),
    (elf(programs=3), DamagedDump, "168 bytes are wanted"),
    (elf(programs=1, each=32), DamagedDump, "32 bytes"),
    (elf(programs=0xffff), DamagedDump, "section headers of 0 bytes"),
    (b"KDUMP   ", DamagedDump, "cut short"),
    (kdump(machine=b"ppc64le"), DumpFormatError, "ppc64le"),
    (kdump(machine=b"\xff\xfe"), DumpFormatError, "not supported"),
    (kdump(block=12345), DamagedDump, "block size 12345"),
    (kdump(block=struct.unpack("<i", struct.pack(">i", 4096))[0]), DumpFormatError, "big-endian"),
    (kdump(version=77), DamagedDump, "version 77"),
    (kdump(sub=-1), DamagedDump, "more than the file holds"),
    (kdump(bitmap=1 << 31), DamagedDump, "more than the file holds"),
    (kdump(pages=1 << 31), DamagedDump, "no room"),
    (b"makedumpfile\0\0\0\0", DamagedDump, "flattened stream is cut short"),
])
def test_refused_with_the_reason(data: bytes, error: type[KdumpyError], words: str) -> None:
    with pytest.raises(error, match=f"(?s)place.*{words}"):
        open_source(BytesSource(data, "place"))


def test_a_small_kdump_file_opens() -> None:
    with open_source(BytesSource(kdump(), "place")) as dump:
        assert (dump.format, dump.page_size, dump.pages_present, dump.max_pfn) == ("kdump", 4096, 0, 8)
        assert dump.utsname is not None
        assert dump.utsname.nodename == "host"
        assert not dump.vmcoreinfo


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot open.*No such file"):
        open_dump(tmp_path / "nothing")
    with pytest.raises(KdumpyError):
        open_dump(tmp_path)


@settings(max_examples=300, deadline=None)
@given(which=st.sampled_from((elf(programs=2) + bytes(200), kdump())), changes=st.lists(
    st.tuples(st.integers(0, 4200), st.binary(min_size=1, max_size=8)), max_size=6), cut=st.integers(0, 30000))
def test_malformed_headers_are_told(which: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    data = bytearray(which)
    for at, new in changes:
        data[at % len(data):at % len(data) + len(new)] = new
    try:
        with open_source(BytesSource(bytes(data[:cut] if cut < len(data) else data))) as dump:
            for run in dump.present():
                dump.has_page(run.start)
                break
            _ = dump.pages_present, dump.prstatus, dump.utsname, dump.crash_time
    except KdumpyError:
        pass
