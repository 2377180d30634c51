"""Dumps whose log is overwritten, in the file itself: registers, code and stacks alone have to tell the cause."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn.helpers.linux.mm import follow_phys

import kdumpy
import lab
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.erased import ErasedDump
from kdumpy.dumpfile.sink import FileSink
from kdumpy.vm.faults import FAULTS
from synthetic import write_kdump

PAGE = 4096
# What began each of them: a fault, a BUG, an end called by the kernel, a watchdog, an operator.
FAULTS_OF_ALL_KINDS = ("null-workqueue", "bug", "stack-corruption", "soft-lockup", "hung-task", "sysrq")
CASES = [(fault, part) for fault in FAULTS_OF_ALL_KINDS for part in ("text", "descriptors")] if lab.FULL else \
    [("null-workqueue", "text"), ("bug", "text"), ("soft-lockup", "descriptors"), ("hung-task", "text")]


def rings(prog: drgn.Program, part: str) -> list[tuple[int, int]]:
    """Return (address, bytes) of the text, or of the descriptors, of the log."""
    log = prog["prb"]
    if part == "text":
        return [(int(log.text_data_ring.data), 1 << int(log.text_data_ring.size_bits))]
    ring = log.desc_ring
    return [(int(ring.descs), drgn.sizeof(ring.descs[0]) << int(ring.count_bits)),
            (int(ring.infos), drgn.sizeof(ring.infos[0]) << int(ring.count_bits))]


def overwritten(fault: str, part: str, folder: Path) -> Path:
    """Return a copy of a dump of which a part of the log reads as XXXX."""
    origin, target = lab.dump("6.1", fault).path, folder / f"{fault}-{part}"
    with kdumpy.open(origin) as kernel:
        mm = kernel.prog["init_mm"].address_of_()
        extents = [(int(follow_phys(mm, address)), PAGE)
                   for begin, size in rings(kernel.prog, part)
                   for address in range(begin & -PAGE, begin + size, PAGE)]
    with open_dump(origin) as dump, FileSink(target) as sink:
        write_kdump(ErasedDump(dump, extents), sink, "zstd", level=dump.dump_level or 0)
    return target


def report(path: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "kdumpy", "report", "--dwarf", "no", "--json", str(path)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(("fault", "part"), CASES)
def test_the_cause_is_told_all_the_same(fault: str, part: str, tmp_path: Path) -> None:
    expected, answer = FAULTS[fault], report(overwritten(fault, part, tmp_path))
    verdict = answer["verdict"]
    assert verdict["cause"] == expected.cause
    culprit = (verdict["culprit"] or {}).get("function")
    assert culprit in expected.culprits if expected.culprits else culprit is None
    assert "the kernel's own words" not in {item["what"] for item in verdict["evidence"]}
    assert "XXXX" not in verdict["title"] + verdict["explanation"]
    whole = report(lab.dump("6.1", fault).path)
    assert answer["signature"]["id"] == whole["signature"]["id"]
    if fault in ("null-workqueue", "bug"):          # the log alone could confirm what the registers say
        assert whole["verdict"]["confidence"] == "certain"
        assert verdict["confidence"] == "likely"


def test_a_lost_log_is_named_as_missing(tmp_path: Path) -> None:
    assert "log" in report(overwritten("null-workqueue", "descriptors", tmp_path))["dump"]["missing"]
