"""Capture, from a real dump to another one: what is kept is kept byte for byte, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import lab
from kdumpy.capture import pipeline, plan
from kdumpy.capture.pipeline import Options, estimate, save
from kdumpy.capture.plan import Plan
from kdumpy.dumpfile import Dump, open_dump
from kdumpy.dumpfile.compressors import METHODS, Packed
from kdumpy.dumpfile.health import State, health
from kdumpy.dumpfile.sink import Buffer, FileSink
from kdumpy.errors import HostError, NoSpace

ALL = Options(level=0, workers=1)


@pytest.fixture(scope="module")
def origin() -> Iterator[Dump]:
    with open_dump(lab.bundled()) as dump:
        yield dump


def pfns_of(dump: Dump) -> list[int]:
    return [pfn for run in dump.present() for pfn in run]


def assert_same_pages(one: Dump, two: Dump) -> None:
    pfns = pfns_of(one)
    assert pfns == pfns_of(two)
    for start in range(0, len(pfns), 4096):
        batch = pfns[start:start + 4096]
        assert np.array_equal(one.read_pages(batch), two.read_pages(batch)), f"a page of {batch[0]} to {batch[-1]}"


@pytest.mark.parametrize("method", METHODS)
def test_every_page_is_kept_with_every_compression(origin: Dump, tmp_path: Path, method: str) -> None:
    path = tmp_path / "vmcore"
    with FileSink(path) as sink:
        summary = save(origin, sink, Options(level=0, compression=method, workers=2))
    with open_dump(path) as copy:
        assert_same_pages(origin, copy)
        assert health(copy, deep=True).state is State.COMPLETE
        assert copy.compression == method
        assert (copy.vmcoreinfo.raw, copy.utsname, copy.prstatus) == \
            (origin.vmcoreinfo.raw, origin.utsname, origin.prstatus)
    assert summary.kept_pages == origin.pages_present
    assert summary.bytes_written == path.stat().st_size
    assert summary.shared_pages > 100           # a kernel has many equal pages
    assert summary.unreadable_pages == 0


@pytest.mark.parametrize("options", [Options(level=0, workers=1), Options(level=0, workers=4),
                                     Options(level=0, small=True), Options(level=0, format="elf", workers=2)])
def test_every_way_of_working_keeps_the_same(origin: Dump, tmp_path: Path, options: Options) -> None:
    path = tmp_path / "vmcore"
    with FileSink(path) as sink:
        save(origin, sink, options)
    with open_dump(path) as copy:
        assert_same_pages(origin, copy)
        assert not copy.incomplete


def test_one_process_makes_the_same_file_twice(origin: Dump, tmp_path: Path) -> None:
    for name in ("one", "two"):
        with FileSink(tmp_path / name) as sink:
            save(origin, sink, ALL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_equal_pages_are_stored_once(origin: Dump, tmp_path: Path) -> None:
    sizes = {}
    for small in (True, False):                 # small: no look-out for them
        path = tmp_path / f"small-{small}"
        with FileSink(path) as sink:
            save(origin, sink, Options(level=0, workers=1, small=small))
        sizes[small] = path.stat().st_size
    assert sizes[False] < sizes[True]


def test_the_bitmap_may_be_made_again_instead_of_held(origin: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Plan.make(origin, 31)
    monkeypatch.setattr(plan, "BUDGET", 0)
    again = Plan.make(origin, 31)
    assert held.kept == again.kept
    for one, two in zip(held.chunks(), again.chunks(), strict=True):
        assert one.first == two.first
        assert np.array_equal(one.kept, two.kept)
        assert np.array_equal(one.memory, two.memory)


def test_the_estimate_is_near_and_not_below(origin: Dump, tmp_path: Path) -> None:
    options = Options(level=31, workers=1)
    found = estimate(origin, options)
    with FileSink(tmp_path / "vmcore") as sink:
        summary = save(origin, sink, options, plan=found.plan)
    assert summary.kept_pages == found.pages
    assert summary.bytes_written <= found.bytes < 2 * summary.bytes_written


class FullSink(FileSink):
    """A file on a disk that becomes full."""

    room = 0

    def write_at(self, offset: int, data: Buffer) -> None:
        self.room -= memoryview(data).nbytes  # type: ignore[arg-type]
        if self.room < 0:
            raise NoSpace("cannot write the dump", where=self.name)
        super().write_at(offset, data)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_what_was_written_readable_and_marked(origin: Dump, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "vmcore"
    sink = FullSink(path)
    sink.room = 4 << 20
    with sink, pytest.raises(NoSpace):
        save(origin, sink, Options(level=0, workers=workers))
    with open_dump(path) as part:
        assert part.incomplete
        assert health(part).state is State.INCOMPLETE
        first = pfns_of(part)[:1000]
        assert len(first) == 1000
        assert np.array_equal(part.read_pages(first), origin.read_pages(first))


class Deadly:
    """A compressor that takes its process with it."""

    name, flag = "none", 0

    def pack(self, pages: np.ndarray) -> Packed:
        os._exit(9)


def test_a_worker_that_dies_is_an_error_and_not_a_hang(origin: Dump, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdumpy.capture.output.compressor", lambda *arguments: Deadly())
    with FileSink(tmp_path / "vmcore") as sink, pytest.raises(HostError, match="a worker process died"):
        save(origin, sink, Options(level=0, workers=2))


class HoleyDump:
    """A dump of which one page cannot be read."""

    def __init__(self, dump: Dump, bad: int) -> None:
        self._dump = dump
        self._bad = bad

    def __getattr__(self, name: str) -> object:
        return getattr(self._dump, name)

    def read_pages(self, pfns: np.ndarray, missing: str = "raise") -> np.ndarray:
        if self._bad in pfns:
            raise HostError("bad sector")
        return self._dump.read_pages(pfns)

    def read_physical(self, address: int, size: int) -> bytes:
        if address == self._bad * self._dump.page_size:
            raise HostError("bad sector")
        return self._dump.read_physical(address, size)


def test_a_page_that_cannot_be_read_costs_that_page(origin: Dump, tmp_path: Path) -> None:
    bad = pfns_of(origin)[2000]
    with FileSink(tmp_path / "vmcore") as sink:
        summary = save(HoleyDump(origin, bad), sink, ALL)  # type: ignore[arg-type]
    assert summary.unreadable_pages == 1
    with open_dump(tmp_path / "vmcore") as copy:
        others = [pfn for pfn in pfns_of(origin)[1500:2500] if pfn != bad]
        assert np.array_equal(copy.read_pages(others), origin.read_pages(others))
        with pytest.raises(Exception, match="never written"):
            copy.read_pages([bad])


@pytest.mark.parametrize("form", ["kdump", "elf"])
def test_a_dump_that_lacks_a_page_says_that_it_is_incomplete(origin: Dump, tmp_path: Path,
                                                             form: Literal["kdump", "elf"]) -> None:
    bad = pfns_of(origin)[2000]
    for name, source in (("whole", origin), ("holed", HoleyDump(origin, bad))):
        with FileSink(tmp_path / name) as sink:
            save(source, sink, replace(ALL, format=form))  # type: ignore[arg-type]
    with open_dump(tmp_path / "whole") as whole, open_dump(tmp_path / "holed") as holed:
        assert not whole.incomplete
        assert holed.incomplete
        assert health(whole).state is State.COMPLETE
        assert health(holed).state is State.INCOMPLETE


def test_progress_ends_with_all_pages(origin: Dump, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    with FileSink(tmp_path / "vmcore") as sink:
        save(origin, sink, ALL, lambda *state: told.append(state))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == origin.pages_present
    assert told[-1][2] == (tmp_path / "vmcore").stat().st_size
    assert (told[1][0] - told[0][0]) * origin.page_size <= pipeline.BATCH_BYTES
