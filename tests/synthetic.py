"""Dumps made up for a test, written and read in memory; and the loop that writes pages as simply as can be."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kdumpy.dumpfile.base import Dump, PagedDump
from kdumpy.dumpfile.compressors import compressor
from kdumpy.dumpfile.elfwriter import ElfWriter
from kdumpy.dumpfile.kdumpwriter import KdumpWriter
from kdumpy.dumpfile.notes import NT_PRSTATUS, REGISTERS, Machine, Note
from kdumpy.dumpfile.opening import open_dump
from kdumpy.dumpfile.sink import Buffer, FileSink, Sink, flat_bytes
from kdumpy.dumpfile.source import BytesSource
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo

BATCH = 512
"""Pages written at a time."""


class MemorySink:
    """A sink in memory; what was never written is zero."""

    name = "memory"

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False

    def write_at(self, offset: int, data: Buffer) -> None:
        view = flat_bytes(data)
        self.data.extend(bytes(max(offset + len(view) - len(self.data), 0)))
        self.data[offset:offset + len(view)] = view

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def source(self) -> BytesSource:
        return BytesSource(bytes(self.data))


def prstatus(machine: Machine, number: int) -> Note:
    """Return the note of one CPU, each register with a value of its own."""
    names = REGISTERS[machine]
    words = [(number << 32) + place for place in range(len(names))]
    body = struct.pack("<3iHxxQQiiii64x", 11, 0, 0, 11, 0, 0, 40 + number, 1, 1, 1)
    return Note("CORE", NT_PRSTATUS, body + struct.pack(f"<{len(names)}Q8x", *words))


class MadeUpDump(PagedDump):
    """Pages by number, as a dump."""

    format = "made up"
    incomplete = False
    compression = "none"
    dump_level = 31
    pages_present: int
    max_pfn: int

    def __init__(self, pages: Mapping[int, bytes], *, page_size: int = 4096, machine: Machine = Machine.X86_64,
                 cpus: int = 2, max_pfn: int | None = None, lines: str = "") -> None:
        super().__init__()
        self.pages = dict(sorted(pages.items()))
        self.page_size = page_size
        self.machine = machine
        self.source = BytesSource(b"", "made up")
        text = f"OSRELEASE=6.1.0-made-up\nPAGESIZE={page_size}\nCRASHTIME=1700000000\n{lines}".encode()
        self.notes = (*(prstatus(machine, number) for number in range(cpus)), Note("VMCOREINFO", 0, text))
        self.vmcoreinfo = VmcoreInfo(text)
        self.pages_present = len(pages)
        self.max_pfn = max(pages, default=0) + 1 if max_pfn is None else max_pfn

    def _header_utsname(self) -> Utsname:
        return Utsname("Linux", "here", "6.1.0-made-up", "#1 SMP", self.machine.value, "(none)")

    def has_page(self, pfn: int) -> bool:
        return pfn in self.pages

    def present(self) -> Iterator[range]:
        numbers = list(self.pages)
        for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
            found = [pfn for _, pfn in run]
            yield range(found[0], found[-1] + 1)

    def _page(self, pfn: int) -> bytes:
        try:
            return self.pages[pfn]
        except KeyError:
            raise self._missing(pfn, "it was not made up") from None


def page_like(rng: random.Random, size: int) -> bytes:
    """Return a page as memory has them: zero, one word over and over, text and pointers, noise."""
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(size)
    if kind == 1:
        return rng.randbytes(8) * (size // 8)
    if kind == 2:
        return rng.randbytes(size)
    words = [rng.randbytes(rng.choice((2, 6, 8))) + bytes(rng.randrange(9)) for _ in range(30)]
    text = b"".join(rng.choices(words, k=size // 2))
    return (text + rng.randbytes(size))[:size]


def pfns_of(dump: Dump) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return every page number that a dump holds, shape (n,)."""
    return np.array([pfn for run in dump.present() for pfn in run], np.int64)


def write_kdump(dump: Dump, sink: Sink, method: str, *, part: tuple[int, int] | None = None,
                incomplete: bool = False, eraseinfo: bytes = b"", level: int = 31,
                stop_after: int | None = None) -> KdumpWriter:
    """Write all pages of a dump (or a part's) batch by batch; `stop_after` batches, as when a capture dies."""
    pfns = pfns_of(dump)
    memory = np.zeros(dump.max_pfn, np.bool_)
    memory[pfns] = True
    if part:
        pfns = pfns[(pfns >= part[0]) & (pfns < part[1])]
    writer = KdumpWriter(sink, dump, level=level, compression=method, part=part, eraseinfo=eraseinfo)
    writer.begin(len(pfns))
    for first in range(0, dump.max_pfn, 32768):
        writer.bitmap(first, memory[first:first + 32768], memory[first:first + 32768])
    packer, at = compressor(method), writer.data_offset
    for number, rank in enumerate(range(0, len(pfns), BATCH)):
        if number == stop_after:
            return writer
        pages = dump.read_pages(pfns[rank:rank + BATCH])
        packed = packer.pack(pages)
        offsets = at + np.cumsum(packed.sizes) - packed.sizes
        zero = ~pages.any(axis=1)
        sizes, flags = packed.sizes.copy(), packed.flags.copy()
        offsets[zero], sizes[zero], flags[zero] = writer.zero_descriptor
        sink.write_at(at, packed.data)
        writer.descriptors(rank, offsets.astype(np.uint64), sizes, flags)
        at += len(packed.data)
    writer.finish(incomplete=incomplete)
    return writer


def write_elf(dump: Dump, sink: Sink, runs: Sequence[tuple[int, int, int]] | None = None, *,
              incomplete: bool = False, eraseinfo: bytes = b"") -> ElfWriter:
    """Write the runs of a dump (by default as they are) as ELF."""
    if runs is None:
        runs = [(run.start, run.stop, run.stop) for run in dump.present()]
    writer = ElfWriter(sink, dump, runs, eraseinfo=eraseinfo)
    writer.begin()
    for number, (first, kept_stop, _) in enumerate(runs):
        for start in range(first, kept_stop, BATCH):
            pages = dump.read_pages(range(start, min(start + BATCH, kept_stop)))
            sink.write_at(writer.offset_of(number) + (start - first) * dump.page_size, pages)
    writer.finish(incomplete=incomplete)
    return writer


def for_makedumpfile(path: Path, folder: Path) -> Path:
    """Return the dump, or an lzo copy of it where the distribution's makedumpfile is not built for its compression."""
    with open_dump(path) as dump:
        if dump.compression not in ("zstd", "snappy"):
            return path
        copy = folder / f"{path.name}.lzo"
        with FileSink(copy) as sink:
            write_kdump(dump, sink, "lzo", level=dump.dump_level or 0)
    return copy
