"""Which pages of a dump a dump level would leave out, as a mask that can be asked for in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kdumpy.capture.kinds import left_out
from kdumpy.capture.sorter import PageSorter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdumpy.dumpfile import Dump

_STEP = 1 << 20
"""Pages counted at a time."""


def mask_of(dump: Dump, level: int) -> tuple[Callable[[int, int], NDArray[np.bool_]], int]:
    """Return what tells of (first pfn, count) which pages a level leaves out, and how many of these are held.

    Takes one bit a page: 32 MiB a TiB of memory, which a workstation has and the capture kernel need not.

    Raises:
        NotInDump: this kernel's page layout is not known, so nothing tells the pages apart.
    """
    chosen = left_out(level)
    bits = np.zeros(-(-dump.max_pfn // 8), np.uint8)
    for first, kinds in PageSorter(dump).batches():
        packed = np.packbits(chosen[kinds], bitorder="little")
        bits[first // 8:first // 8 + len(packed)] = packed[:len(bits) - first // 8]

    def mask(first: int, count: int) -> NDArray[np.bool_]:
        start = first // 8
        some = np.unpackbits(bits[start:-(-(first + count) // 8)], bitorder="little")[first - start * 8:][:count]
        found = np.zeros(count, np.bool_)
        found[:len(some)] = some
        return found

    held = 0
    for run in dump.present():
        for start in range(run.start, run.stop, _STEP):
            held += int(np.count_nonzero(mask(start, min(start + _STEP, run.stop) - start)))
    return mask, held
