"""`kdumpy repair`: of real dumps that were cut, zeroed or scribbled over, all that can be had is had."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.elf import ElfDump
from kdumpy.dumpfile.health import State, health
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.kernel import open_kernel
from pages import same_pages

ROOT = Path(__file__).parents[2]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdumpy", *map(str, words)], capture_output=True, text=True,
                          timeout=300, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])})


def repaired(damaged: Path, target: Path, *options: str, code: int = 1) -> dict[str, object]:
    before = damaged.read_bytes()
    answer = run("repair", damaged, target, "--json", *options)
    assert answer.returncode == code, answer
    assert damaged.read_bytes() == before
    found: dict[str, object] = json.loads(answer.stdout)
    return found


@pytest.fixture(scope="module")
def vmcore() -> Path:
    return lab.dump("6.1", "sysrq").path


@pytest.fixture
def data(vmcore: Path) -> bytearray:
    return bytearray(vmcore.read_bytes())


def lost_pages(found: dict[str, object]) -> set[int]:
    lost = found["lost"]
    assert isinstance(lost, dict)
    return {pfn for address, size in lost["ranges"] for pfn in range(address // 4096, (address + size) // 4096)}


def check(vmcore: Path, target: Path, found: dict[str, object], *, whole: bool = False) -> None:
    """Hold that a repaired dump has each page of the original but those told as lost, and opens everywhere."""
    lost = lost_pages(found)
    with open_dump(vmcore) as original, open_dump(target) as dump:
        same_pages(original, dump, but=lost)
        assert found["pages"] == dump.pages_present
        assert health(dump, deep=True).state is (State.COMPLETE if whole else State.INCOMPLETE)
        assert dump.vmcoreinfo.osrelease == original.vmcoreinfo.osrelease


@pytest.mark.parametrize("share", [0.99, 0.8, 0.5, 0.1])
def test_the_end_is_missing(vmcore: Path, data: bytearray, tmp_path: Path, share: float) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(data[:int(len(data) * share)])
    found = repaired(cut, tmp_path / "out")
    check(vmcore, tmp_path / "out", found)
    lost = found["lost"]
    assert isinstance(lost, dict)
    assert set(lost["reasons"]) == {"their data lies beyond the end of the file"}
    quick = repaired(cut, tmp_path / "quick", "--quick")
    assert quick["lost"] == lost


def test_cut_within_the_descriptors(vmcore: Path, data: bytearray, tmp_path: Path) -> None:
    with open_dump(vmcore) as dump:
        assert isinstance(dump, KdumpDump)
        at = dump.descriptors_offset + 24 * 1000 + 7
    cut = tmp_path / "cut"
    cut.write_bytes(data[:at])
    found = repaired(cut, tmp_path / "out")
    assert found["pages"] == 0
    assert found["usable"] is False


def test_pages_never_written_wrong_and_broken(vmcore: Path, data: bytearray, tmp_path: Path) -> None:
    with open_dump(vmcore) as dump:
        assert isinstance(dump, KdumpDump)
        table = dump.descriptors_offset
        pfns = [dump.bitmap.select(rank) for rank in (100, 101, 205, 300, 301)]
        broken = dump.descriptor(301)
    data[table + 2400:table + 2448] = bytes(48)
    struct.pack_into("<QIIQ", data, table + 205 * 24, 1 << 20, 70000, 2, 0)
    struct.pack_into("<QIIQ", data, table + 300 * 24, 1 << 45, 100, 2, 0)
    data[broken.offset:broken.offset + broken.size] = random.Random(1).randbytes(broken.size)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    found = repaired(damaged, tmp_path / "out")
    check(vmcore, tmp_path / "out", found)
    assert set(pfns) <= lost_pages(found)
    lost = found["lost"]
    assert isinstance(lost, dict)
    assert lost["reasons"]["they were never written"] == 2
    assert lost["reasons"]["their descriptors are wrong"] == 1
    assert lost["reasons"]["their data lies beyond the end of the file"] == 1
    assert lost["reasons"]["their data cannot be unpacked"] >= 1


@pytest.mark.parametrize("share", [0.9, 0.4])
def test_a_stream_cut_within_a_record(vmcore: Path, tmp_path: Path, share: float) -> None:
    assert run("convert", vmcore, tmp_path / "flat", "--flattened").returncode == 0
    flat = (tmp_path / "flat").read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(flat[:int(len(flat) * share)])
    found = repaired(cut, tmp_path / "out")
    check(vmcore, tmp_path / "out", found)
    assert int(str(found["pages"])) > 0


def test_a_stream_whose_bitmap_ends_early(tmp_path: Path) -> None:
    """A capture writes the bitmap as it goes, so what was still to come is in no bitmap."""
    vmcore = lab.dump("6.1", "live-kdump").path
    assert run("convert", vmcore, tmp_path / "flat", "--flattened", "--compress", "zstd").returncode == 0
    flat = (tmp_path / "flat").read_bytes()
    (tmp_path / "cut").write_bytes(flat[:len(flat) // 3])
    found = repaired(tmp_path / "cut", tmp_path / "out")
    lost = found["lost"]
    assert isinstance(lost, dict)
    unknown = [count for why, count in lost["reasons"].items() if "is not known" in why]
    with open_dump(vmcore) as original, open_dump(tmp_path / "out") as dump:
        told = original.pages_present - dump.pages_present
        assert sum(lost["reasons"].values()) == pytest.approx(told, abs=300)
        assert unknown
        kept = {pfn for run in dump.present() for pfn in run}
        same_pages(original, dump, but={pfn for run in original.present() for pfn in run} - kept)


@pytest.mark.parametrize(("at", "size"), [(0, 4096), (428, 4), (436, 8), (4096, 104), (0, 4096 + 104), (0, 8)])
@pytest.mark.parametrize("fill", ["zeros", "noise"])
def test_headers_are_found_again(vmcore: Path, data: bytearray, tmp_path: Path, at: int, size: int,
                                 fill: str) -> None:
    data[at:at + size] = bytes(size) if fill == "zeros" else random.Random(size).randbytes(size)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    found = repaired(damaged, tmp_path / "out", code=0)
    check(vmcore, tmp_path / "out", found, whole=True)
    assert found["made_good"]
    assert found["log_records"]
    kernel = open_kernel(tmp_path / "out")
    assert kernel.panic is not None
    kernel.close()


def test_vmcoreinfo_is_found_in_memory(tmp_path: Path) -> None:
    path = lab.dump("6.1", "live").path     # QEMU puts it in a note
    data = bytearray(path.read_bytes())
    with open_dump(path) as dump:
        assert isinstance(dump, ElfDump)
        (start, size), = dump.note_extents
        original = dump.vmcoreinfo
        registers = dump.prstatus
    notes = data[start:start + size].replace(b"VMCOREINFO\0", b"VMCOREIXXX\0")
    data[start:start + size] = notes
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    found = repaired(damaged, tmp_path / "out", code=0)
    made_good = found["made_good"]
    assert isinstance(made_good, list)
    assert "found in the kernel's memory" in made_good[0]
    with open_dump(tmp_path / "out") as dump, open_dump(path) as first:
        assert dump.vmcoreinfo["OSRELEASE"] == original["OSRELEASE"]
        assert dump.vmcoreinfo.symbol("swapper_pg_dir") == original.symbol("swapper_pg_dir")
        assert dump.prstatus == registers
        same_pages(first, dump)


def test_an_elf_dump_that_is_cut(tmp_path: Path) -> None:
    path = lab.dump("6.1", "live").path
    size = path.stat().st_size
    cut = tmp_path / "cut"
    with path.open("rb") as file:
        cut.write_bytes(file.read(size * 3 // 5))
    found = repaired(cut, tmp_path / "out")
    lost = found["lost"]
    assert isinstance(lost, dict)
    assert lost["bytes"] == size - size * 3 // 5 or abs(lost["bytes"] - (size - size * 3 // 5)) < 1 << 20
    with open_dump(tmp_path / "out") as dump, open_dump(path) as original:
        assert dump.incomplete
        assert health(dump).state is State.INCOMPLETE
        gone = {pfn for run in original.present() for pfn in run} - {pfn for run in dump.present() for pfn in run}
        same_pages(original, dump, but=gone)
        assert gone <= {pfn for address, part in lost["ranges"]
                        for pfn in range(address // 4096, (address + part) // 4096)}
        assert all(dump.vmcoreinfo[key] == value for key, value in original.vmcoreinfo.items())


def test_a_whole_dump_stays_so(vmcore: Path, tmp_path: Path) -> None:
    found = repaired(vmcore, tmp_path / "out", code=0)
    check(vmcore, tmp_path / "out", found, whole=True)
    assert "nothing is lost" in run("repair", vmcore, tmp_path / "again").stdout


def test_it_says_what_is_lost_and_how_to_check(data: bytearray, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(data[:len(data) // 2])
    answer = run("repair", tmp_path / "cut", tmp_path / "out")
    assert answer.returncode == 1
    assert "their data lies beyond the end of the file" in answer.stdout
    assert "physical 0x" in answer.stdout
    assert f"check it: kdumpy info --deep {tmp_path / 'out'}" in answer.stdout
    assert run("repair", tmp_path / "cut", tmp_path / "out").returncode == 2
    assert run("repair", tmp_path / "cut", tmp_path / "cut", "--force").returncode == 2


@pytest.mark.parametrize("content", [b"", bytes(1 << 20), b"text\n" * 40000, b"KDUMP   " + bytes(8000),
                                     b"\x7fELF" + bytes(200000), b"makedumpfile\0\0\0\0" + bytes(100000)])
def test_what_is_no_dump_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in").write_bytes(content)
    answer = run("repair", tmp_path / "in", tmp_path / "out")
    assert answer.returncode in (1, 3), answer
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "internal error" not in answer.stderr
    assert not (tmp_path / "out").exists()


def test_noise_anywhere_never_ends_in_a_traceback(data: bytearray, tmp_path: Path) -> None:
    chance = random.Random(7)
    with open_dump(lab.dump("6.1", "sysrq").path) as dump:
        assert isinstance(dump, KdumpDump)
        end = dump.descriptors_offset + dump.bitmap.count * 24
    from kdumpy.cli.main import main
    for number in range(25):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            at = chance.choice([chance.randrange(8192), chance.randrange(end), chance.randrange(len(data))])
            size = chance.choice([1, 4, 64, 4096, 100000])
            size = min(size, len(data) - at)
            damaged[at:at + size] = chance.choice([bytes(size), chance.randbytes(size)])
        (tmp_path / "in").write_bytes(damaged)
        code = main(["repair", str(tmp_path / "in"), str(tmp_path / f"out{number}"), "--force", "--debug"]) \
            if _is_expected(tmp_path / "in") else 3
        assert code in (0, 1, 3)
        if code < 3:
            with open_dump(tmp_path / f"out{number}") as dump:
                assert health(dump, deep=True).pages_lost == 0
        (tmp_path / f"out{number}").unlink(missing_ok=True)


def _is_expected(path: Path) -> bool:
    from kdumpy.dumpfile.damaged import open_damaged
    from kdumpy.errors import KdumpyError
    try:
        open_damaged(path)[0].close()
    except KdumpyError:
        return False
    return True
