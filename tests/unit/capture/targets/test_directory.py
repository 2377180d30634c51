"""A directory as target: names, rights, what stays when it is full."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpy.capture.targets import target_of
from kdumpy.capture.targets.base import incomplete
from kdumpy.dumpfile.sink import Sink
from kdumpy.errors import HostError, NoSpace
from saving import assert_is_the_dump, config, save_dump


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fill(sink: Sink) -> None:
    for piece in range(64):
        sink.write_at(piece << 17, bytes(1 << 17))


@pytest.mark.parametrize("url", ["{}", "file://{}", "file:{}", "file://localhost{}"])
def test_a_dump_gets_its_name_when_it_is_whole(tmp_path: Path, url: str) -> None:
    base = tmp_path / "var" / "crash"
    target = target_of(url.format(base), config(), "web-3-2026-11-23-17:58:57")
    target.prepare()
    directory = base / "web-3-2026-11-23-17:58:57"
    assert mode(directory) == 0o700
    sink = target.open("vmcore")
    sink.write_at(0, b"dump")
    assert [path.name for path in directory.iterdir() if not path.name.startswith(".")] == ["vmcore-incomplete"]
    sink.close()
    assert target.keep("vmcore") == "vmcore"
    target.put("vmcore-dmesg.txt", b"[    0.000000] Linux\n")
    target.close()
    assert sorted(path.name for path in directory.iterdir()) == ["vmcore", "vmcore-dmesg.txt"]
    assert {mode(path) for path in directory.iterdir()} == {0o600}
    assert target.digest("vmcore") == hashlib.sha256(b"dump").hexdigest()
    assert target.place("vmcore") == str(directory / "vmcore")


def test_a_real_dump_comes_back(tmp_path: Path) -> None:
    target = target_of(str(tmp_path), config(), "here")
    target.prepare()
    assert save_dump(target) == "vmcore"
    assert_is_the_dump(tmp_path / "here" / "vmcore")


def test_a_second_attempt_finds_the_directory_of_the_first(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        target = target_of(str(tmp_path), config(), "here")
        target.prepare()
        target.put("vmcore-dmesg.txt", text)
        target.close()
    assert (tmp_path / "here" / "vmcore-dmesg.txt").read_bytes() == b"two"


def test_a_link_in_the_directory_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").symlink_to("elsewhere")
    with pytest.raises(HostError, match="another user's"):
        target_of(str(tmp_path), config(), "here").prepare()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_the_directory_s_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostError, match="cannot make the crash's directory"):
        target_of(str(tmp_path / "file"), config(), "here").prepare()


def test_a_full_disk_still_takes_the_log(tmpfs: Callable[[int], Path]) -> None:
    base = tmpfs(4)
    target = target_of(str(base), config(), "here")
    target.prepare()
    free = target.free_bytes()
    assert free is not None
    assert 3 << 20 < free <= 4 << 20
    sink = target.open("vmcore")
    with pytest.raises(NoSpace):
        fill(sink)
    target.put("kexec-dmesg.log", b"why" * 10000)
    assert target.abandon("vmcore") == str(base / "here" / "vmcore-incomplete")
    names = sorted(path.name for path in (base / "here").iterdir())
    assert names == ["kexec-dmesg.log", "vmcore-incomplete"]
    target.discard("vmcore")
    assert (target.free_bytes() or 0) > 3 << 20
    target.close()
    assert [path.name for path in (base / "here").iterdir()] == ["kexec-dmesg.log"]


def test_a_small_file_that_does_not_fit_leaves_the_one_before(tmpfs: Callable[[int], Path]) -> None:
    target = target_of(str(tmpfs(1)), config(), "here")
    target.prepare()
    target.put("kexec-dmesg.log", b"before")
    with pytest.raises(NoSpace, match="No space left"):
        target.put("kexec-dmesg.log", bytes(2 << 20))
    directory = Path(target.place(""))
    assert [path.name for path in directory.iterdir()] == ["kexec-dmesg.log"]
    assert (directory / "kexec-dmesg.log").read_bytes() == b"before"


def test_nothing_is_left_of_a_dump_that_failed_before_its_first_byte(tmp_path: Path) -> None:
    target = target_of(str(tmp_path), config(), "here")
    target.prepare()
    target.open("vmcore")
    assert target.abandon("vmcore") == ""
    assert list((tmp_path / "here").iterdir()) == []


def test_the_incomplete_name_keeps_what_tells_the_format() -> None:
    assert [incomplete(name) for name in ("vmcore", "vmcore.flat", "vmcore.flat.age")] == [
        "vmcore-incomplete", "vmcore-incomplete.flat", "vmcore-incomplete.flat.age"]
