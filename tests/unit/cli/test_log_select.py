"""`kdumpy log`: levels, times, and control characters."""

from __future__ import annotations

import pytest

from kdumpy.cli.log import boot_time, parse_levels, select
from kdumpy.dumpfile.dmesg import KernelLog, LogRecord
from kdumpy.errors import UsageError
from kdumpy.units import printable


def record(seconds: float, level: int, text: str = "x") -> LogRecord:
    return LogRecord(0, int(seconds * 1e9), level, 0, "", text)


RECORDS = (record(1, 6), record(2, 3), record(9, 4), record(10, 0))


@pytest.mark.parametrize(("text", "expected"), [
    ("err", {3}), ("err,warn", {3, 4}), ("err+", {0, 1, 2, 3}), ("+notice", {5, 6, 7}), ("Error", {3}),
    ("warning", {4}),
])
def test_levels(text: str, expected: set[int]) -> None:
    assert parse_levels(text) == expected


@pytest.mark.parametrize("text", ["loud", "", "err,,warn", "3"])
def test_what_is_no_level_says_so(text: str) -> None:
    with pytest.raises(UsageError):
        parse_levels(text)


def test_records_are_chosen_by_level_and_time() -> None:
    assert select(RECORDS, frozenset({3, 4}), None) == [RECORDS[1], RECORDS[2]]
    assert select(RECORDS, None, 9) == [RECORDS[2], RECORDS[3]]
    assert select(RECORDS, None, -1.5) == [RECORDS[2], RECORDS[3]]
    unknown = LogRecord(0, -1, -1, -1, "", "salvaged")
    assert select([unknown], frozenset({3}), 5.0) == [unknown]
    assert select([], None, -5.0) == []


def test_the_boot_is_reckoned_back_from_the_crash() -> None:
    log = KernelLog(RECORDS, 0, 0, "printk ringbuffer", "")
    assert boot_time(log, 1010) == 1000
    assert boot_time(log, None) is None
    assert boot_time(KernelLog((), 0, 0, "salvage", ""), 5) is None


def test_a_terminal_obeys_nothing_out_of_a_dump() -> None:
    assert printable("a\x1b[31mb\x07\r\x9b\x7f\ttab\nline é") == r"a\x1b[31mb\x07\x0d\x9b\x7f" + "\ttab\nline é"
