"""What several tests of dumps look at."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from kdumpy.dumpfile import Dump

_BATCH = 4096


def same_pages(original: Dump, other: Dump, *, but: Collection[int] = ()) -> None:
    """Hold that two dumps have the same pages with the same contents; the other lacks the pages `but`."""
    expected = [pfn for run in original.present() for pfn in run if pfn not in but]
    assert [pfn for run in other.present() for pfn in run] == expected
    for start in range(0, len(expected), _BATCH):
        some = expected[start:start + _BATCH]
        assert np.array_equal(original.read_pages(some), other.read_pages(some))
