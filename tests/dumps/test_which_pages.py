"""Which pages a dump level leaves out, on unfiltered memory of real guests: against makedumpfile, and against the
kernel's own definitions and free lists."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

import lab
import page_kinds
from kdumpy.capture.kinds import Kind, left_out
from kdumpy.capture.sorter import BATCH, PageSorter
from kdumpy.dumpfile import Dump, open_dump
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import MissingPage, NotInDump
from kdumpy.kernel.opening import open_kernel
from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import Recipe

KERNELS = lab.KERNELS if lab.FULL else ("6.1", "newest")
LEVELS = range(32) if lab.FULL else (0, 2, 4, 8, 16, 24, 31)


def with_huge_pages(recipe: Recipe) -> Recipe:
    return replace(recipe, fault=replace(recipe.fault, boot="hugepages=6 transparent_hugepage=always"))


@cache
def whole_memory(kernel: str) -> Path:
    """Return all memory of a healthy guest, as QEMU writes it: nothing is left out."""
    return laboratory.dump(kernel, "live", recipe=with_huge_pages, progress=lambda line: print(line, flush=True)).path


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def memory(kernel: str) -> Iterator[Dump]:
    with open_dump(whole_memory(kernel)) as dump:
        yield dump


def all_kinds(sorter: PageSorter, pages: int) -> NDArray[np.uint8]:
    """Return every page's kind: shape (pages,)."""
    found = np.zeros(pages, np.uint8)
    for first, kinds in sorter.batches():
        assert first % BATCH == 0
        assert len(kinds) <= BATCH
        found[first:first + len(kinds)] = kinds
    return found


def with_plain_header(source: Path, target: Path) -> None:
    """Copy QEMU's ELF file with the program headers where makedumpfile wants them, and without sections."""
    shutil.copyfile(source, target)
    target.chmod(0o600)
    with target.open("r+b") as file:
        header = bytearray(file.read(64))
        at, = struct.unpack_from("<Q", header, 32)
        count, = struct.unpack_from("<H", header, 56)
        file.seek(at)
        programs = file.read(56 * count)
        struct.pack_into("<QQ", header, 32, 64, 0)
        struct.pack_into("<HHHHHH", header, 52, 64, 56, count, 0, 0, 0)
        file.seek(0)
        file.write(header + programs)


def test_the_same_pages_are_kept_as_makedumpfile_keeps(tmp_path: Path) -> None:
    if shutil.which("makedumpfile") is None:
        pytest.skip("makedumpfile is not installed")
    plain, out = tmp_path / "elf", tmp_path / "kdump"
    with_plain_header(whole_memory("6.1"), plain)    # makedumpfile 1.7.2 does not know newer kernels
    with open_dump(plain) as dump:
        sorter = PageSorter(dump)
        kinds = all_kinds(sorter, dump.max_pfn)
        assert sorter.unreadable == sorter.impossible == 0
    for level in LEVELS:
        subprocess.run(["makedumpfile", "-l", "-d", str(level), str(plain), str(out)], check=True, capture_output=True)
        theirs = np.zeros(len(kinds), np.bool_)
        with open_dump(out) as filtered:
            for run in filtered.present():
                theirs[run.start:run.stop] = True
        out.unlink()
        ours = ~left_out(level)[kinds]
        different = np.flatnonzero(ours != theirs)
        # makedumpfile leaves out what has no struct page: here the display's memory and the firmware below 4 GiB.
        different = different[different < 0xfd000]
        assert not len(different), f"level {level}: {len(different)} pages from {different[0]:#x} on"


def test_every_page_is_what_the_kernel_means_by_it(kernel: str, memory: Dump) -> None:
    sorter = PageSorter(memory)
    kinds = all_kinds(sorter, memory.max_pfn)
    assert sorter.unreadable == sorter.impossible == 0
    with open_kernel(whole_memory(kernel)) as opened:
        free = page_kinds.free_pages(opened.prog, memory.max_pfn)
        expected = page_kinds.kinds_by_types(opened.prog, memory)
    assert np.array_equal(kinds == Kind.FREE, free)
    for run in memory.present():
        there = slice(run.start, run.stop)
        expected[there][free[there]] = Kind.FREE
        different = np.flatnonzero(kinds[there] != expected[there]) + run.start
        assert not len(different), f"{len(different)} pages, first {different[0]:#x}: {Kind(kinds[different[0]]).name}"
    counts = np.bincount(kinds, minlength=len(Kind))
    assert counts[Kind.USER] >= 6 * 512, "six huge pages of 2 MiB are in the pool"
    assert counts[Kind.FREE] > 1000
    assert counts[Kind.CACHE] > 1000
    assert counts[Kind.KERNEL] > 1000


def test_a_walk_can_begin_and_end_anywhere(memory: Dump) -> None:
    sorter = PageSorter(memory)
    whole = all_kinds(sorter, memory.max_pfn)
    for start, stop in ((BATCH, 2 * BATCH), (5000, 40001), (40000, 10 ** 9)):
        seen = np.zeros(memory.max_pfn, np.uint8)
        for first, kinds in sorter.batches(start, stop):
            seen[first:first + len(kinds)] = kinds
        assert np.array_equal(seen[start:stop], whole[start:stop])
        assert not seen[:start].any()
        assert not seen[stop:].any()


