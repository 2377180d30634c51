"""Page descriptors that lead astray, a bitmap with a wrong bit, a file that ends too early: a verdict all the same.

libkdumpfile maps what a descriptor speaks of, so that one wrong bit was the end of the program (SIGBUS); each is tried
in a process of its own.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from operator import xor
from pathlib import Path

import pytest

import lab
from kdumpy.dumpfile import descriptors, open_dump
from kdumpy.dumpfile.guard import why_unsafe
from kdumpy.dumpfile.health import State, health
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.vm import laboratory


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A dump that may be written to."""
    target = tmp_path / "vmcore"
    shutil.copyfile(lab.dump("6.1", "null-workqueue").path, target)
    return target


def kdump(path: Path) -> KdumpDump:
    dump = open_dump(path)
    assert isinstance(dump, KdumpDump)
    return dump


def change(path: Path, at: int, size: int, new: Callable[[int], int]) -> None:
    """Change a number in the file."""
    with path.open("r+b") as file:
        file.seek(at)
        old = int.from_bytes(file.read(size), "little")
        file.seek(at)
        file.write(new(old).to_bytes(size, "little"))


def kdumpy(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdumpy", *map(str, words)], capture_output=True, text=True,
                          timeout=120, check=False)


def verdict(path: Path) -> tuple[str, str, dict[str, str]]:
    """Return cause, confidence and what is missing, by a report in a process of its own."""
    done = kdumpy("report", path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    return found["verdict"]["cause"], found["verdict"]["confidence"], found["dump"]["missing"]


def page_of(dump: KdumpDump, symbol: str) -> int:
    """Return the rank of the page that holds a variable."""
    from kdumpy.dumpfile.paging import KernelMemory

    return dump.bitmap.rank(KernelMemory(dump).translate(dump.vmcoreinfo.symbol(symbol)) // dump.page_size)


def test_a_sound_dump_has_no_strays() -> None:
    for kernel, fault in (("6.1", "null-workqueue"), ("6.1", "sysrq"), ("6.1", "live-kdump")):
        with open_dump(laboratory.dump(kernel, fault).path) as dump:
            assert why_unsafe(dump) == ""
            if isinstance(dump, KdumpDump):
                assert (dump.survey.strays, dump.survey.shift) == (0, 0)


@pytest.mark.parametrize("many", [1, 1 << 21])
def test_every_descriptor_is_looked_at(copy: Path, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_MANY", many)         # with numpy, and without
    monkeypatch.setattr(descriptors, "_AT_ONCE", 1000)
    rng = random.Random(many)
    with kdump(copy) as dump:
        table, count = dump.descriptors_offset, dump.bitmap.count
    for _ in range(20):
        rank = rng.randrange(count)
        at, size, bit = rng.choice([(0, 8, rng.randrange(25, 64)), (8, 4, rng.randrange(13, 32))])
        where = table + rank * 24 + at
        change(copy, where, size, partial(xor, 1 << bit))
        with kdump(copy) as dump:
            assert dump.survey == descriptors.Survey(1, rank, 0), (rank, at, bit)
            assert "1 of" in why_unsafe(dump)
            assert health(dump).state is State.DAMAGED
        change(copy, where, size, partial(xor, 1 << bit))
    with kdump(copy) as dump:
        assert why_unsafe(dump) == ""


def test_a_wrong_size_costs_that_page_alone(copy: Path) -> None:
    with kdump(copy) as dump:
        at = dump.descriptors_offset + page_of(dump, "init_uts_ns") * 24 + 8
    change(copy, at, 4, lambda old: old | 1 << 27)
    cause, confidence, missing = verdict(copy)
    assert (cause, confidence) == ("null-dereference", "likely")
    assert "the descriptors of 1 of" in missing["engine"]
    done = kdumpy("crash", copy, "-e", "ps")
    assert done.returncode == 0
    assert "swapper/0" in done.stdout


@pytest.mark.parametrize("cut", [1, 2000, 200_000])
def test_a_file_that_ends_within_a_page(copy: Path, cut: int) -> None:
    size = copy.stat().st_size - cut
    with copy.open("r+b") as file:
        file.truncate(size)
    with kdump(copy) as dump:
        assert dump.survey.strays > 0
        assert why_unsafe(dump) != ""
    cause, confidence, missing = verdict(copy)
    assert cause == "null-dereference"
    assert confidence in ("certain", "likely") if cut < 3000 else confidence == "likely"
    assert "lead out of the file" in missing["engine"]
    assert kdumpy("crash", copy, "-e", "log").returncode == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_wrong_bit_in_the_bitmap(copy: Path, seed: int) -> None:
    """Each page behind it gets another one's data: what is told is likely at most, and never a lack of memory."""
    rng = random.Random(seed)
    with kdump(copy) as dump:
        held = page_of(dump, "swapper_pg_dir")
        low, high = (dump.bitmap.select(rank) for rank in (held + 1, dump.bitmap.count - 1))
        bit = rng.randrange(low, high)
        at, was = dump.bitmap.offset + bit // 8, dump.bitmap.has(bit)
    change(copy, at, 1, lambda old: old ^ 1 << bit % 8)
    with kdump(copy) as dump:
        assert dump.survey.shift == (1 if was else -1)
        assert dump.survey.shifted in why_unsafe(dump)
        assert any("its bitmap has" in reason.what for reason in health(dump).reasons)
    cause, confidence, _ = verdict(copy)
    assert cause in ("null-dereference", "unknown")
    assert confidence != "certain"


def test_zeros_behind_the_descriptors_are_none(copy: Path) -> None:
    """QEMU begins the pages' data at a block: what lies between is no descriptor."""
    with kdump(copy) as dump:
        table, count = dump.descriptors_offset, dump.bitmap.count
        bit = dump.bitmap.select(count - 1)
        at = dump.bitmap.offset + bit // 8
    change(copy, at, 1, lambda old: old & ~(1 << bit % 8))
    with kdump(copy) as dump:
        assert dump.survey.shift == 1
    with copy.open("r+b") as file:
        file.seek(table + (count - 1) * 24)
        file.write(bytes(24))
    with kdump(copy) as dump:
        assert dump.survey.shift == 0
