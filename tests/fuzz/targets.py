"""What is fuzzed: each reader of bytes that come from a dump, on small dumps made up for it.

A target takes any bytes and may raise a KdumpyError, nothing else. For the file formats the bytes are a list of
changes to a right dump (`changed`), so that a few of them reach any field.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.bitmap import Bitmap
from kdumpy.dumpfile.compressors import METHODS, compressor
from kdumpy.dumpfile.flattened import FlattenedSource
from kdumpy.dumpfile.guard import check
from kdumpy.dumpfile.health import health
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.lzo import decompress_lzo
from kdumpy.dumpfile.notes import Machine, machine_of, parse_notes, parse_prstatus
from kdumpy.dumpfile.opening import open_source
from kdumpy.dumpfile.sink import StreamSink
from kdumpy.dumpfile.snappy import decompress_snappy
from kdumpy.dumpfile.source import BytesSource
from kdumpy.dumpfile.splitset import SplitDump, join, parts
from kdumpy.dumpfile.unpacking import unpacker
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import DamagedDump, KdumpyError
from synthetic import MadeUpDump, MemorySink, page_like, write_elf, write_kdump

PAGES = 48
"""Pages asked of a dump."""


@dataclass(frozen=True)
class Target:
    """One reader."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    """Right inputs, from which a fuzzer goes on."""


@cache
def small_dump() -> MadeUpDump:
    """Return a dump of a few pages of every kind."""
    rng = random.Random(5)
    return MadeUpDump({pfn: page_like(rng, 4096) for pfn in (0, 1, 2, 3, 9, 130, 131)}, cpus=1, max_pfn=200)


@cache
def kdump_file(method: str = "lzo", part: int | None = None) -> bytes:
    """Return it in the kdump format, or one of two parts."""
    sink = MemorySink()
    write_kdump(small_dump(), sink, method, eraseinfo=b"erase jiffies size 8\n",
                part=None if part is None else parts(small_dump(), 2)[part])
    return bytes(sink.data)


@cache
def elf_file(runs: int = 0) -> bytes:
    """Return it as ELF; with `runs`, so many program headers."""
    sink = MemorySink()
    write_elf(small_dump(), sink, [(pfn, pfn, pfn + 1) for pfn in range(1000, 1000 + runs)] or None)
    return bytes(sink.data)


@cache
def stream_of(file: str) -> bytes:
    """Return a flattened stream of it."""
    stream = bytearray()
    sink = StreamSink(stream.extend)
    (write_elf if file == "elf" else lambda dump, to: write_kdump(dump, to, "zlib"))(small_dump(), sink)
    sink.close()
    return bytes(stream)


def changed(base: bytes, changes: bytes) -> bytes:
    """Change a right file: records of place (3 bytes), length (1) and bytes; a length of 0xff cuts it off there."""
    data, at = bytearray(base), 0
    while at + 4 <= len(changes):
        place = int.from_bytes(changes[at:at + 3], "little") % (len(base) + 1)
        length = changes[at + 3]
        at += 4
        if length == 0xff:
            del data[place:]
            continue
        new = changes[at:at + length % 17]
        at += len(new)
        data[place:place + len(new)] = new
    return bytes(data)


def ask(*questions: Callable[[], object]) -> None:
    """Ask on after a KdumpyError, and hold that it says something."""
    for question in questions:
        said = "said"
        try:
            question()
        except KdumpyError as error:
            said = error.what and str(error)
        assert said
        assert "\n" not in said


def ask_everything(dump: Dump) -> None:
    """Ask a dump for all that it tells, and for some of the pages that it says it holds."""
    held = list(itertools.islice(itertools.chain.from_iterable(_ranges(dump)), PAGES))
    edges = [0, 1, 199, 200, dump.max_pfn - 1, dump.max_pfn, (1 << 52) // 4096, *held[:3], *held[-3:]]
    questions: list[Callable[[], object]] = [
        lambda: dump.read_pages(held), lambda: dump.read_pages(edges, "zero"), lambda: dump.held(edges),
        lambda: dump.pages_present, lambda: dump.prstatus, lambda: dump.utsname, lambda: dump.crash_time,
        lambda: (dump.dump_level, dump.compression, dump.format, dump.incomplete), lambda: check(dump),
        lambda: health(dump).as_json(), lambda: dump.read_physical(held[0] * dump.page_size, 9000) if held else b"",
        lambda: dump.read_physical(0, 1 << 45)]
    if isinstance(dump, KdumpDump):
        questions += [lambda: dump.eraseinfo, dump.kept_beyond_memory]
    ask(*questions)
    for pfn in held:
        ask(lambda pfn=pfn: dump.read_physical(pfn * dump.page_size, dump.page_size))  # type: ignore[misc]
    # One by one and many at once are the same.
    for pfn in held:
        try:
            one = dump.read_physical(pfn * dump.page_size, dump.page_size)
        except KdumpyError:
            continue
        assert dump.read_pages([pfn]).tobytes() == one


def _ranges(dump: Dump) -> Iterator[range]:
    try:
        yield from dump.present()
    except KdumpyError:
        return


def open_and_ask(data: bytes) -> None:
    """Do so with a file's bytes."""
    try:
        dump = open_source(BytesSource(data))
    except KdumpyError:
        return
    ask_everything(dump)


