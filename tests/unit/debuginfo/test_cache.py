"""The cache of BTF indexes: the same answer, and nothing from or for anybody but this user."""

from __future__ import annotations

import marshal
import os
import struct
from pathlib import Path

import pytest

from kdumpy.debuginfo import cache
from kdumpy.debuginfo.btf import Btf


def blob(name: str = "point") -> bytes:
    """BTF of one empty struct."""
    strings = b"\0" + name.encode() + b"\0"
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, len(strings)) + struct.pack(
        "<III", 1, 4 << 24, 0) + strings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = tmp_path / "cache"
    monkeypatch.setenv("KDUMPY_CACHE", str(where))
    return where


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What marshal was given."""
    seen: list[bytes] = []
    loads = marshal.loads

    def watched(body: bytes) -> object:
        seen.append(body)
        return loads(body)

    monkeypatch.setattr(marshal, "loads", watched)
    return seen


def test_the_cache_gives_the_same_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cache.load_index(blob())
    (entry,) = folder.iterdir()
    assert entry.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(Btf, "_scan", None)             # the second time nothing is scanned
    assert cache.load_index(blob()).index == first.index


@pytest.mark.parametrize("damage", [lambda raw: raw[:-3] + b"xyz", lambda raw: raw[:20], lambda raw: b""])
def test_a_broken_entry_counts_as_none_and_is_replaced(folder: Path, damage: object) -> None:
    assert callable(damage)
    first = cache.load_index(blob())
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert cache.load_index(blob()).index == first.index
    assert entry.read_bytes() == whole


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o1777])
def test_a_folder_that_others_can_write_is_neither_read_nor_written(folder: Path, loaded: list[bytes],
                                                                    mode: int) -> None:
    cache.load_index(blob())
    folder.chmod(mode)
    assert cache.load_index(blob()).index.names
    cache.load_index(blob("other"))
    assert loaded == []
    assert len(list(folder.iterdir())) == 1


def test_an_entry_that_others_can_write_is_replaced_unread(folder: Path, loaded: list[bytes]) -> None:
    cache.load_index(blob())
    (entry,) = folder.iterdir()
    entry.chmod(0o620)
    cache.load_index(blob())
    assert loaded == []
    assert entry.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("what", ["folder", "entry"])
def test_nothing_of_another_user_is_read(folder: Path, loaded: list[bytes], monkeypatch: pytest.MonkeyPatch,
                                         what: str) -> None:
    cache.load_index(blob())
    (entry,) = folder.iterdir()
    stranger = (folder if what == "folder" else entry).stat().st_ino
    fstat = os.fstat

    def fstat_of_another(handle: int) -> os.stat_result:
        found = fstat(handle)
        fields = list(found)
        fields[4] += found.st_ino == stranger           # st_uid
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat_of_another)
    assert cache.load_index(blob()).index.names
    assert loaded == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["folder", "entry"])
def test_nothing_that_was_given_away_is_read(folder: Path, loaded: list[bytes], what: str) -> None:
    cache.load_index(blob())
    (entry,) = folder.iterdir()
    os.chown(folder if what == "folder" else entry, 12345, -1)
    cache.load_index(blob())
    assert loaded == []


def test_a_link_is_not_followed(folder: Path, tmp_path: Path, loaded: list[bytes]) -> None:
    cache.load_index(blob())
    (entry,) = folder.iterdir()
    elsewhere = entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(elsewhere)
    cache.load_index(blob())
    assert loaded == []
    assert not entry.is_symlink()


def test_the_oldest_entries_go_and_other_files_stay(folder: Path) -> None:
    for number in range(cache.MOST_ENTRIES):
        before = set(folder.iterdir()) if folder.exists() else set()
        cache.load_index(blob(f"s{number}"))
        (entry,) = set(folder.iterdir()) - before
        os.utime(entry, (1000 - number, 1000 - number))         # the first is the newest
    newest_first = sorted(folder.iterdir(), key=lambda path: -path.stat().st_mtime)
    (folder / "notes").write_text("the user's")
    for number in range(2):
        cache.load_index(blob(f"later{number}"))
    left = set(folder.iterdir())
    assert len(left) == cache.MOST_ENTRIES + 1
    assert set(newest_first[:-2]) < left
    assert not left & set(newest_first[-2:])
    assert folder / "notes" in left


def test_entries_of_one_kind_do_not_drive_out_the_other(folder: Path) -> None:
    cache.write(f"{'a' * 40}.symbols.1", b"symbols")
    for number in range(cache.MOST_ENTRIES + 1):
        cache.load_index(blob(f"s{number}"))
    assert len(list(folder.iterdir())) == cache.MOST_ENTRIES + 1
    kept = cache.read(f"{'a' * 40}.symbols.1")
    assert kept is not None
    assert kept.tobytes() == b"symbols"


def test_an_empty_name_turns_the_cache_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDUMPY_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache.load_index(blob())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDUMPY_CACHE", str(tmp_path / "file" / "cache"))
    assert cache.load_index(blob()).index.names
