"""The corners of the printk ringbuffer that a small guest's log never reaches, laid out by hand.

Full rings of real guests (5.10, 6.1 and 7.2, 9,000 lines) were compared with makedumpfile by hand: all equal.
"""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import printkring
from kdumpy.dumpfile.logrecord import LogRecord, Progress
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.dumpfile.ringbuffer import read_ringbuffer
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import KdumpyError, MissingPage

BASE = 0xffffffff81000000
PRB, RING, DESCS, INFOS, TEXTS = BASE, BASE + 0x100, BASE + 0x1000, BASE + 0x2000, BASE + 0x4000
COUNT_BITS, TEXT_BITS = 5, 12
ID_MASK = (1 << 62) - 1
RESERVED, COMMITTED, FINALIZED, REUSABLE = range(4)
INFO = VmcoreInfo(printkring.vmcoreinfo(PRB).encode(), where="by hand")


class Ring:
    """A ring in an image that is translated by arithmetic."""

    machine = Machine.X86_64
    page_size = 4096
    vmcoreinfo = INFO

    def __init__(self, first_id: int) -> None:
        self.data = bytearray(0x6000)
        self.missing: set[int] = set()
        self.first_id = self.next_id = first_id & ID_MASK
        self._put(PRB, struct.pack("<Q", RING))

    def _put(self, address: int, data: bytes) -> None:
        self.data[address - BASE:address - BASE + len(data)] = data

    def add(self, text: bytes, begin: int, following: int, *, at: int | None = None, state: int = FINALIZED,
            length: int | None = None) -> None:
        """Add a record whose block is [begin, following) and whose id and text lie at `at` of the text ring."""
        slot = self.next_id % (1 << COUNT_BITS)
        self._put(DESCS + slot * 24, struct.pack("<QQQ", state << 62 | self.next_id, begin, following))
        self._put(INFOS + slot * 88, struct.pack("<QQHBBI16s48s", self.next_id - self.first_id & ID_MASK, 5_000_000,
                                                 len(text) if length is None else length, 0, 3 << 5 | 2, 0x80000001,
                                                 b"usb", b"+usb:1-1"))
        if at is not None:
            self._put(TEXTS + at, struct.pack("<Q", self.next_id) + text)
        self.next_id = self.next_id + 1 & ID_MASK

    def read_physical(self, address: int, size: int) -> bytes:
        at = address - (BASE - 0xffffffff80000000)
        if at < 0 or at + size > len(self.data) or at // 4096 in self.missing:
            raise MissingPage("not there", where=f"{address:x}")
        return bytes(self.data[at:at + size])

    def records(self) -> tuple[list[LogRecord], Progress]:
        self._put(RING, struct.pack("<QQQQQQQQ", COUNT_BITS, DESCS, INFOS, self.next_id - 1 & ID_MASK, self.first_id,
                                    0, TEXT_BITS, TEXTS))
        progress = Progress()
        return list(read_ringbuffer(KernelMemory(self), progress)), progress


def test_ids_wrap_and_fields_are_read() -> None:
    ring = Ring(-2)
    for number in range(4):
        ring.add(b"line %d" % number, number * 32, number * 32 + 32, at=number * 32)
    records, progress = ring.records()
    assert [each.text for each in records] == ["line 0", "line 1", "line 2", "line 3"]
    assert [each.seq for each in records] == [0, 1, 2, 3]
    assert (records[0].level, records[0].caller, records[0].subsystem, records[0].device, records[0].ts_ns) == (
        3, "C1", "usb", "+usb:1-1", 5_000_000)
    assert progress.unreadable == 0


def test_a_block_that_wraps_lies_whole_at_the_start() -> None:
    ring = Ring(7)
    ring.add(b"wrapped", 4096 * 3 - 8, 4096 * 3 + 24, at=0)
    assert [each.text for each in ring.records()[0]] == ["wrapped"]


def test_a_block_may_end_where_the_ring_ends() -> None:
    ring = Ring(7)
    ring.add(b"the end", 4096 - 32, 4096, at=4096 - 32)
    assert [each.text for each in ring.records()[0]] == ["the end"]


def test_records_without_a_block() -> None:
    ring = Ring(7)
    ring.add(b"", 3, 3)  # an empty line
    ring.add(b"", 1, 1)  # its text found no room
    assert [each.text for each in ring.records()[0]] == [""]


def test_only_committed_and_finalized_ones_are_read() -> None:
    ring = Ring(7)
    for state in (RESERVED, COMMITTED, FINALIZED, REUSABLE):
        ring.add(b"%d" % state, state * 32, state * 32 + 32, at=state * 32, state=state)
    assert [each.text for each in ring.records()[0]] == [str(COMMITTED), str(FINALIZED)]


def test_a_length_that_lies_is_cut_to_the_block() -> None:
    ring = Ring(7)
    ring.add(b"abcdefgh", 0, 16, at=0, length=60000)
    assert [each.text for each in ring.records()[0]] == ["abcdefgh"]


def test_a_text_that_is_another_s_is_counted() -> None:
    ring = Ring(7)
    ring.add(b"gone", 0, 32)
    ring.add(b"here", 32, 64, at=32)
    records, progress = ring.records()
    assert [each.text for each in records] == ["here"]
    assert progress.unreadable == 1
    assert "not its own" in progress.why


def test_a_missing_page_costs_only_its_records() -> None:
    ring = Ring(7)
    ring.add(b"one", 0, 32, at=0)
    ring.add(b"two", 3, 3)
    ring.missing = {4}  # the text ring
    records, progress = ring.records()
    assert [each.seq for each in records] == [1]
    assert progress.unreadable == 1
    assert "not there" in progress.why


def test_multi_line_records_and_bytes_that_are_no_text() -> None:
    ring = Ring(7)
    ring.add(b"a\nb\xff", 0, 32, at=0)
    (record,) = ring.records()[0]
    assert list(record.lines()) == ["[    0.005000] a", "[    0.005000] b\\xff"]
    assert next(iter(record.lines(callers=True))) == "[    0.005000] [    C1] a"


@settings(max_examples=200, deadline=2000)
@given(seed=st.integers(0, 1 << 32))
def test_noise_never_breaks_it(seed: int) -> None:
    rng = random.Random(seed)
    ring = Ring(rng.choice((0, 7, -20)))
    for number in range(32):
        ring.add(b"line %d" % number, number * 32, number * 32 + 32, at=number * 32)
    ring.records()
    for _ in range(rng.randrange(1, 30)):
        ring.data[rng.choice((rng.randrange(0x180), rng.randrange(len(ring.data))))] = rng.randrange(256)
    try:
        records = list(read_ringbuffer(KernelMemory(ring), Progress()))
    except KdumpyError:
        return
    assert len(records) <= 1 << 26


def test_a_header_that_cannot_be_is_refused() -> None:
    ring = Ring(7)
    ring.add(b"one", 0, 32, at=0)
    ring.records()
    ring.data[0x100:0x104] = struct.pack("<I", 60)
    with pytest.raises(KdumpyError, match=r"2\^60"):
        list(read_ringbuffer(KernelMemory(ring), Progress()))
