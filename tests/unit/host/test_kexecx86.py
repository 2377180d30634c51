"""Segments for kexec_load: where they lie, what they hold, and what the capture kernel is told of the memory."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from armedhost import MIB, RELEASE, Host
from kdumpy.errors import HostError
from kdumpy.host import corehdr, kexecx86
from kdumpy.host.corehdr import PAGE, Range
from kdumpy.host.kexecx86 import Layout

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-bffdffff : System RAM
  01000000-01ffffff : Kernel code
  27000000-36ffffff : Crash kernel
bffe0000-bfffffff : ACPI Tables
fee00000-fee00fff : Reserved
100000000-13fffffff : System RAM
"""

OFFSET, TEXT = 0xFFFF_9999_0000_0000, 0xFFFF_FFFF_A100_0000


def kernel(*, init_size: int = 40 * MIB, flags: int = 3) -> bytes:
    image = bytearray(60 << 10)
    image[0x1F1], image[0x201] = 31, 0x6A
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<I", image, 0x230, 2 * MIB)
    struct.pack_into("<H", image, 0x236, flags)
    struct.pack_into("<I", image, 0x238, 2047)
    struct.pack_into("<I", image, 0x260, init_size)
    image[32 * 512:32 * 512 + 4] = b"body"
    return bytes(image)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.write("/proc/iomem", IOMEM)
    for number in range(2):
        made.write(f"/sys/devices/system/cpu/cpu{number}/crash_notes", f"{0x3f000000 + 0x1000 * number:x}\n")
        made.write(f"/sys/devices/system/cpu/cpu{number}/crash_notes_size", "368\n")
    made.write("/sys/kernel/vmcoreinfo", "0x3e000000 1024\n")
    programs = [(0, 0, (1 << 64) - 1, 0), (TEXT, 0, 0x1000000, 0x2600000), (OFFSET + 0x1000, 0, 0x1000, 0x9e000)]
    table = b"".join(struct.pack("<IIQQQQQQ", 1, 7, 0, virtual, physical, size, size, PAGE)
                     for virtual, _zero, physical, size in programs)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(programs), 0, 0,
                       0)
    made.write("/proc/kcore", head + table)
    given = bytearray(PAGE)
    given[0:4], given[0x70:0x78] = b"\1\2\3\4", struct.pack("<Q", 0xBFFE0014)
    made.write("/sys/kernel/boot_params/data", bytes(given))
    return made


def programs(core: bytes) -> list[tuple[int, ...]]:
    number = struct.unpack_from("<H", core, 56)[0]
    return [struct.unpack_from("<IIQQQQQQ", core, 64 + 56 * one) for one in range(number)]


def test_the_core_headers_name_notes_text_and_all_memory_but_the_capture_kernels(host: Host) -> None:
    found = programs(corehdr.headers(host.system))
    notes = [(one[2], one[5]) for one in found if one[0] == 4]
    assert notes == [(0x3f000000, 368), (0x3f001000, 368), (0x3e000000, 0x1024)]
    loads = [(one[3], one[4], one[5]) for one in found if one[0] == 1]
    assert loads == [(TEXT, 0x1000000, 0x2600000),
                     (OFFSET + 0x100000, 0x100000, 0x27000000 - 0x100000),
                     (OFFSET + 0x37000000, 0x37000000, 0xbffe0000 - 0x37000000),
                     (OFFSET + 0x100000000, 0x100000000, 0x40000000)]


def overlaps(layout: Layout) -> bool:
    spans = sorted((one.address, one.address + one.size) for one in layout.segments)
    return any(first[1] > second[0] for first, second in pairwise(spans))


