"""`kdumpy capture` as it is used on a workstation: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from kdumpy.dumpfile import open_dump


def kdumpy(*words: object, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([sys.executable, "-m", "kdumpy", *map(str, words)], capture_output=True, check=False,
                          timeout=120)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def test_a_dump_is_filtered_further(tmp_path: Path) -> None:
    target = tmp_path / "small"
    done = kdumpy("capture", lab.bundled(), target, "-d", 31, "--compress", "zlib", "--json")
    told = json.loads(done.stdout)
    assert told["path"] == str(target)
    assert told["bytes_written"] == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    with open_dump(target) as dump:
        assert (dump.dump_level, dump.compression, dump.pages_present) == (31, "zlib", told["kept_pages"])
        assert not dump.incomplete
    verdicts = [json.loads(kdumpy("report", path, "--json").stdout)["verdict"] for path in (target, lab.bundled())]
    assert verdicts[0]["culprit"] == verdicts[1]["culprit"]


def test_what_was_left_out_before_stays_in_the_level(tmp_path: Path) -> None:
    kdumpy("capture", lab.bundled(), tmp_path / "again", "-d", 1)
    with open_dump(lab.bundled()) as origin, open_dump(tmp_path / "again") as again:
        assert origin.dump_level
        assert again.dump_level == origin.dump_level | 1


def test_a_directory_gets_one_for_the_crash(tmp_path: Path) -> None:
    kdumpy("capture", lab.bundled(), tmp_path)
    (found,) = tmp_path.iterdir()
    assert found.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in found.iterdir()] == ["vmcore"]
    with open_dump(found / "vmcore") as dump:
        assert not dump.incomplete


def test_standard_output_gets_a_stream(tmp_path: Path) -> None:
    flat = tmp_path / "vmcore.flat"
    flat.write_bytes(kdumpy("capture", lab.bundled(), "-").stdout)
    with open_dump(flat) as dump, open_dump(lab.bundled()) as origin:
        assert dump.format == "kdump flattened"
        first = [pfn for run in dump.present() for pfn in run][:500]
        assert (dump.read_pages(first) == origin.read_pages(first)).all()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    told = json.loads(kdumpy("capture", lab.bundled(), tmp_path / "none", "--dry-run", "--json").stdout)
    assert told["pages"] > 1000
    assert told["bytes"] > 1 << 20
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_the_next_level_is_taken_where_space_lacks(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=True)
    try:
        done = kdumpy("capture", lab.bundled(), tmp_path / "vmcore", "-d", "1,31", code=3)
        assert b"trying level 31" in done.stderr
        assert b"no room for the dump: about" in done.stderr
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(("words", "code", "reason"), [
    (["-d", "32"], 2, b"not a dump level"), (["-d", "x"], 2, b"not a dump level"),
    (["--compress", "lz4"], 2, b"there are zlib"), (["--compress", "zstd:x"], 2, b"not a level"),
    (["--workers", "-1"], 2, b"not a number of processes"),
])
def test_wrong_arguments(tmp_path: Path, words: list[str], code: int, reason: bytes) -> None:
    done = kdumpy("capture", lab.bundled(), tmp_path / "none", *words, code=code)
    assert reason in done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    assert b"--force" in kdumpy("capture", lab.bundled(), there, code=2).stderr
    assert there.read_text() == "mine"
    copy = tmp_path / "copy"
    copy.write_bytes(lab.bundled().read_bytes())
    assert b"the same file" in kdumpy("capture", copy, copy, "--force", code=2).stderr
    assert copy.read_bytes() == lab.bundled().read_bytes()
    kdumpy("capture", copy, there, "--force")
    with open_dump(there) as dump:
        assert dump.pages_present


def test_a_source_that_is_no_dump(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"x" * 5000)
    assert b"not a dump" in kdumpy("capture", bad, tmp_path / "none", code=3).stderr
    assert b"No such file" in kdumpy("capture", tmp_path / "gone", tmp_path / "none", code=3).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_source_that_was_cut_gives_the_pages_it_has(tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    whole = lab.bundled().read_bytes()
    cut.write_bytes(whole[:len(whole) * 2 // 3])
    told = json.loads(kdumpy("capture", cut, tmp_path / "rest", "-d", 0, "--json", code=1).stdout)
    assert 0 < told["unreadable_pages"] < told["kept_pages"]
