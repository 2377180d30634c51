"""`kdumpy convert` on real dumps: whatever the way, the same pages come out, and others' programs read them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import lab
import secret_guest
from kdumpy.dumpfile import Dump, open_dump
from kdumpy.dumpfile.health import State, health
from pages import same_pages

ROOT = Path(__file__).parents[2]


def run(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "kdumpy", *map(str, words)], input=stdin, capture_output=True,
                          timeout=300, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])})


def converted(*words: object) -> dict[str, object]:
    answer = run("convert", *words, "--json")
    assert answer.returncode == 0, answer.stderr
    found: dict[str, object] = json.loads(answer.stdout)
    return found


@pytest.fixture(params=["5.10", "6.1"] if lab.FULL else ["6.1"])
def vmcore(request: pytest.FixtureRequest) -> Path:
    """A filtered dump. What is done to it does not depend on its kernel; `make test-all` takes another one, too."""
    return lab.dump(request.param, "sysrq").path


def opened(path: Path, original: Path) -> Dump:
    """Open a dump that holds what another one holds, and is whole."""
    dump = open_dump(path)
    assert health(dump).state is State.COMPLETE
    with open_dump(original) as first:
        same_pages(first, dump)
        assert dump.vmcoreinfo.raw == first.vmcoreinfo.raw
        assert dump.prstatus == first.prstatus
        assert dump.utsname == first.utsname
    return dump


@pytest.mark.parametrize("method", ["zstd", "lzo", "zlib", "snappy", "none"])
def test_another_compression(vmcore: Path, tmp_path: Path, method: str) -> None:
    found = converted(vmcore, tmp_path / "out", "--compress", method)
    with opened(tmp_path / "out", vmcore) as dump, open_dump(vmcore) as first:
        assert dump.compression == found["compression"] == method
        assert found["copied_as_stored"] is (method == first.compression)
        assert dump.dump_level == first.dump_level
        assert found["pages"] == first.pages_present


def test_elf_and_back(vmcore: Path, tmp_path: Path) -> None:
    converted(vmcore, tmp_path / "elf", "--to", "elf")
    assert opened(tmp_path / "elf", vmcore).format == "elf"
    converted(tmp_path / "elf", tmp_path / "back")
    with opened(tmp_path / "back", vmcore) as dump:
        assert (dump.format, dump.compression) == ("kdump", "zstd")


def test_flattened_to_a_file_and_through_a_pipe(vmcore: Path, tmp_path: Path) -> None:
    converted(vmcore, tmp_path / "flat", "--flattened")
    assert opened(tmp_path / "flat", vmcore).format == "kdump flattened"
    piped = run("convert", vmcore, "-")
    assert piped.returncode == 0, piped.stderr
    (tmp_path / "piped").write_bytes(piped.stdout)
    assert piped.stdout == (tmp_path / "flat").read_bytes()
    found = converted(tmp_path / "piped", tmp_path / "whole")
    assert found["copied_as_stored"] is True
    assert opened(tmp_path / "whole", vmcore).format == "kdump"


def test_split_and_put_together(vmcore: Path, tmp_path: Path) -> None:
    found = converted(vmcore, tmp_path / "part", "--split", 3)
    parts = [tmp_path / f"part-{number}" for number in (1, 2, 3)]
    assert found["paths"] == list(map(str, parts))
    opened(parts[0], vmcore).close()        # its siblings are found beside it
    converted(*parts, tmp_path / "whole")
    assert opened(tmp_path / "whole", vmcore).format == "kdump"
    converted(parts[0], tmp_path / "again")
    opened(tmp_path / "again", vmcore).close()
    names = [tmp_path / "first", tmp_path / "second"]
    converted(vmcore, *names, "--split", 2, "--compress", "zlib")
    assert open_dump(names[0], names[1]).compression == "zlib"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_part_that_is_missing_makes_an_incomplete_dump(vmcore: Path, tmp_path: Path) -> None:
    converted(vmcore, tmp_path / "part", "--split", 3)
    answer = run("convert", tmp_path / "part-1", tmp_path / "part-3", tmp_path / "whole", "--json")
    assert answer.returncode == 1, answer.stderr
    assert json.loads(answer.stdout)["complete"] is False
    assert open_dump(tmp_path / "whole").incomplete


@pytest.mark.skipif(not shutil.which("makedumpfile"), reason="makedumpfile is not installed")
def test_makedumpfile_puts_our_parts_and_streams_together(vmcore: Path, tmp_path: Path) -> None:
    converted(vmcore, tmp_path / "part", "--split", 2)
    subprocess.run(["makedumpfile", "--reassemble", "part-1", "part-2", "whole"], cwd=tmp_path, check=True,
                   capture_output=True)
    with open_dump(vmcore) as first, open_dump(tmp_path / "whole") as whole:
        same_pages(first, whole)
    converted(vmcore, tmp_path / "flat", "--flattened")
    with (tmp_path / "flat").open("rb") as stream:
        subprocess.run(["makedumpfile", "-R", "plain"], cwd=tmp_path, stdin=stream, check=True, capture_output=True)
    with open_dump(vmcore) as first, open_dump(tmp_path / "plain") as plain:
        same_pages(first, plain)


@pytest.mark.parametrize("kernel", ["6.1", "newest"] if lab.FULL else ["6.1"])
def test_a_dump_with_secrets_is_written_without_them(tmp_path: Path, kernel: str) -> None:
    """That they are found on each kernel is test_erase's; the newest is taken by `make test-all` only."""
    path = secret_guest.dump(kernel).path
    found = converted(path, tmp_path / "public", "--erase", "keys,environment", "--erase", "user", "--compress", "none")
    told = {line["name"]: line for line in found["erased"]}     # type: ignore[attr-defined]
    assert told["key.payload"]["count"] >= 1
    secrets = [secret_guest.secret(name) for name in ("key", "environment", "argument")]
    data = (tmp_path / "public").read_bytes()
    assert [data.find(secret) for secret in secrets] == [-1, -1, -1]
    converted(path, tmp_path / "original", "--compress", "none")
    data = (tmp_path / "original").read_bytes()
    assert all(data.find(secret) > 0 for secret in secrets)
    with open_dump(tmp_path / "public") as public, open_dump(path) as original:
        assert public.dump_level == (original.dump_level or 0) | 8 | 16
        assert b"erase key.payload size" in getattr(public, "eraseinfo", b"")
        assert public.pages_present < original.pages_present
    report = run("report", tmp_path / "public", "--json")
    assert json.loads(report.stdout)["verdict"]["cause"] == "sysrq"


