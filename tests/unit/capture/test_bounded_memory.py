"""Capture takes the same memory whatever the machine has: shown on a machine with a terabyte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import terabyte

MOST_MB = 80
"""What DESIGN allows the capture kernel's Python."""

_CAPTURE = """
import json, re, sys
from kdumpy.capture.pipeline import Options, save
from kdumpy.capture.plan import Plan
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.sink import FileSink
with open_dump(sys.argv[1]) as dump:
    plan = Plan.make(dump, 31)
    with FileSink(sys.argv[2]) as sink:
        save(dump, sink, Options(workers=1), plan=plan)
# getrusage's peak has the parent's in it.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([plan.memory, plan.kept, peak]))
"""


def test_a_terabyte_is_captured_in_80_mb(tmp_path: Path) -> None:
    terabyte.write(tmp_path / "vmcore")
    done = subprocess.run([sys.executable, "-c", _CAPTURE, str(tmp_path / "vmcore"), str(tmp_path / "dump")],
                          capture_output=True, text=True, check=True, timeout=300)
    memory, kept, megabytes = json.loads(done.stdout)
    assert memory == terabyte.MEMORY // terabyte.PAGE
    assert kept == memory // 32768 * terabyte.KEPT_IN_EACH
    assert megabytes < MOST_MB, f"{megabytes:.0f} MB"

