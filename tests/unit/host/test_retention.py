"""What is removed and what stays: by number, age and room; never the newest, never what is no crash."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kdumpy.host import retention
from kdumpy.host.settings import Retention
from kdumpy.host.system import System

NOW = 1_800_000_000.0
RULES = Retention(keep=0, max_age_days=0, min_free_percent=0)


@pytest.fixture
def system(tmp_path: Path) -> System:
    for age in range(5):
        folder = tmp_path / f"var/crash/web-3-{age}-days-old"
        folder.mkdir(parents=True)
        for name in ("vmcore", "vmcore-dmesg.txt"):
            (folder / name).write_bytes(bytes(4096))
            os.utime(folder / name, (NOW - age * 86400, NOW - age * 86400))
    other = tmp_path / "var/crash/somebody-s-notes"
    other.mkdir()
    (other / "todo.txt").write_text("buy memory")
    return System(tmp_path)


def chosen(system: System, rules: Retention) -> list[str]:
    return [Path(one.crash.path).name for one in retention.choose(system, ("/var/crash",), rules, NOW)]


def test_nothing_goes_without_a_rule(system: System) -> None:
    assert chosen(system, RULES) == []


def test_the_oldest_go_when_there_are_too_many(system: System) -> None:
    assert chosen(system, replace(RULES, keep=3)) == ["web-3-4-days-old", "web-3-3-days-old"]


def test_old_ones_go(system: System) -> None:
    assert chosen(system, replace(RULES, max_age_days=2)) == ["web-3-4-days-old", "web-3-3-days-old"]


@pytest.mark.parametrize("rules", [replace(RULES, keep=1), replace(RULES, min_free_percent=95),
                                   replace(RULES, keep=1, max_age_days=1, min_free_percent=95)])
def test_the_newest_stays_and_so_does_what_is_no_crash(system: System, rules: Retention,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255)))
    for one in retention.choose(system, ("/var/crash",), rules, NOW):
        retention.remove(system, one)
    assert sorted(path.name for path in system.path("/var/crash").iterdir()) == \
        ["somebody-s-notes", "web-3-0-days-old"]


def test_only_as_many_go_as_room_is_wanted(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    # 10 % of 80 pages are 8; 5 are free: the oldest crash's two pages are not enough, those of two are.
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((4096, 4096, 80, 5, 5, 0, 0, 0, 0, 255)))
    assert chosen(system, replace(RULES, min_free_percent=10)) == ["web-3-4-days-old", "web-3-3-days-old"]


def test_a_place_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert retention.choose(System(tmp_path), ("/var/crash",), replace(RULES, min_free_percent=50), NOW) == []
