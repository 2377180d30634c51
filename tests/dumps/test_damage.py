"""Thousands of corruptions of a real dump: every answer is an answer or a KdumpyError, soon and in little memory."""

from __future__ import annotations

import os
import random
import resource
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import lab
from kdumpy.dumpfile.dmesg import read_log
from kdumpy.dumpfile.guard import check
from kdumpy.dumpfile.health import health
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.opening import open_dump, open_source
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.dumpfile.source import BytesSource, beyond_end
from kdumpy.errors import KdumpyError
from kdumpy.vm import laboratory

CASES = int(os.environ.get("KDUMPY_DAMAGE_CASES", "2000" if lab.FULL else "400"))
"""Of each format; `make test-all` takes 2000."""
SECONDS_EACH = 2.0
SECONDS = 40.0
"""Of one format, whatever the machine: what is left of the cases then is not run (and the test says so)."""
MEMORY = 1 << 30
WORKERS = 2
SALVAGE_EVERY = 100
"""Every so manieth case may also scan memory for the log, which takes a second by design."""

Corrupt = Callable[[random.Random, "Corrupted", "Places"], None]


class Corrupted:
    """A dump's bytes with patches over them, and perhaps cut short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._patches: list[tuple[int, bytes]] = []
        self.name = "corrupted"
        self.size = self.file_size = len(data)

    def patch(self, at: int, data: bytes) -> None:
        self._patches.append((at, data[:max(len(self._data) - at, 0)]))

    def original(self, at: int, size: int) -> bytes:
        return self._data[at:at + size]

    def cut(self, size: int) -> None:
        self.size = self.file_size = min(size, self.size)

    def read(self, offset: int, size: int) -> bytes:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise beyond_end(self, offset, size)
        data = bytearray(self._data[offset:offset + size])
        for at, new in self._patches:
            low, high = max(at, offset), min(at + len(new), offset + size)
            if low < high:
                data[low - offset:high - offset] = new[low - at:high - at]
        return bytes(data)

    def read_into(self, offset: int, target: memoryview) -> None:
        target[:] = self.read(offset, len(target))

    def close(self) -> None:
        pass

    def describe(self) -> str:
        return f"size {self.size}, patches {[(hex(at), new[:16].hex(), len(new)) for at, new in self._patches]}"


class Places:
    """Where the parts of the intact dump are that matter: (offset, size) each."""

    def __init__(self, path: Path) -> None:
        with open_dump(path) as dump:
            self.size = dump.source.file_size
            self.headers = [(0, 4200), (0, 512), (4096, 128)]
            self.tables: list[tuple[int, int]] = []
            if isinstance(dump, KdumpDump) and "flattened" not in dump.format:
                sub = dump.sub_header
                self.headers += [(sub.offset_note, sub.size_note), (sub.offset_vmcoreinfo, sub.size_vmcoreinfo)]
                self.tables = [(dump.bitmap.offset - dump.bitmap.size, dump.bitmap.size * 2),
                               (dump.descriptors_offset, dump.pages_present * 24)]
                self.tables += self._pages_of_the_log(dump)
            else:
                raw = dump.vmcoreinfo.raw
                start = path.read_bytes().index(raw[:200])
                self.headers += [(start - 4000, 4000), (start, len(raw))]

    @staticmethod
    def _pages_of_the_log(dump: KdumpDump) -> list[tuple[int, int]]:
        """Return where the data of the log's tables and of the page tables to them lies in the file."""
        memory, info = KernelMemory(dump), dump.vmcoreinfo
        ring = memory.word(info.symbol("prb"))
        addresses = [info.symbol("prb"), ring, info.symbol("swapper_pg_dir"),
                     *(memory.word(ring + offset) for offset in (8, 16, 56))]
        extents = []
        for address in addresses:
            descriptor = dump.descriptor(dump.bitmap.rank(memory.translate(address) // dump.page_size))
            extents.append((descriptor.offset, descriptor.size))
        return extents


def flip_bits(rng: random.Random, source: Corrupted, places: Places) -> None:
    for _ in range(rng.randrange(1, 9)):
        start, size = rng.choice(places.headers + places.tables)
        at = start + rng.randrange(max(size, 1))
        if at < places.size:
            source.patch(at, bytes([source.original(at, 1)[0] ^ 1 << rng.randrange(8)]))


def huge_counts(rng: random.Random, source: Corrupted, places: Places) -> None:
    for _ in range(rng.randrange(1, 4)):
        start, size = rng.choice(places.headers + places.tables)
        width = rng.choice((2, 4, 8))
        value = rng.choice((0, 1, (1 << width * 8) - 1, 1 << width * 8 - 1, (1 << width * 8 - 1) - 1,
                            rng.randrange(1 << width * 8), rng.randrange(1 << width * 4)))
        source.patch(start + rng.randrange(max(size // 4, 1)) * 4, value.to_bytes(width, "little"))


def noise(rng: random.Random, source: Corrupted, places: Places) -> None:
    start, size = rng.choice([*places.headers, *places.tables, (0, places.size)])
    length = rng.choice((1, 16, 512, 4096, 65536))
    filler = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    source.patch(start + rng.randrange(max(size, 1)), filler)


def truncate(rng: random.Random, source: Corrupted, places: Places) -> None:
    start, size = rng.choice([*places.headers, *places.tables, (0, places.size)])
    source.cut(start + rng.randrange(size + 1))


def swap(rng: random.Random, source: Corrupted, places: Places) -> None:
    start, size = rng.choice([*places.headers, *places.tables, (0, places.size)])
    length = rng.choice((8, 24, 4096))
    one, two = (start + rng.randrange(max(size - length, 1)) for _ in range(2))
    source.patch(one, source.original(two, length))
    source.patch(two, source.original(one, length))


def change_a_line_of_vmcoreinfo(rng: random.Random, source: Corrupted, places: Places) -> None:
    start, size = places.headers[-1]
    text = source.original(start, size)
    at = text.find(b"=", rng.randrange(size)) + 1
    end = text.find(b"\n", at)
    source.patch(start + at, bytes(rng.choice(b"0123456789abcdef-\n=x") for _ in range(max(end - at, 1))))


CORRUPTIONS: tuple[Corrupt, ...] = (flip_bits, huge_counts, noise, truncate, swap, change_a_line_of_vmcoreinfo)


def ask_everything(source: Corrupted, salvage: bool) -> None:
    """Open, judge, read the log and a few pages: only a KdumpyError may come of it."""
    try:
        dump = open_source(source)
    except KdumpyError:
        return
    asked: list[Callable[[], object]] = [
        lambda: health(dump).as_json(), lambda: read_log(dump, allow_salvage=salvage).as_json(),
        lambda: dump.utsname, lambda: dump.crash_time, lambda: dump.prstatus, lambda: dump.dump_level,
        lambda: check(dump), lambda: dump.read_physical(dump.max_pfn * dump.page_size // 2, 100),
        lambda: dump.read_physical(0x1000, 1 << 40)]
    for ask in asked:
        failure = None
        try:
            ask()
        except KdumpyError as error:
            failure = error
        assert failure is None or (failure.what and "\n" not in str(failure))


def work(data: bytes, places: Places, first: int, deadline: float, report: int) -> None:
    """Run every WORKERS-th case and write what went wrong; the process's memory is limited."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    done, failures = 0, []
    for case in range(first, CASES, WORKERS):
        if time.monotonic() > deadline:
            break
        rng = random.Random(case)
        source = Corrupted(data)
        for corrupt in rng.sample(CORRUPTIONS, rng.choice((1, 1, 1, 2))):
            corrupt(rng, source, places)
        start = time.process_time()  # other work on the machine does not count
        try:
            ask_everything(source, salvage=case % SALVAGE_EVERY == 0)
        except BaseException:
            failures.append(f"case {case}: {source.describe()}\n{traceback.format_exc()}")
        seconds = time.process_time() - start
        if seconds > SECONDS_EACH:
            failures.append(f"case {case} took {seconds:.1f} s: {source.describe()}\n")
        done += 1
    os.write(report, f"{done}\n{''.join(failures[:5])}".encode()[:60000])


@pytest.mark.parametrize("shape", ["kdump", "elf", "flattened"])
def test_nothing_but_answers(shape: str, tmp_path: Path) -> None:
    if shape == "elf":
        path = laboratory.dump("6.1", "live").path
    elif shape == "flattened":
        path = laboratory.dump("6.1", "live-kdump").path
    else:
        path = laboratory.dump("6.1", "sysrq").path
    data, places = path.read_bytes(), Places(path)
    ask_everything(Corrupted(data), salvage=True)  # and what is imported late is imported
    deadline = time.monotonic() + (SECONDS if shape == "kdump" else SECONDS / 4)
    pipes = []
    for first in range(WORKERS):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                work(data, places, first, deadline, writing)
            finally:
                os._exit(0)
        os.close(writing)
        pipes.append((child, reading))
    done = 0
    for child, reading in pipes:
        with os.fdopen(reading, "rb") as file:
            count, _, failures = file.read().decode().partition("\n")
        os.waitpid(child, 0)
        assert count, "a worker died"
        assert not failures, failures
        done += int(count)
    print(f"{done} of {CASES} corruptions")
    assert done > min(CASES, 100)


def test_an_intact_one_is_not_harmed_by_the_harness() -> None:
    path = laboratory.dump("6.1", "sysrq").path
    data = path.read_bytes()
    assert read_log(open_source(Corrupted(data))).records == read_log(open_source(BytesSource(data))).records
