"""Time the reading of pages against libkdumpfile, through drgn, on one kdump file in each compression: one run.

Every page that the dump holds, in order, and as many in no order; pages per second, the best of some rounds in
turns. drgn reads a page a call and, in order, also a mebibyte a call (the better one counts); kdumpy a batch a
call (read_pages), and a page a call (read_physical). What both give is compared first.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import drgn
import numpy as np
from numpy.typing import NDArray

from kdumpy.capture.pipeline import Options, save
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.sink import FileSink
from kdumpy.vm import laboratory

BATCH = 4096
"""Pages a call of read_pages."""
AT_ONCE = 256
"""Pages a call of drgn's, in order."""
METHODS = ("zlib", "lzo", "snappy", "zstd", "none")

Pfns = NDArray[np.int64]


def by_drgn(path: Path, pfns: Pfns) -> float:
    """Return the seconds that drgn takes for pages one by one; a fresh program, so that nothing is cached."""
    program = drgn.Program()
    program.set_core_dump(str(path))
    addresses = (pfns * 4096).tolist()
    started = time.perf_counter()
    for address in addresses:
        program.read(address, 4096, True)
    return time.perf_counter() - started


def by_drgn_together(path: Path, pfns: Pfns) -> float:
    """Return the seconds that drgn takes for neighbouring pages read together."""
    program = drgn.Program()
    program.set_core_dump(str(path))
    breaks = np.flatnonzero(np.diff(pfns) != 1) + 1
    extents = [(int(run[at]) * 4096, len(run[at:at + AT_ONCE]) * 4096)
               for run in np.split(pfns, breaks) for at in range(0, len(run), AT_ONCE)]
    started = time.perf_counter()
    for address, size in extents:
        program.read(address, size, True)
    return time.perf_counter() - started


def by_kdumpy(path: Path, pfns: Pfns) -> float:
    """Return the seconds that read_pages takes."""
    with open_dump(path) as dump:
        started = time.perf_counter()
        for at in range(0, len(pfns), BATCH):
            dump.read_pages(pfns[at:at + BATCH])
        return time.perf_counter() - started


def by_kdumpy_one_by_one(path: Path, pfns: Pfns) -> float:
    """Return the seconds that read_physical takes, a page a call."""
    with open_dump(path) as dump:
        addresses = (pfns * 4096).tolist()
        started = time.perf_counter()
        for address in addresses:
            dump.read_physical(address, 4096)
        return time.perf_counter() - started


def check(path: Path, pfns: Pfns) -> None:
    """End the benchmark when the two do not read the same."""
    program = drgn.Program()
    program.set_core_dump(str(path))
    with open_dump(path) as dump:
        for pfn, page in zip(pfns.tolist(), dump.read_pages(pfns), strict=True):
            if program.read(pfn * 4096, 4096, True) != page.tobytes():
                sys.exit(f"{path}: page {pfn:#x} differs")


def main() -> int:
    """Write the files, run the rounds and print the table; exit 1 when kdumpy is slower anywhere in batches."""
    parser = argparse.ArgumentParser(prog="python -m bench.reading", description=__doc__)
    parser.add_argument("--kernel", default="6.1", help="a kernel of the laboratory (default: %(default)s)")
    parser.add_argument("--fault", default="sysrq", help="a fault of the laboratory (default: %(default)s)")
    parser.add_argument("--dump", type=Path, help="a dump of your own instead")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: %(default)s)")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    path = arguments.dump or laboratory.dump(arguments.kernel, arguments.fault, progress=say).path
    slower = False
    with open_dump(path) as origin, tempfile.TemporaryDirectory(prefix="kdumpy-bench-") as scratch:
        pfns = np.array([pfn for run in origin.present() for pfn in run], np.int64)
        shuffled = np.random.default_rng(1).permutation(pfns)
        print(f"{origin.vmcoreinfo.osrelease}: {len(pfns)} pages; drgn {drgn.__version__}, "
              f"Python {platform.python_version()}, {os.cpu_count()} CPUs; best of {arguments.rounds}")
        print("pages per second; the ratio is kdumpy's batches to drgn")
        print(f"{'':18}{'drgn':>10}{'kdumpy':>10} ratio{'one by one':>13}")
        for method in METHODS:
            file = Path(scratch) / method
            with FileSink(file) as sink:
                save(origin, sink, Options(level=0, compression=method))
            check(file, shuffled[:2000])
            for name, order in (("in order", pfns), ("at random", shuffled)):
                readers: list[Callable[[Path, Pfns], float]] = [by_drgn, by_kdumpy, by_kdumpy_one_by_one]
                if order is pfns:
                    readers.append(by_drgn_together)
                best = dict.fromkeys(readers, float("inf"))
                for number in range(arguments.rounds):
                    say(f"{method}, {name}: round {number + 1} of {arguments.rounds}…")
                    for reader in readers:
                        best[reader] = min(best[reader], reader(file, order))
                peer = min(best[by_drgn], best.get(by_drgn_together, float("inf")))
                slower |= best[by_kdumpy] > peer
                print(f"{method + ', ' + name:18}{len(order) / peer:10.0f}{len(order) / best[by_kdumpy]:10.0f}"
                      f" {peer / best[by_kdumpy]:5.2f}{len(order) / best[by_kdumpy_one_by_one]:13.0f}")
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
