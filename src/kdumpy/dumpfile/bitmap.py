"""The bitmap of the pages that a kdump file holds: is a page there, and the how-manieth is it.

Read in blocks, counted once at C speed by int.bit_count (32 MiB, a terabyte of memory, take 0.05 s), so that
neither numpy nor the whole bitmap is needed to find a page.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from kdumpy.dumpfile.source import Source

BLOCK = 4096
"""Bytes; unit of counting."""
_BLOCK_BITS = BLOCK * 8
_CHUNK = 256
"""Blocks read at a time while counting."""
_CACHED_BLOCKS = 64
_RUN = re.compile("1+")


class Bitmap:
    """Bits [first, last) of a bitmap in the file, least significant bit first."""

    def __init__(self, source: Source, offset: int, size: int, first: int, last: int) -> None:
        source.read(offset + size, 0)  # it must lie within the file
        self._source = source
        self.offset = offset
        """In the file, bytes."""
        self.size = size
        """Bytes."""
        self.first = first
        self.last = last
        self._before: list[int] | None = None
        self._count = 0
        self._blocks: dict[int, bytes] = {}

    def _masked(self, block: int, data: bytes) -> bytes:
        """Clear the bits of a block that are outside of [first, last)."""
        start = block * _BLOCK_BITS
        if start >= self.first and start + len(data) * 8 <= self.last:
            return data
        bits = int.from_bytes(data, "little")
        if self.first > start:
            low = min(self.first - start, len(data) * 8)
            bits = bits >> low << low
        if start + len(data) * 8 > self.last:
            bits &= (1 << max(self.last - start, 0)) - 1
        return bits.to_bytes(len(data), "little")

    def block(self, number: int) -> bytes:
        """Return a block of BLOCK bytes (the last may be shorter), foreign bits cleared."""
        data = self._blocks.get(number)
        if data is None:
            start = number * BLOCK
            length = min(BLOCK, self.size - start)
            data = self._masked(number, self._source.read(self.offset + start, length))
            if len(self._blocks) >= _CACHED_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = data
        return data

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (block number, its masked bytes), read a megabyte at a time."""
        for start in range(0, self.size, BLOCK * _CHUNK):
            data = self._source.read(self.offset + start, min(BLOCK * _CHUNK, self.size - start))
            for at in range(0, len(data), BLOCK):
                number = (start + at) // BLOCK
                yield number, self._masked(number, data[at:at + BLOCK])

    @property
    def before(self) -> list[int]:
        """Set bits before each block, element by block."""
        if self._before is None:
            counts, total = [], 0
            for _number, data in self.chunks():
                counts.append(total)
                total += int.from_bytes(data, "little").bit_count()
            self._before, self._count = counts, total
        return self._before

    @property
    def count(self) -> int:
        """Set bits in all."""
        return self._count if self.before else 0

    def has(self, bit: int) -> bool:
        """Tell whether a bit is set."""
        if not self.first <= bit < self.last:
            return False
        block, rest = divmod(bit, _BLOCK_BITS)
        return bool(self.block(block)[rest >> 3] >> (rest & 7) & 1)

    def rank(self, bit: int) -> int:
        """Return how many bits are set before this one."""
        block, rest = divmod(bit, _BLOCK_BITS)
        data = self.block(block)
        whole = int.from_bytes(data[:rest >> 3], "little").bit_count()
        return self.before[block] + whole + (data[rest >> 3] & (1 << (rest & 7)) - 1).bit_count()

    def select(self, rank: int) -> int:
        """Return the bit that has `rank` set bits before it and is set; IndexError beyond the last."""
        if not 0 <= rank < self.count:
            raise IndexError(rank)
        block = bisect_right(self.before, rank) - 1
        left = rank - self.before[block]
        data = self.block(block)
        low, high = 0, len(data)
        while high - low > 1:  # narrow down to the byte
            middle = (low + high) // 2
            if int.from_bytes(data[:middle], "little").bit_count() <= left:
                low = middle
            else:
                high = middle
        left -= int.from_bytes(data[:low], "little").bit_count()
        bits = [bit for bit in range(8) if data[low] >> bit & 1]
        return block * _BLOCK_BITS + low * 8 + bits[left]

    def ranges(self) -> Iterator[range]:
        """Yield the runs of set bits, rising, neighbours joined."""
        run = range(0)
        for number, data in self.chunks():
            base = number * _BLOCK_BITS
            digits = f"{int.from_bytes(data, 'little'):0{len(data) * 8}b}"[::-1]
            for match in _RUN.finditer(digits):
                start, stop = base + match.start(), base + match.end()
                if run and run.stop == start:
                    run = range(run.start, stop)
                    continue
                if run:
                    yield run
                run = range(start, stop)
        if run:
            yield run