def file_target(*bases: Callable[[], bytes]) -> Target:
    """Return the target of a format: the first byte chooses the file, the others change it."""
    def run(data: bytes) -> None:
        if data:
            open_and_ask(changed(bases[data[0] % len(bases)](), data[1:]))
    return Target(run, lambda: [bytes([number]) for number in range(len(bases))])


def run_split(data: bytes) -> None:
    """Open a changed part with a right one."""
    try:
        one = open_source(BytesSource(changed(kdump_file(part=0), data)))
        two = open_source(BytesSource(kdump_file(part=1)))
        dump: SplitDump = join([one, two])
    except KdumpyError:
        return
    ask_everything(dump)


def run_any(data: bytes) -> None:
    """Open the bytes as they are."""
    open_and_ask(data)


def run_records(data: bytes) -> None:
    """Read a stream of these records."""
    try:
        source = FlattenedSource(BytesSource(stream_of("kdump")[:4096] + data))
    except KdumpyError:
        return
    ask(lambda: source.read(0, 100), lambda: source.read(source.size - 1, 1), lambda: source.read(0, source.size),
        lambda: source.read(1 << 61, 1 << 60))


def run_notes(data: bytes) -> None:
    """Parse notes and registers."""
    notes = tuple(parse_notes(data))
    assert sum(len(note.data) for note in notes) <= len(data)
    machine_of(notes)
    for machine in Machine:
        parse_prstatus(notes, machine)


def run_vmcoreinfo(data: bytes) -> None:
    """Ask for every kind of line."""
    info = VmcoreInfo(data)
    ask(lambda: info.page_size, lambda: info.crash_time, lambda: info.kernel_offset, lambda: info.symbol("a"),
        lambda: info.number("a"), lambda: info.offset("a"), lambda: info.length("a"), lambda: info.size_of("a"),
        lambda: (info.osrelease, info.build_id, info.config("a"), dict(info)))


def run_bitmap(data: bytes) -> None:
    """Count, find and list bits, against numpy."""
    if len(data) < 4:
        return
    first, last = sorted(int.from_bytes(data[at:at + 2], "little") for at in (0, 2))
    last = min(last, (len(data) - 4) * 8)
    bitmap = Bitmap(BytesSource(data), 4, len(data) - 4, min(first, last), last)
    bits = np.unpackbits(np.frombuffer(data[4:], np.uint8), bitorder="little")[:last]
    bits[:first] = 0
    places = np.flatnonzero(bits).tolist()
    assert bitmap.count == len(places)
    assert [bit for run in bitmap.ranges() for bit in run] == places
    for rank, place in list(enumerate(places))[::max(len(places) // 9, 1)]:
        assert (bitmap.rank(place), bitmap.select(rank), bitmap.has(place)) == (rank, place, True)


def page_target(bit: int) -> Target:
    """Return the target of a compression: one page and many, both bounded and of one mind."""
    def run(data: bytes) -> None:
        try:
            page = compression.decompress(bit, data, 4096, "here")
        except DamagedDump:
            page = None
        rows = np.full((3, 4096), 0x55, np.uint8)
        try:
            unpacker(bit)(b"!" + data, [(1, len(data), 1)], rows)
        except Exception:  # any: the reader then asks decompress(), which says what is wrong
            assert (rows[[0, 2]] == 0x55).all()
            return
        assert (rows[[0, 2]] == 0x55).all()
        if page is not None:
            assert rows[1].tobytes() == page

    def seeds() -> list[bytes]:
        packer = compressor(compression.NAMES[bit])
        rng = random.Random(3)
        pages = [np.frombuffer(page_like(rng, 4096), np.uint8).reshape(1, -1) for _ in range(12)]
        return [bytes(packed.data) for page in pages if (packed := packer.pack(page)).flags[0]]
    return Target(run, seeds)


def plain_target(bit: int, plain: Callable[[bytes, int], bytes]) -> Target:
    """Return the target of a decompressor in plain Python: it agrees with the library's."""
    def run(data: bytes) -> None:
        try:
            page = plain(data, 4096)
        except (ValueError, IndexError):
            return
        assert len(page) <= 4096
        try:
            theirs = compression.decompress(bit, data, 4096, "here")
        except DamagedDump:
            return
        assert page == theirs
    return Target(run, page_target(bit).seeds)


TARGETS: dict[str, Target] = {
    "kdump": file_target(*(lambda method=method: kdump_file(method) for method in METHODS)),
    "elf": file_target(elf_file),
    "elf-many": file_target(lambda: elf_file(65_600)),
    "flattened": file_target(lambda: stream_of("kdump"), lambda: stream_of("elf")),
    "records": Target(run_records, lambda: [stream_of("elf")[4096:4096 + 600], b"\xff" * 16]),
    "split": Target(run_split, lambda: [b""]),
    "any": Target(run_any, lambda: [kdump_file("none"), elf_file(), stream_of("kdump"), b"\x7fELF", b"KDUMP   "]),
    "notes": Target(run_notes, lambda: [kdump_file()[4200:5000]]),
    "vmcoreinfo": Target(run_vmcoreinfo, lambda: [b"PAGESIZE=4096\nSYMBOL(a)=ff\nNUMBER(a)=-1\nOFFSET(a)=8\n"]),
    "bitmap": Target(run_bitmap, lambda: [b"\x01\0\x40\0" + bytes(range(64))]),
    **{name: page_target(bit) for bit, name in compression.NAMES.items()},
    "lzo-plain": plain_target(compression.LZO, decompress_lzo),
    "snappy-plain": plain_target(compression.SNAPPY, decompress_snappy),
}
"""By name."""