def test_nothing_that_level_31_kept_would_be_left_out() -> None:
    with open_dump(lab.bundled()) as dump:
        kinds = all_kinds(PageSorter(dump), dump.max_pfn)
        kept = np.concatenate([kinds[run.start:run.stop] for run in dump.present()])
        assert dump.dump_level == 31
    assert not left_out(31)[kept].any()


def test_a_kernel_before_5_9_is_understood_without_the_sizes_it_does_not_export(memory: Dump) -> None:
    whole = all_kinds(PageSorter(memory), memory.max_pfn)
    lines = [line for line in memory.vmcoreinfo.raw.splitlines() if b"_BITS)" not in line]
    assert len(lines) < len(memory.vmcoreinfo.raw.splitlines())
    memory.adopt_vmcoreinfo(VmcoreInfo(b"\n".join(lines)))
    assert np.array_equal(all_kinds(PageSorter(memory), memory.max_pfn), whole)


def test_a_kernel_that_is_not_understood_is_refused(memory: Dump) -> None:
    for needed in (b"SIZE(page)", b"OFFSET(page._mapcount)", b"NUMBER(PG_lru)", b"LENGTH(mem_section)"):
        with open_dump(memory.source.name) as dump:
            lines = [line for line in dump.vmcoreinfo.raw.splitlines() if not line.startswith(needed)]
            dump.adopt_vmcoreinfo(VmcoreInfo(b"\n".join(lines)))
            with pytest.raises(NotInDump):
                PageSorter(dump)


def test_a_layout_that_would_throw_the_kernel_away_is_refused(memory: Dump) -> None:
    """PG_lru is said to be where PG_reserved is: the kernel's own image would be page cache."""
    reserved = {"6.1": 12, "5.10": 12}.get(memory.vmcoreinfo.osrelease[:4].rstrip("."), 13)
    lines = memory.vmcoreinfo.raw.splitlines()
    lines = [b"NUMBER(PG_lru)=%d" % reserved if line.startswith(b"NUMBER(PG_lru)") else line for line in lines]
    memory.adopt_vmcoreinfo(VmcoreInfo(b"\n".join(lines)))
    with pytest.raises(NotInDump, match="not understood"):
        PageSorter(memory)


class Wrapped:
    """A dump behind another object, as the redacting reader is: with a hole in its physical memory."""

    def __init__(self, dump: Dump, hole: range = range(0)) -> None:
        self._dump = dump
        self._hole = hole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dump, name)

    def read_physical(self, address: int, size: int) -> bytes:
        """Refuse what touches the hole."""
        if address < self._hole.stop and address + size > self._hole.start:
            raise MissingPage("a hole", where=f"{address:#x}")
        return self._dump.read_physical(address, size)


def test_pages_whose_struct_page_is_lost_are_kept(memory: Dump) -> None:
    sorter = PageSorter(memory)
    whole = all_kinds(sorter, memory.max_pfn)
    free = int(np.flatnonzero(whole == Kind.FREE)[-1])
    (_, _, address), = sorter._map.arrays(free, free + 1)
    lost = sorter._memory.translate(address) & -4096
    holed = PageSorter(cast("Dump", Wrapped(memory, range(lost, lost + 4096))))
    kinds = all_kinds(holed, memory.max_pfn)
    assert kinds[free] == Kind.KERNEL
    assert 0 < holed.unreadable <= 64
    assert (kinds[kinds != whole] == Kind.KERNEL).all()


def test_a_dump_behind_another_object_is_read_alike(memory: Dump) -> None:
    """A file is read into the walk's own buffer, others through copies: the answer is one."""
    wrapped = PageSorter(cast("Dump", Wrapped(memory)))
    assert np.array_equal(all_kinds(wrapped, memory.max_pfn), all_kinds(PageSorter(memory), memory.max_pfn))


def test_extents_are_what_single_translations_say(memory: Dump) -> None:
    kernel = KernelMemory(memory)
    start = memory.vmcoreinfo.symbol("_stext") & -4096
    stop = start + (8 << 20)
    pieces = list(kernel.extents(start + 123, stop - 7))
    assert pieces[0][0] == start + 123
    assert pieces[-1][0] + pieces[-1][2] == stop - 7
    by_page = {}
    for virtual, physical, size in pieces:
        for inside in range(0, size, 4096):
            by_page[virtual + inside] = physical + inside
    assert len(by_page) >= 2048
    assert all(kernel.translate(virtual) == physical for virtual, physical in by_page.items())


def test_extents_pass_over_what_is_not_mapped(memory: Dump) -> None:
    kernel = KernelMemory(memory)
    assert list(kernel.extents(0xfffffffffff00000, 1 << 64)) == []    # the last megabyte is never mapped
    assert list(kernel.extents(5, 5)) == []