def test_what_is_written_is_for_its_owner_alone_and_never_over_another_file(vmcore: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"mine")
    refused = run("convert", vmcore, target)
    assert refused.returncode == 2
    assert b"there already" in refused.stderr
    assert target.read_bytes() == b"mine"
    converted(vmcore, target, "--force")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    copy = tmp_path / "vmcore-incomplete"
    shutil.copy(vmcore, copy)
    before = copy.read_bytes()
    assert run("convert", copy, copy, "--force").returncode == 2
    converted(copy, tmp_path / "vmcore")        # no intermediate file of that name
    assert copy.read_bytes() == before


@pytest.mark.parametrize("words", [
    ["IN"], ["IN", "OUT", "--split", "1"], ["IN", "OUT", "--split", "x"], ["IN", "-", "--split", "2"],
    ["IN", "OUT", "--to", "elf", "--compress", "zlib"], ["IN", "OUT", "--to", "elf", "--split", "2"],
    ["IN", "OUT", "--compress", "brotli"], ["IN", "-", "--json"], ["IN", "OUT", "--workers", "-1"],
    ["IN", "OUT", "--erase", ""], ["IN", "OUT", "--erase", "a b"], ["IN", "IN", "OUT", "--erase", "keys"],
    ["IN", "OUT", "--split", "2", "--flattened"],
])
def test_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    names = {"IN": str(lab.bundled()), "OUT": str(tmp_path / "out")}
    answer = run("convert", *(names.get(word, word) for word in words))
    assert answer.returncode == 2, answer
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_secret_of_no_name_of_this_kernel(tmp_path: Path) -> None:
    answer = run("convert", lab.bundled(), tmp_path / "out", "--erase", "no_such_thing")
    assert answer.returncode == 1
    assert b"no such variable" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_damage_is_told_with_what_to_do(vmcore: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(vmcore.read_bytes()[:vmcore.stat().st_size // 2])
    answer = run("convert", cut, tmp_path / "out")
    assert answer.returncode == 1
    assert answer.stderr.startswith(b"kdumpy: ")
    assert b"kdumpy repair" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_parts_of_different_dumps_are_refused(tmp_path: Path) -> None:
    parts: list[Path] = []
    for name, kernel in itertools.product(("sysrq",), ("5.10", "6.1")):
        converted(lab.dump(kernel, name).path, tmp_path / kernel, "--split", 2)
        parts.append(tmp_path / f"{kernel}-{len(parts) + 1}")
    answer = run("convert", *parts, tmp_path / "out")
    assert answer.returncode == 3
    assert b"different dumps" in answer.stderr
