"""A kernel log of 16 MiB, as servers with log_buf_len have, is saved with little memory."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import printkring
from kdumpy.capture.config import render
from saving import config

RECORDS = 170_000
COUNT_BITS, TEXT_BITS = 18, 24
BLOCK = 96
"""Bytes of a record's text with its id."""
MAP = 0xffffffff80000000
BASE = 0x1000000
"""Physical, and where the kernel's image starts."""
DESCS, INFOS, TEXTS = 0x1000, 0x1000 + (24 << COUNT_BITS), 0x1000 + (112 << COUNT_BITS)
INFO = f"OSRELEASE=6.1.0\n{printkring.vmcoreinfo(MAP + BASE)}CRASHTIME=1795458291\n".encode()


def line(number: int) -> bytes:
    return b"line %06d " % number + b"." * (BLOCK - 8 - 12)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ELF core that holds nothing but the ring, full."""
    memory = bytearray(TEXTS + (1 << TEXT_BITS))
    virtual = MAP + BASE
    struct.pack_into("<Q", memory, 0, virtual + 0x100)
    struct.pack_into("<QQQQQQQQ", memory, 0x100, COUNT_BITS, virtual + DESCS, virtual + INFOS, RECORDS, 1, 0, TEXT_BITS,
                     virtual + TEXTS)
    for number in range(1, RECORDS + 1):
        at = number * BLOCK
        struct.pack_into("<QQQ", memory, DESCS + number * 24, 2 << 62 | number, at, at + BLOCK)
        struct.pack_into("<QQHBBI", memory, INFOS + number * 88, number, number * 1000, BLOCK - 8, 0, 6 << 5, 0)
        struct.pack_into("<Q", memory, TEXTS + at, number)
        memory[TEXTS + at + 8:TEXTS + at + BLOCK] = line(number)
    note = struct.pack("<III", 11, len(INFO), 0) + b"VMCOREINFO\0\0" + INFO + bytes(-len(INFO) % 4)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 4, 0, 176, 0, 0, len(note), len(note), 0)
    header += struct.pack("<IIQQQQQQ", 1, 7, 8192, virtual, BASE, len(memory), len(memory), 0)
    path = tmp_path_factory.mktemp("core") / "vmcore"
    with path.open("wb") as file:
        file.write((header + note).ljust(8192, b"\0"))
        file.write(memory)
    return path


def test_the_log_is_whole_and_the_memory_bounded(core: Path, tmp_path: Path) -> None:
    (tmp_path / "capture.toml").write_text(render(config(targets=[str(tmp_path / "crash")], path_name="big")))
    code = ("import sys; from kdumpy.capture.__main__ import main; code = main(sys.argv[1:]); "
            "print(open('/proc/self/status').read()); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code, "--log-only", "--config", tmp_path / "capture.toml", "--vmcore",
                           core, "--journal", tmp_path / "steps"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    lines = next((tmp_path / "crash").iterdir()).joinpath("vmcore-dmesg.txt").read_bytes().splitlines()
    assert len(lines) == RECORDS
    assert lines[0] == b"[    0.000001] " + line(1)
    assert lines[-1] == b"[    0.170000] " + line(RECORDS)
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak is not None
    assert int(peak[1]) < 56 << 10, peak[1]      # the text itself takes 17 MiB
