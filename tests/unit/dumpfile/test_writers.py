"""What the writers write, the readers read: every format, page size and compression, there and back."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.compressors import METHODS, compressor
from kdumpy.dumpfile.elf import ElfDump
from kdumpy.dumpfile.elfwriter import ElfWriter
from kdumpy.dumpfile.health import State, health
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.kdumpwriter import KdumpWriter
from kdumpy.dumpfile.notes import Machine, Note, pack_notes, parse_notes
from kdumpy.dumpfile.opening import open_source
from kdumpy.dumpfile.sink import StreamSink
from kdumpy.dumpfile.source import BytesSource
from kdumpy.dumpfile.vmcoreinfo import PAGE_SIZES
from kdumpy.errors import DamagedDump, MissingPage, UsageError
from synthetic import MadeUpDump, MemorySink, page_like, pfns_of, write_elf, write_kdump


def page_of(dump: Dump, pfn: int) -> bytes:
    return dump.read_physical(pfn * dump.page_size, dump.page_size)


@st.composite
def dumps(draw: st.DrawFn, page_sizes: tuple[int, ...] = PAGE_SIZES) -> MadeUpDump:
    """Up to sixty pages in runs, some far apart, of every kind of content."""
    page_size = draw(st.sampled_from(page_sizes))
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    starts = draw(st.lists(st.integers(0, 200_000), min_size=1, max_size=4))
    pages: dict[int, bytes] = {}
    for start in starts:
        for pfn in range(start, start + rng.randrange(1, 16)):
            if rng.random() < 0.9 or not pages:
                pages[pfn] = page_like(rng, page_size)
    room = draw(st.integers(1, 100))
    return MadeUpDump(pages, page_size=page_size, machine=draw(st.sampled_from(Machine)),
                      cpus=draw(st.integers(1, 5)), max_pfn=max(pages) + room)


def assert_same(origin: MadeUpDump, copy: Dump) -> None:
    """Everything that a dump tells is what it was."""
    assert [pfn for run in copy.present() for pfn in run] == list(origin.pages)
    order = list(origin.pages)
    random.Random(1).shuffle(order)
    assert copy.read_pages(order).tobytes() == b"".join(origin.pages[pfn] for pfn in order)
    assert copy.pages_present == len(origin.pages)
    near = sorted({pfn + step for pfn in origin.pages for step in (-1, 0, 1)} | {0, copy.max_pfn, 1 << 40})
    assert copy.held(near).tolist() == [pfn in origin.pages for pfn in near] == [copy.has_page(pfn) for pfn in near]
    assert copy.vmcoreinfo.raw == origin.vmcoreinfo.raw
    assert copy.notes == origin.notes
    assert copy.prstatus == origin.prstatus
    assert (copy.machine, copy.page_size, copy.crash_time) == (origin.machine, origin.page_size, 1700000000)
    pfn = order[0]
    assert copy.read_physical(pfn * copy.page_size + 5, 90) == origin.pages[pfn][5:95]


@given(dump=dumps(), method=st.sampled_from(METHODS), level=st.integers(0, 31))
@settings(max_examples=80, deadline=None)
def test_kdump_there_and_back(dump: MadeUpDump, method: str, level: int) -> None:
    sink = MemorySink()
    writer = write_kdump(dump, sink, method, level=level, eraseinfo=b"erase jiffies size 8\n")
    with open_source(sink.source()) as copy:
        assert isinstance(copy, KdumpDump)
        assert_same(dump, copy)
        assert copy.utsname == dump.utsname
        assert (copy.max_pfn, copy.dump_level, copy.compression) == (dump.max_pfn, level, method)
        assert copy.eraseinfo == b"erase jiffies size 8\n"
        assert not copy.incomplete
        assert copy.kept_beyond_memory() == 0
        assert health(copy, deep=True).state is State.COMPLETE
        assert writer.data_offset <= len(sink.data)


@given(dump=dumps(), cut=st.integers(1, 3), gap=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_elf_there_and_back(dump: MadeUpDump, cut: int, gap: int) -> None:
    runs = [(first, min(first + cut, run.stop), min(first + cut, run.stop))
            for run in dump.present() for first in range(run.start, run.stop, cut)]
    first, kept, _ = runs[-1]
    runs[-1] = (first, kept, kept + gap)  # memory that was left out
    sink = MemorySink()
    writer = write_elf(dump, sink, runs, eraseinfo=b"erase jiffies size 8\n")
    assert writer.end == len(sink.data)
    assert writer.data_offset % dump.page_size == 0
    with open_source(sink.source()) as copy:
        assert isinstance(copy, ElfDump)
        erased = copy.notes[-1]
        assert (erased.name, erased.data) == ("ERASEINFO", b"erase jiffies size 8\n")
        copy.notes = copy.notes[:-1]
        assert_same(dump, copy)
        assert copy.max_pfn == kept + gap
        assert not copy.incomplete
        assert health(copy, deep=True).state is State.COMPLETE


@given(dump=dumps(page_sizes=(4096,)), elf=st.booleans())
@settings(max_examples=30, deadline=None)
def test_flattened_there_and_back(dump: MadeUpDump, elf: bool) -> None:
    stream = bytearray()
    ended = []
    sink = StreamSink(stream.extend, finish=lambda: ended.append(True))
    if elf:
        write_elf(dump, sink)
    else:
        write_kdump(dump, sink, "zstd")
    assert not ended
    sink.close()
    sink.close()
    assert ended == [True]
    assert sink.written == len(stream)
    with open_source(BytesSource(bytes(stream))) as copy:
        assert_same(dump, copy)
        assert copy.format == ("elf flattened" if elf else "kdump flattened")
        assert not copy.incomplete
        assert health(copy, deep=True).state is State.COMPLETE


def test_more_program_headers_than_the_elf_header_can_count() -> None:
    page = b"x" * 4096
    for runs in (65_533, 65_534, 65_535, 70_000):
        dump = MadeUpDump({2 * number: page for number in range(3)})
        sink = MemorySink()
        ElfWriter(sink, dump, [(2 * number, 2 * number + (number < 3), 2 * number + 1)
                               for number in range(runs)]).begin()
        sink.write_at(len(sink.data), page * 3)
        e_phnum, = struct.unpack_from("<H", sink.data, 56)
        assert e_phnum == min(runs + 1, 0xffff)
        with open_source(sink.source()) as copy:
            assert isinstance(copy, ElfDump)
            assert len(copy.segments) == runs
            assert [list(run) for run in copy.present()] == [[0], [2], [4]]
            assert page_of(copy, 4) == page
            assert copy.incomplete


def test_a_dump_that_was_begun_is_marked_and_readable() -> None:
    rng = random.Random(1)
    dump = MadeUpDump({pfn: rng.randbytes(4096) for pfn in range(1300)})
    sink = MemorySink()
    write_kdump(dump, sink, "lzo", stop_after=2)
    with open_source(sink.source()) as copy:
        assert copy.incomplete
        assert copy.read_pages(range(1024)).tobytes() == b"".join(dump.pages[pfn] for pfn in range(1024))
        with pytest.raises(DamagedDump, match="never written"):
            page_of(copy, 1024)
        assert health(copy).state is State.INCOMPLETE


@pytest.mark.parametrize("elf", [False, True])
def test_incomplete_to_the_end(elf: bool) -> None:
    dump = MadeUpDump({3: bytes(4096)})
    sink = MemorySink()
    if elf:
        write_elf(dump, sink, incomplete=True)
    else:
        write_kdump(dump, sink, "zlib", incomplete=True)
    assert open_source(sink.source()).incomplete
    stream = bytearray()
    flat = StreamSink(stream.extend)
    if elf:
        write_elf(dump, flat, incomplete=True)
    else:
        write_kdump(dump, flat, "zlib", incomplete=True)
    flat.close()
    assert open_source(BytesSource(bytes(stream))).incomplete


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_packed_pages(method: str, page_size: int) -> None:
    from kdumpy.dumpfile import compression
    rng = random.Random(page_size)
    pages = np.frombuffer(b"".join(page_like(rng, page_size) for _ in range(40)), np.uint8).reshape(-1, page_size)
    packer = compressor(method)
    packed = packer.pack(pages)
    assert len(packed.data) == packed.sizes.sum()
    assert (packed.sizes <= page_size).all()
    at = 0
    for page, size, flag in zip(pages, packed.sizes.tolist(), packed.flags.tolist(), strict=True):
        piece = bytes(packed.data[at:at + size])
        assert flag in (0, packer.flag)
        assert (flag != 0) == (size < page_size)
        assert (compression.decompress(flag, piece, page_size, "") if flag else piece) == page.tobytes()
        at += size
    noise = np.frombuffer(rng.randbytes(3 * page_size), np.uint8).reshape(-1, page_size)
    raw = packer.pack(noise)
    assert (bytes(raw.data), raw.sizes.tolist(), raw.flags.tolist()) == (noise.tobytes(), [page_size] * 3, [0] * 3)
    assert len(packer.pack(noise[:0]).data) == 0


def test_pages_of_any_slice_may_be_packed() -> None:
    pages = np.arange(64 * 4096, dtype=np.uint8).reshape(64, 4096)
    for method in METHODS:
        whole, half = (compressor(method).pack(some) for some in (pages, pages[16:48]))
        assert half.sizes.tolist() == whole.sizes[16:48].tolist()


def test_wrong_use_is_refused() -> None:
    dump = MadeUpDump({number: bytes(4096) for number in range(100)})
    with pytest.raises(UsageError, match="multiple of 64"):
        KdumpWriter(MemorySink(), dump, level=0, compression="none", part=(8, 100))
    writer = KdumpWriter(MemorySink(), dump, level=0, compression="none")
    writer.begin(2)
    set_bits = np.ones(8, np.bool_)
    with pytest.raises(UsageError, match="multiple of 8"):
        writer.bitmap(4, set_bits, set_bits)
    with pytest.raises(UsageError, match="beyond the largest"):
        writer.bitmap(96, set_bits, set_bits)
    with pytest.raises(UsageError, match="more page descriptors"):
        writer.descriptors(1, *np.zeros((3, 2), np.uint64))
    for runs in ([(5, 4, 6)], [(5, 6, 9), (8, 9, 9)]):
        with pytest.raises(UsageError, match="overlap or go backwards"):
            ElfWriter(MemorySink(), dump, runs)
    with pytest.raises(UsageError, match="no such compression"):
        compressor("rar")


def test_a_device_s_old_bytes_do_not_show() -> None:
    class Device(MemorySink):
        keeps_old_bytes = True

        def __init__(self) -> None:
            super().__init__()
            self.data = bytearray(b"\xff" * (3 << 20))

    dump = MadeUpDump({5: b"y" * 4096}, max_pfn=9_000_000)
    sink = Device()
    writer = KdumpWriter(sink, dump, level=1, compression="none")
    writer.begin(1)
    kept = np.zeros(8, np.bool_)
    kept[5] = True
    writer.bitmap(0, kept, kept)
    with open_source(sink.source()) as copy:
        assert list(copy.present()) == [range(5, 6)]
        with pytest.raises(DamagedDump, match="never written"):
            page_of(copy, 5)
        with pytest.raises(MissingPage):
            page_of(copy, 6)


@given(st.lists(st.builds(Note, st.text("ABC", min_size=1, max_size=20), st.integers(0, 99), st.binary(max_size=50)),
                max_size=9))
def test_notes_there_and_back(notes: list[Note]) -> None:
    assert list(parse_notes(pack_notes(notes)[0])) == notes


def test_where_vmcoreinfo_lies_in_the_notes() -> None:
    data, at, size = pack_notes([Note("CORE", 1, b"abc"), Note("VMCOREINFO", 0, b"A=1\nB=2\n")])
    assert data[at:at + size] == b"A=1\nB=2\n"
    assert pack_notes([Note("CORE", 1, b"abc")])[1:] == (0, 0)


def test_a_dump_without_notes_can_be_written() -> None:
    dump = MadeUpDump({1: b"z" * 4096}, cpus=0)
    dump.notes = ()
    dump.vmcoreinfo = type(dump.vmcoreinfo)(b"")
    sink = MemorySink()
    write_kdump(dump, sink, "zlib")
    copy = open_source(sink.source())
    assert (copy.notes, bool(copy.vmcoreinfo), page_of(copy, 1)) == ((), False, b"z" * 4096)
    assert pfns_of(copy).tolist() == [1]


def test_a_zstandard_of_a_distribution_packs_page_by_page_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    pages = np.vstack([np.zeros((2, 4096), np.uint8), rng.integers(0, 4, (3, 4096), np.uint8),
                       rng.integers(0, 256, (1, 4096), np.uint8)])
    batched = compressor("zstd").pack(pages)
    whole = zstandard.ZstdCompressor

    class WithoutBatches:
        def __init__(self, level: int) -> None:
            self.compress = whole(level=level).compress

    monkeypatch.setattr(zstandard, "ZstdCompressor", WithoutBatches)
    single = compressor("zstd").pack(pages)
    assert batched.sizes.tolist() == single.sizes.tolist()
    assert batched.flags.tolist() == single.flags.tolist()
    assert bytes(batched.data) == bytes(single.data)
