"""Pages that were stored before: equal pages share one copy in the dump, whatever is in them.

A table, shared by the workers, names one stored page for each place; a sum over a page's words decides its place.
The sum is fast and weak, so an equal sum is only a hint: the page that the table names is read again and compared.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kdumpy.errors import KdumpyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdumpy.dumpfile import Dump

PLACES = 1 << 17
"""Places of the table, a power of two; 2 MiB."""

_ENTRY = np.dtype([("sum", np.uint64), ("pfn", np.int64)])
_FREE = np.uint64(0)


class Sorted(NamedTuple):
    """The rows of a batch, sorted by what has to be done with them."""

    stored: NDArray[np.int64]
    """Rows whose page must be stored."""
    places: NDArray[np.int64]
    """For each stored row: the place that names it from now on, -1 for none."""
    twins: NDArray[np.int64]
    """Rows that are equal to a stored row of this batch."""
    twin_of: NDArray[np.int64]
    """For each twin: that row."""
    shared: NDArray[np.int64]
    """Rows that are equal to a page of an earlier batch."""
    shared_places: NDArray[np.int64]
    """For each shared row: the place that names that page."""
    shared_pfns: NDArray[np.int64]
    """For each shared row: that page."""


class SeenPages:
    """The table. Workers write to it without a lock: a torn entry names a page that differs, and that is seen."""

    def __init__(self, page_size: int) -> None:
        self._table = np.frombuffer(mmap.mmap(-1, PLACES * _ENTRY.itemsize), _ENTRY)
        self._weights = _odd_weights(page_size // 8)

    def sums(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the pages' sums, shape (n,), of words of shape (n, page_size / 8). A zero page's sum is 0."""
        return words @ self._weights

    def sort_out(self, dump: Dump, pfns: NDArray[np.int64], words: NDArray[np.uint64], sums: NDArray[np.uint64],
                 wanted: NDArray[np.bool_]) -> Sorted:
        """Tell which of the wanted pages must be stored, and which are equal to one that is."""
        places = (sums >> np.uint64(40)).astype(np.int64) & PLACES - 1
        rows = np.flatnonzero(wanted & (sums != _FREE))
        known = self._table[places[rows]]
        hit = known["sum"] == sums[rows]
        hinted, named = rows[hit], known["pfn"][hit]
        equal = _equal_pages(dump, words, hinted, named)
        shared, shared_pfns = hinted[equal], named[equal]

        fresh = wanted.copy()
        fresh[shared] = False
        rows = np.flatnonzero(fresh)
        _, first, inverse = np.unique(sums[rows], return_index=True, return_inverse=True)
        leaders = rows[first[inverse]]
        following = np.flatnonzero(leaders != rows)
        same = following[(words[rows[following]] == words[leaders[following]]).all(axis=1)]
        stored = np.delete(rows, same)
        return Sorted(stored, self._enter(stored, places, sums, pfns), rows[same], leaders[same],
                      shared, places[shared], shared_pfns)

    def _enter(self, stored: NDArray[np.int64], places: NDArray[np.int64], sums: NDArray[np.uint64],
               pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the stored pages the places that are free; the first one that wants a place keeps it for good."""
        given = np.full(len(stored), -1, np.int64)
        free = np.flatnonzero((self._table["sum"][places[stored]] == _FREE) & (sums[stored] != _FREE))
        chosen, first = np.unique(places[stored[free]], return_index=True)
        takers = free[first]
        given[takers] = chosen
        self._table["pfn"][chosen] = pfns[stored[takers]]
        self._table["sum"][chosen] = sums[stored[takers]]
        return given


def _equal_pages(dump: Dump, words: NDArray[np.uint64], rows: NDArray[np.int64],
                 pfns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for each row whether it equals the page of the dump that is named for it."""
    if not len(rows):
        return np.zeros(0, np.bool_)
    named, inverse = np.unique(pfns, return_inverse=True)
    try:
        others = dump.read_pages(named).view(np.uint64)
    except KdumpyError:
        return np.zeros(len(rows), np.bool_)
    return np.asarray((words[rows] == others[inverse]).all(axis=1))


def _odd_weights(count: int) -> NDArray[np.uint64]:
    """Return fixed pseudo-random odd numbers (splitmix64; numpy.random is not in the capture image)."""
    with np.errstate(over="ignore"):
        mixed = (np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9e3779b97f4a7c15)
        mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xbf58476d1ce4e5b9)
        mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94d049bb133111eb)
    return (mixed ^ mixed >> np.uint64(31)) | np.uint64(1)
