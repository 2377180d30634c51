"""Time how long it takes to tell what each page was used for: `python -m bench.filter DUMP…`.

Prints pages a second and seconds a gigabyte of memory, the median of several walks in one process, and what a first
walk costs with it: imports and the kernel's layout.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

from kdumpy.dumpfile import open_dump

ROUNDS = 5


@dataclass(frozen=True)
class Walk:
    """The cost of a walk over all struct pages."""

    pages: int
    """Pages of memory that were looked at."""
    page_size: int
    first: float
    """Seconds of the first walk, with imports and the reading of the layout."""
    seconds: float
    """Seconds of a walk, the median of ROUNDS."""
    peak: int
    """Bytes that a walk allocates at most, by Python's own account."""

    @property
    def per_second(self) -> float:
        """Pages a second."""
        return self.pages / self.seconds

    @property
    def per_gigabyte(self) -> float:
        """Seconds for a gigabyte (2**30 bytes) of memory."""
        return self.seconds / (self.pages * self.page_size / 2 ** 30)


def walk(path: Path) -> Walk:
    """Walk over a dump's struct pages ROUNDS times."""
    with open_dump(path) as dump:
        pages = sum(len(run) for run in dump.present())
        began = time.perf_counter()
        from kdumpy.capture.sorter import PageSorter
        sorter = PageSorter(dump)
        for _ in sorter.batches():
            pass
        first = time.perf_counter() - began
        rounds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in sorter.batches():
                pass
            rounds.append(time.perf_counter() - began)
        tracemalloc.start()
        for _ in sorter.batches():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return Walk(pages, dump.page_size, first, statistics.median(rounds), peak)


def main() -> None:
    """Time the dumps named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("dump", nargs="+", type=Path)
    for path in parser.parse_args().dump:
        cost = walk(path)
        print(f"{path}: {cost.pages:,} pages in {cost.seconds * 1000:.1f} ms: {cost.per_second / 1e6:.1f} million "
              f"pages a second, {cost.per_gigabyte * 1000:.1f} ms a GB; first walk {cost.first * 1000:.0f} ms; "
              f"{cost.peak / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