@budget(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(initrd=st.integers(1, 100 * MIB), text=st.integers(0, 2000), init_size=st.integers(1 * MIB, 120 * MIB))
def test_segments_lie_in_the_reserved_memory_on_pages_and_apart(host: Host, initrd: int, text: int,
                                                                init_size: int) -> None:
    layout = kexecx86.lay_out(host.system, kernel(init_size=init_size), bytes(initrd), "x" * text)
    assert not overlaps(layout)
    for one in layout.segments:
        assert one.address % PAGE == one.size % PAGE == 0
        assert one.address >= 0x27000000
        assert one.address + one.size <= 0x37000000
        assert len(one.data) <= one.size
    assert layout.segments[0].address % (2 * MIB) == 0
    assert layout.segments[0].size >= init_size
    assert layout.entry in [one.address for one in layout.segments]


def test_the_boot_parameters_lead_to_everything(host: Host) -> None:
    layout = kexecx86.lay_out(host.system, kernel(), b"initrd", "console=ttyS0")
    body, initrd, stub, params, core = layout.segments
    assert body.data.startswith(b"body")
    zero = params.data[:PAGE]
    assert zero[0:4] == b"\1\2\3\4"
    assert struct.unpack_from("<Q", zero, 0x70)[0] == 0xBFFE0014
    assert struct.unpack_from("<I", zero, 0x228)[0] == params.address + PAGE
    assert struct.unpack_from("<II", zero, 0x218) == (initrd.address, 6)
    assert params.data[PAGE:] == f"elfcorehdr=0x{core.address:x} console=ttyS0\0".encode()
    assert zero[0x202:0x206] == b"HdrS"
    assert (layout.entry, len(stub.data)) == (stub.address, 24)
    assert struct.unpack_from("<Q", stub.data, 4)[0] == params.address
    assert struct.unpack_from("<Q", stub.data, 14)[0] == body.address + 0x200


def test_the_capture_kernel_gets_its_own_memory_and_no_other(host: Host) -> None:
    layout = kexecx86.lay_out(host.system, kernel(), b"initrd", "")
    core = layout.segments[4]
    zero = layout.segments[3].data
    table = [struct.unpack_from("<QQI", zero, 0x2D0 + 20 * number) for number in range(zero[0x1E8])]
    ram = [(start, size) for start, size, kind in table if kind == 1]
    assert ram == [(0x1000, 0x9fc00 - 0x1000), (0x27000000, core.address - 0x27000000)]
    assert (0xbffe0000, 0x20000, 3) in table
    assert core.address + core.size == 0x37000000


def test_a_low_part_of_the_reservation_is_memory_too(host: Host) -> None:
    host.write("/proc/iomem", IOMEM + "  120000000-12fffffff : Crash kernel\n")
    layout = kexecx86.lay_out(host.system, kernel(), b"initrd", "")
    assert all(one.address >= 0x120000000 for one in layout.segments)
    zero = layout.segments[3].data
    table = [struct.unpack_from("<QQI", zero, 0x2D0 + 20 * number) for number in range(zero[0x1E8])]
    assert (0x27000000, 0x10000000, 1) in table
    assert struct.unpack_from("<II", zero, 0x0C0)[0] == 1         # the upper half of the image's address
    found = programs(corehdr.headers(host.system))
    assert not any(start <= 0x120000000 < start + size for _kind, _flags, _at, _virtual, start, size, *_rest in found)


@pytest.mark.parametrize(("change", "match"), [
    (lambda host: (kernel(init_size=250 * MIB), bytes(10 * MIB)), "do not fit"),
    (lambda host: (kernel(flags=1), b""), "no 64-bit entry that may lie anywhere"),
    (lambda host: (b"\0" * 9999, b""), "no bzImage"),
    (lambda host: (host.write("/proc/iomem", IOMEM.replace("Crash kernel", "x")), (kernel(), b""))[1], "no memory is"),
    (lambda host: (host.write("/proc/iomem", "00000000-00000000 : System RAM\n"), (kernel(), b""))[1], "are zero"),
    (lambda host: (host.write("/sys/kernel/vmcoreinfo", ""), (kernel(), b""))[1], "where its notes are"),
    (lambda host: (host.write("/proc/kcore", "x"), (kernel(), b""))[1], "memory layout may not be read"),
])
def test_what_cannot_be_is_told(host: Host, change: object, match: str) -> None:
    assert callable(change)
    image, initrd = change(host)
    with pytest.raises(HostError, match=match):
        kexecx86.lay_out(host.system, image, initrd, "")


def test_uefi_is_not_handed_on_but_its_tables_are(host: Host) -> None:
    assert kexecx86.further_parameters(host.system) == []
    host.write("/sys/firmware/efi/systab", "ACPI20=0x3f77d014\nACPI=0x3f77d000\n")
    host.remove("/sys/kernel/boot_params/data")
    assert kexecx86.further_parameters(host.system) == ["noefi"]
    zero = kexecx86.lay_out(host.system, kernel(), b"", "").segments[3].data
    assert struct.unpack_from("<Q", zero, 0x70)[0] == 0x3F77D014


@pytest.mark.parametrize(("release", "suits"), [(RELEASE, True), ("5.5.0", True), ("5.4.0-99-generic", False),
                                                ("4.18.0-553.el8.x86_64", False), ("7.2.13", True), ("", False)])
def test_older_kernels_are_left_to_kexec_tools(monkeypatch: pytest.MonkeyPatch, release: str, suits: bool) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert kexecx86.suits(release) is suits
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert kexecx86.suits(release) is False


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=8),
       st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=8))
def test_ranges_less_others_are_as_sets_say(kept: list[tuple[int, int]], holes: list[tuple[int, int]]) -> None:
    def numbers(ranges: list[Range]) -> set[int]:
        return {number for one in ranges for number in range(one.start, one.end + 1)}

    first, second = ([Range(start, start + length, "") for start, length in pairs] for pairs in (kept, holes))
    assert numbers(corehdr.without(first, second)) == numbers(first) - numbers(second)
