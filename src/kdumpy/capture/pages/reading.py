"""Read arrays of struct page straight into a buffer, by the physical extents that map them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdumpy.dumpfile.elf import ElfDump
from kdumpy.errors import KdumpyError

if TYPE_CHECKING:
    from kdumpy.dumpfile.base import Dump
    from kdumpy.dumpfile.paging import KernelMemory

_PIECE = 2 << 20
"""Bytes read at a time where the dump cannot read into a buffer."""


def read_array(dump: Dump, memory: KernelMemory, virtual: int, target: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Fill `target` with the kernel's memory from `virtual` on.

    Returns:
        The stretches (first byte, last byte + 1) of `target` that could not be read; they hold zeros.
    """
    lost: list[tuple[int, int]] = []
    done = 0
    before = -1, 0, 0
    for at, physical, size in memory.extents(virtual, virtual + len(target)):
        start = at - virtual
        if start > done:
            lost.append((done, start))
        done = start + size
        # With hugetlb_free_vmemmap the tails of a huge page share one page of struct pages, mapped again and again.
        if before[0] == physical and before[2] - before[1] == size:
            target[start:done] = target[before[1]:before[2]]
            continue
        missing = [(start + low, start + high) for low, high in _read(dump, physical, target[start:done])]
        lost += missing
        before = (-1, 0, 0) if missing else (physical, start, done)
    if done < len(target):
        lost.append((done, len(target)))
    for low, high in lost:
        target[low:high] = 0
    return lost


def _read(dump: Dump, physical: int, target: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Fill `target` with physical memory; yield the stretches that could not be read."""
    for start in range(0, len(target), _PIECE):
        piece = target[start:start + _PIECE]
        try:
            _read_piece(dump, physical + start, piece)
            continue
        except KdumpyError:
            pass  # a part is not held: page by page, to lose no more than that
        low = 0
        while low < len(piece):
            high = min(low + dump.page_size - (physical + start + low) % dump.page_size, len(piece))
            try:
                _read_piece(dump, physical + start + low, piece[low:high])
            except KdumpyError:
                yield start + low, start + high
            low = high


def _read_piece(dump: Dump, physical: int, target: NDArray[np.uint8]) -> None:
    if isinstance(dump, ElfDump):
        segment = dump.segment_at(physical)
        if segment is not None and physical + len(target) <= segment.address + segment.file_size:
            dump.source.read_into(segment.offset + physical - segment.address, target.data)
            return
    target[:] = np.frombuffer(dump.read_physical(physical, len(target)), np.uint8)
