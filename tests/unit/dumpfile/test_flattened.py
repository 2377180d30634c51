"""A flattened stream read in place equals the file that it describes."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.dumpfile.flattened import SIGNATURE, FlattenedSource
from kdumpy.dumpfile.source import BytesSource
from kdumpy.errors import DamagedDump, DumpFormatError, KdumpyError

HEADER = struct.pack(">16sqq", SIGNATURE, 1, 1).ljust(4096, b"\0")
END = struct.pack(">qq", -1, -1)


def stream(records: list[tuple[int, bytes]], end: bytes = END) -> bytes:
    return HEADER + b"".join(struct.pack(">qq", at, len(data)) + data for at, data in records) + end


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 40))
def test_records_in_any_order_and_over_each_other(seed: int, count: int) -> None:
    rng = random.Random(seed)
    records = [(rng.randrange(2000), rng.randbytes(rng.randrange(1, 300))) for _ in range(count)]
    whole = bytearray(max(at + len(data) for at, data in records))
    for at, data in records:
        whole[at:at + len(data)] = data
    source = FlattenedSource(BytesSource(stream(records)))
    assert source.finished
    assert not source.damage
    assert source.size == len(whole)
    assert source.read(0, source.size) == whole
    for _ in range(30):
        at = rng.randrange(len(whole))
        size = rng.randrange(len(whole) - at + 1)
        assert source.read(at, size) == whole[at:at + size]
    with pytest.raises(DamagedDump):
        source.read(len(whole) - 1, 2)


def test_a_stream_that_ends_early_gives_what_it_has() -> None:
    full = stream([(0, b"a" * 100), (100, b"b" * 100)])
    source = FlattenedSource(BytesSource(full[:-len(END) - 30]))
    assert "70 of 100 bytes" in source.damage
    assert source.read(0, 170) == b"a" * 100 + b"b" * 70
    assert "missing" in FlattenedSource(BytesSource(full[:-len(END)])).damage


def test_holes_are_zero_and_nothing_is_allocated_on_a_record_s_word() -> None:
    source = FlattenedSource(BytesSource(stream([(0, b"a"), (100, b"b"), (1 << 60, b"c")])))
    assert source.read(0, 101) == b"a" + bytes(99) + b"b"
    with pytest.raises(DamagedDump):
        source.read(0, 1 << 59)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(DumpFormatError, match="type 2"):
        FlattenedSource(BytesSource(struct.pack(">16sqq", SIGNATURE, 2, 1).ljust(4096, b"\0") + END))
    with pytest.raises(DamagedDump, match="holds nothing"):
        FlattenedSource(BytesSource(HEADER + END))


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    try:
        source = FlattenedSource(BytesSource(HEADER + raw))
        source.read(0, min(source.size, 100))
    except KdumpyError:
        pass
