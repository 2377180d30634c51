"""`kdumpy info`: pages by kind, held and left out, and where damage lies, on real dumps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lab
import secret_guest
from kdumpy.capture.census import UNSORTED, census
from kdumpy.capture.memory import memory_of
from kdumpy.cli.main import main
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.units import human_bytes
from pages import same_pages

ROOT = Path(__file__).parents[2]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdumpy", *map(str, words)], capture_output=True, text=True,
                          timeout=300, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])})


def kinds_of(path: Path) -> dict[str, tuple[int, int]]:
    with open_dump(path) as dump:
        found = census(dump)
        assert not found.not_judged
        assert found.held == dump.pages_present
        assert found.memory == sum(map(len, memory_of(dump)))
        return {each.kind: (each.held, each.left_out) for each in found.kinds}


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_of_a_filtered_dump_what_was_left_out_is_known(kernel: str) -> None:
    level_1 = kinds_of(secret_guest.dump(kernel).path)
    assert level_1["zero"][0] > 1000
    assert all(left_out == 0 for _held, left_out in level_1.values())
    assert {"kernel", "cache", "user", "free"} <= set(level_1)


def test_level_31_holds_the_kernel_and_leaves_the_rest_out() -> None:
    path = lab.dump("6.1", "sysrq").path
    found = kinds_of(path)
    assert found["kernel"][0] > 10000
    assert found["kernel"][1] == 0
    for kind in ("cache", "user", "free"):
        assert found[kind][0] <= found[kind][1] // 100
        assert found[kind][1] > 0
    answer = json.loads(run("info", path, "--json").stdout)
    kinds = answer["pages_by_kind"]
    assert kinds["kinds"]["free"]["left_out_bytes"] == found["free"][1] * 4096
    assert kinds["memory_pages"] == sum(held + left_out for held, left_out in found.values())
    assert kinds["held_pages"] == answer["pages"]


def test_the_same_memory_has_the_same_kinds_in_every_format(tmp_path: Path) -> None:
    path = lab.dump("6.1", "sysrq").path
    expected = kinds_of(path)
    assert run("convert", path, tmp_path / "part", "--split", 2).returncode == 0
    assert kinds_of(tmp_path / "part-1") == expected
    assert run("convert", path, tmp_path / "flat", "--flattened", "--compress", "none").returncode == 0
    assert kinds_of(tmp_path / "flat") == expected
    assert run("convert", path, tmp_path / "elf", "--to", "elf").returncode == 0
    in_elf = kinds_of(tmp_path / "elf")     # where zero pages are the kernel's like others
    assert {kind: left_out for kind, (_held, left_out) in in_elf.items() if left_out} == \
        {kind: left_out for kind, (_held, left_out) in expected.items() if left_out}
    assert sum(held for held, _left_out in in_elf.values()) == sum(held for held, _left_out in expected.values())
    assert "zero" not in in_elf


def test_the_bar_is_text_and_json_is_whole() -> None:
    path = lab.dump("6.1", "sysrq").path
    shown = run("info", path).stdout
    assert re.search(r"^ +K+Z+.*c+.*f+$", shown, re.MULTILINE)
    assert re.search(r"F free .* % *| +\d+\.\d%", shown)
    assert "left out" in shown
    assert "\033" not in shown


def test_an_unknown_layout_says_so() -> None:
    with open_dump(lab.dump("6.1", "sysrq").path) as dump:
        raw = re.sub(rb"OFFSET\(page\.flags\)=\d+\n", b"", dump.vmcoreinfo.raw)
        assert raw != dump.vmcoreinfo.raw
        dump.adopt_vmcoreinfo(VmcoreInfo(raw, where="test"))
        found = census(dump)
        assert found.not_judged
        assert [(each.kind, each.held) for each in found.kinds] == [(UNSORTED, dump.pages_present)]
        assert found.memory > found.held        # the bitmap tells of memory all the same


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    path = lab.dump("6.1", "sysrq").path
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:path.stat().st_size * 3 // 4])
    answer = run("info", cut)
    assert answer.returncode == 1
    assert re.search(r"lost: physical 0x[0-9a-f]+ to 0x[0-9a-f]+, ", answer.stdout)
    assert "kdumpy repair makes a dump of what is left" in answer.stdout
    found = json.loads(run("info", cut, "--json").stdout)
    assert run("repair", cut, tmp_path / "out", "--json").returncode == 1
    with open_dump(path) as whole, open_dump(tmp_path / "out") as out:
        lost = {pfn for address, size in found["lost_ranges"]
                for pfn in range(address // 4096, (address + size) // 4096)}
        same_pages(whole, out, but=lost)


def test_what_was_erased_is_told(tmp_path: Path) -> None:
    path = lab.dump("6.1", "sysrq").path
    assert run("convert", path, tmp_path / "out", "--erase", "environment,init_uts_ns.name.nodename").returncode == 0
    shown = run("info", tmp_path / "out")
    assert shown.returncode == 0
    assert "init_uts_ns.name.nodename size 65" in shown.stdout
    assert json.loads(run("info", tmp_path / "out", "--json").stdout)["erased"][-1] == \
        "erase init_uts_ns.name.nodename size 65"


def test_a_time_that_no_clock_shows_is_told_as_a_number(monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(KdumpDump, "crash_time", property(lambda _dump: 1 << 62))
    assert main(("info", str(lab.bundled()))) == 0
    assert f"crashed  {1 << 62}\n" in capsys.readouterr().out


def test_a_deep_look_draws_the_bar_of_the_other_commands(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(("info", "--deep", str(lab.bundled()))) == 0
    drawn = capsys.readouterr().err
    with open_dump(lab.bundled()) as dump:
        assert drawn.endswith(f"\r\033[K[{'#' * 30}] 100%  {human_bytes(dump.pages_present * 4096)} read\n")
