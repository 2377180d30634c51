"""The log buffer of 3.5 to 5.9, laid out by hand: no such kernel is within reach to take a dump of."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.dumpfile.logbuf import read_log_buffer
from kdumpy.dumpfile.logrecord import LogRecord, Progress
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import KdumpyError, MissingPage

BASE = 0xffffffff81000000
BUFFER, LENGTH, FIRST, NEXT, LOG = BASE, BASE + 8, BASE + 16, BASE + 24, BASE + 0x1000
SIZE = 8192
INFO = VmcoreInfo(f"""PAGESIZE=4096
SYMBOL(swapper_pg_dir)=ffffffff8fff0000
NUMBER(phys_base)=0
SYMBOL(log_buf)={BUFFER:x}
SYMBOL(log_buf_len)={LENGTH:x}
SYMBOL(log_first_idx)={FIRST:x}
SYMBOL(log_next_idx)={NEXT:x}
SIZE(printk_log)=16
OFFSET(printk_log.ts_nsec)=0
OFFSET(printk_log.len)=8
OFFSET(printk_log.text_len)=10
OFFSET(printk_log.dict_len)=12
""".encode(), where="by hand")


class Memory:
    """The kernel's image without page tables: addresses are translated by arithmetic."""

    machine = Machine.X86_64
    page_size = 4096
    vmcoreinfo = INFO

    def __init__(self, log: bytes, first: int, following: int) -> None:
        self.data = (struct.pack("<QQQQ", LOG, SIZE, first, following).ljust(0x1000, b"\0") + log)
        self.missing: set[int] = set()

    def read_physical(self, address: int, size: int) -> bytes:
        at = address - 0x1000000
        if at < 0 or at + size > len(self.data) or at // 4096 in self.missing:
            raise MissingPage("not there", where=f"{address:x}")
        return self.data[at:at + size]


def record(time: int, text: bytes, extra: bytes = b"", level: int = 6, facility: int = 0) -> bytes:
    length = 16 + len(text) + len(extra) + 3 & ~3
    return (struct.pack("<QHHHBB", time, length, len(text), len(extra), facility, level << 5)
            + text + extra).ljust(length, b"\0")


def read(memory: Memory) -> tuple[list[LogRecord], Progress]:
    progress = Progress()
    return list(read_log_buffer(KernelMemory(memory), progress)), progress


def test_records_and_their_device() -> None:
    log = record(1_000_000, b"first") + record(2_000_000, b"second", b"SUBSYSTEM=pci\0DEVICE=+pci:00:1f.2", 3, 1)
    records, progress = read(Memory(log.ljust(SIZE, b"\0"), 0, len(log)))
    assert [(each.ts_ns, each.level, each.facility, each.text) for each in records] == [
        (1_000_000, 6, 0, "first"), (2_000_000, 3, 1, "second")]
    assert (records[1].subsystem, records[1].device) == ("pci", "+pci:00:1f.2")
    assert progress.unreadable == 0


def test_the_ring_wraps_at_a_record_of_no_length() -> None:
    old, new = record(1, b"before the end"), record(2, b"after it")
    start = SIZE - len(old) - 16
    log = new.ljust(start, b"\xee") + old + bytes(16)
    records, _ = read(Memory(log, start, len(new)))
    assert [each.text for each in records] == ["before the end", "after it"]


def test_a_missing_page_costs_its_records_and_those_that_reach_into_it() -> None:
    log = b"".join(record(number, b"record %4d of the log" % number) for number in range(200))
    memory = Memory(log.ljust(SIZE, b"\0"), 0, len(log))
    memory.missing = {1}  # the log's first page
    records, progress = read(memory)
    assert progress.unreadable == 1
    assert "not there" in progress.why
    assert [each.text[:6] for each in records] == ["record"] * len(records)
    assert [each.ts_ns for each in records] == list(range(records[0].ts_ns, 200))
    assert len(records) > 90


@settings(max_examples=200, deadline=2000)
@given(seed=st.integers(0, 1 << 32))
def test_malformed_ones_end(seed: int) -> None:
    rng = random.Random(seed)
    log = bytearray(b"".join(record(number, b"record %4d of the log" % number) for number in range(180)))
    for _ in range(rng.randrange(1, 20)):
        log[rng.randrange(len(log))] = rng.randrange(256)
    memory = Memory(bytes(log).ljust(SIZE, b"\0"), rng.randrange(SIZE), rng.randrange(SIZE))
    try:
        records, _ = read(memory)
        assert len(records) <= SIZE // 16
    except KdumpyError:
        pass


def test_a_header_that_cannot_be_is_refused() -> None:
    with pytest.raises(KdumpyError, match="header is wrong"):
        read(Memory(bytes(SIZE), SIZE + 1, 0))
