"""`kdumpy list`: what is found, and what is told of a file that is no dump."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdumpy.cli.list import describe, find
from kdumpy.cli.main import main


def test_dumps_are_found_by_their_names(tmp_path: Path) -> None:
    wanted = ["a-2026/vmcore", "b/vmcore-incomplete", "c/202611231730/dump.202611231730", "d/vmcore.flat",
              "e/vmcore-incomplete.flat", "e/vmcore.flat.age"]
    others = ["a-2026/vmcore-dmesg.txt", "a-2026/kexec-dmesg.log", "b/notes", "c/dump.log", "d/vmcore.gz",
              "d/vmcore.sha256", "d/vmcore.flat.sha256",
              "1/2/3/4/vmcore"]
    for name in wanted + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(str(path.relative_to(tmp_path)) for path in find([tmp_path])) == sorted(wanted)


def test_a_file_that_is_named_is_listed_whatever_its_name_and_once(tmp_path: Path) -> None:
    file = tmp_path / "crash.bin"
    file.write_bytes(b"x")
    assert list(find([file, file, tmp_path])) == [file]


def test_what_is_no_dump_is_listed_as_unreadable_with_the_cause_of_the_log_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "vmcore"
    file.write_bytes(b"not a dump")
    (tmp_path / "vmcore-dmesg.txt").write_text("[    1.000000] hello\n[    2.500000] kernel BUG at mm/slub.c:419!\n")
    row = describe(file)
    assert row.state == "unreadable"
    assert row.cause == "kernel BUG at mm/slub.c:419!"
    assert "not a dump" in row.problem


def test_nothing_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["list", str(tmp_path)]) == 0
    assert main(["list", str(tmp_path / "none")]) == 3
