"""The crashed kernel's log as a file, and the directory's name."""

from __future__ import annotations

import re
import socket
from dataclasses import replace

import pytest

import lab
from kdumpy.capture import log
from kdumpy.dumpfile import Utsname, open_dump
from kdumpy.dumpfile.base import PagedDump
from kdumpy.errors import NotInDump


def test_the_log_is_what_kdumpy_log_prints() -> None:
    with open_dump(lab.bundled()) as dump:
        found = log.crash_log(dump)
    lines = found.data.decode().splitlines()
    assert found.lines == len(lines) > 300
    assert found.losses == ""
    assert re.match(r"\[    0\.000000\] Linux version ", lines[0])
    assert any("Kernel panic - not syncing" in line or "Oops" in line for line in lines)


def test_the_directory_is_named_by_the_crashed_host_and_the_crash() -> None:
    with open_dump(lab.bundled()) as dump:
        assert log.directory_name(dump) == log.directory_name(dump)
        assert re.fullmatch(r"laboratory-2026-11-23-\d\d:\d\d:\d\d", log.directory_name(dump))
        assert log.directory_name(dump, "web-3").startswith("web-3-2026-")


@pytest.mark.parametrize(("nodename", "expected"), [
    ("../../etc", "_.._etc"), ("a b\n", "a_b_"), ("x" * 100, "x" * 64), ("(none)", "capture"), ("", "capture"),
    ("localhost", "capture"), ("...", "capture")])
def test_no_name_in_a_dump_can_be_a_path(monkeypatch: pytest.MonkeyPatch, nodename: str, expected: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "capture")
    with open_dump(lab.bundled()) as dump:
        known = dump.utsname
        assert isinstance(known, Utsname)
        monkeypatch.setattr(PagedDump, "utsname", replace(known, nodename=nodename))
        name = log.directory_name(dump)
    assert name.startswith(f"{expected}-2026-")
    assert "/" not in name


def test_without_a_name_the_address_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "(none)")
    monkeypatch.setattr(PagedDump, "utsname", None)
    with open_dump(lab.bundled()) as dump:
        assert re.match(r"[0-9a-f.:]+-2026-", log.directory_name(dump))


def test_of_a_log_that_is_too_long_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_dump(lab.bundled()) as dump:
        whole = log.crash_log(dump)
        monkeypatch.setattr(log, "_LARGEST", 8000)
        cut = log.crash_log(dump)
    assert len(cut.data) <= 8000
    assert whole.data.endswith(cut.data)
    assert cut.lines == cut.data.count(b"\n")
    assert cut.losses == f"the oldest {len(whole.data) - len(cut.data)} bytes are left out: it is too long"


def test_what_the_ring_does_not_give_is_scanned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise NotInDump("no tables")

    monkeypatch.setattr(log, "open_log", broken)
    with open_dump(lab.bundled()) as dump:
        assert log.crash_log(dump).lines > 300
