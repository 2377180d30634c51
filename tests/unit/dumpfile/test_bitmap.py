"""Ranks, runs and selection against the plain definition."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.dumpfile.bitmap import BLOCK, Bitmap
from kdumpy.dumpfile.source import BytesSource


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 3 * BLOCK), dense=st.floats(0, 1),
       low=st.floats(0, 1), high=st.floats(0, 1))
def test_against_a_list_of_bits(seed: int, size: int, dense: float, low: float, high: float) -> None:
    rng = random.Random(seed)
    raw = bytearray(size)
    at = 0
    while at < size:  # runs, as memory has them
        length = rng.randrange(1, 400)
        fill = rng.choice((b"\xff", b"\0", rng.randbytes(1)) if rng.random() < dense else (b"\0",))
        raw[at:at + length] = (fill * length)[:size - at]
        at += length
    first, last = sorted((int(low * size * 8), int(high * size * 8)))
    bitmap = Bitmap(BytesSource(b"pad" + bytes(raw)), 3, size, first, last)
    bits = [bit for bit in range(first, last) if raw[bit >> 3] >> (bit & 7) & 1]
    assert bitmap.count == len(bits)
    assert [bit for run in bitmap.ranges() for bit in run] == bits
    runs = list(bitmap.ranges())
    assert all(one.stop < two.start for one, two in itertools.pairwise(runs))
    for rank in {rng.randrange(len(bits)) for _ in range(20)} if bits else ():
        assert bitmap.rank(bits[rank]) == rank
        assert bitmap.has(bits[rank])
        assert bitmap.select(rank) == bits[rank]
    held = set(bits)
    for bit in (rng.randrange(-5, size * 8 + 5) for _ in range(50)):
        assert bitmap.has(bit) == (bit in held)
