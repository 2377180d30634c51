"""Which dumps of the laboratory the tests want, and how they get them.

`make test` takes every fault on 6.1 that the diagnosis knows and a few on each other kernel;
`KDUMPY_MATRIX=full` (`make test-all`) takes every fault on every kernel.

`python tests/lab.py` makes them all ahead of the tests, as many at a time as there are CPUs: tests that go through the
same dumps in the same order would wait for each other's guest.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

from kdumpy.errors import KdumpyError
from kdumpy.vm import bundle, laboratory
from kdumpy.vm.faults import FAULTS, ON_ARM64
from kdumpy.vm.laboratory import LabDump

KERNELS = ("5.10", "6.1", "6.12", "newest")
FULL = os.environ.get("KDUMPY_MATRIX") == "full"
REQUIRED = ("sysrq", "null-workqueue", "null-procread", "bad-address", "general-protection", "bug",
            "jump-to-null", "driver-panic", "deadlock", "hung-task")
"""The faults that the first verdicts are about."""
ELSEWHERE = ("sysrq", "null-workqueue")
"""The faults that are taken on the other kernels too."""
LIVE = ("live", "live-kdump")
WIDE = ("semaphore", "completion", "work-flush", "spin-crossed", "spin-held", "leak-pages", "cgroup-oom",
        "machine-check", "machine-check-cache", "recovered-error", "no-init",
        "memory-leak-tracked", "unanswered-call", "timer-itself", "deaf-cpu", "sleeping-plan", "left-in-object",
        "kept-spinlock", "endless-log", "large-frames", "pinned-page", "freed-state", "unset-lid", "new-tenant",
        "null-errand", "kept-dust", "cut-pointer", "freed-dial", "spilt", "lost-lamp", "late-airing",
        "no-show", "guest-left", "no-sending", "text-tap")
"""The faults that only the full matrix takes: each dump costs half a minute."""

ARM64_KERNELS = ("6.1-arm64", "6.12-arm64", "newest-arm64", "6.12-arm64-16k")
ARM64_FAULTS = ON_ARM64
"""The faults that are taken on arm64, in the full matrix."""


def panics(*wanted: str) -> list[tuple[str, str]]:
    """Return the (kernel, fault) pairs of the matrix, of the wanted faults or of all that panic."""
    pairs = []
    for kernel in KERNELS:
        for fault in FAULTS.values():
            if fault.name in LIVE or kernel not in fault.kernels or (wanted and fault.name not in wanted):
                continue
            if FULL or (kernel == "6.1" and fault.name not in WIDE) or fault.name in ELSEWHERE:
                pairs.append((kernel, fault.name))
    return pairs


DATA = Path(__file__).parent / "data"


@cache
def bundled() -> Path:
    """Return the small dump that lies in the repository, unpacked; it needs no virtual machine."""
    return bundle.unpack(DATA)


@cache
def dump(kernel: str, fault: str) -> LabDump:
    """Return a dump of the laboratory; the first time on a machine it is made, which takes half a minute."""
    return laboratory.dump(kernel, fault, progress=lambda line: print(line, flush=True))


def _make(kernel: str, fault: str) -> str:
    try:
        made = laboratory.dump(kernel, fault)
    except KdumpyError as error:
        return f"failed: {error}"
    return f"{made.seconds} s"


def main() -> int:
    """Make what is missing, the slowest first; return 3 where one could not be made."""
    wanted = [pair for pair in (*panics(), *(("6.1", name) for name in LIVE)) if not laboratory.is_made(*pair)]
    wanted.sort(key=lambda pair: -FAULTS[pair[1]].seconds)
    answers = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        making = {pool.submit(_make, *pair): pair for pair in wanted}
        for number, done in enumerate(as_completed(making), 1):
            answers.append(done.result())
            print(f"==> dump {number} of {len(wanted)}: {' '.join(making[done])}: {answers[-1]}", flush=True)
    return 3 if any(answer.startswith("failed") for answer in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
