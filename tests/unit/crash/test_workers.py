"""Work that is shared out among processes comes back whole, in order, and with its errors."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpy.crash import workers
from kdumpy.crash.workers import Bulk, Shown, in_order
from kdumpy.errors import HostError, KdumpyError, NotInDump
from kdumpy.kernel.deadline import Deadline, TookTooLong

LOTS = list(range(9))


def three(lot: int) -> Iterator[str]:
    for part in range(3):
        yield f"{lot}.{part}"


def children() -> set[str]:
    """Return the processes that this one has forked and that have not ended."""
    return {path.name for path in Path("/proc").glob("[0-9]*")
            if f"PPid:\t{os.getpid()}\n" in _status(path) and "(zombie)" not in _status(path)}


def ended(before: set[str]) -> bool:
    """Tell whether all that were forked since have ended; a killed process may take its time on a busy machine."""
    limit = time.monotonic() + 30
    while children() - before:
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def _status(path: Path) -> str:
    try:
        return (path / "status").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("workers", [1, 2, 3, 20])
def test_the_order_is_that_of_the_lots(workers: int) -> None:
    before = children()
    assert list(in_order(LOTS, three, workers, Deadline())) == [part for lot in LOTS for part in three(lot)]
    assert ended(before)


def test_others_do_the_work() -> None:
    pids = set(in_order(LOTS, lambda lot: iter([os.getpid()]), 3, Deadline()))
    assert len(pids) == 3
    assert os.getpid() not in pids


def test_more_than_fits_into_a_pipe_or_a_message() -> None:
    def much(lot: int) -> Iterator[bytes]:
        yield from (b"%d" % lot * 500 for _ in range(5000))

    assert sum(map(len, in_order(LOTS, much, 2, Deadline()))) == 9 * 500 * 5000


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_lot_gave_stands_before_its_error(workers: int) -> None:
    def fails(lot: int) -> Iterator[int]:
        yield lot
        if lot == 4:
            raise NotInDump("it is not there", where="lot 4", mend="try another")

    parts = in_order(LOTS, fails, workers, Deadline())
    assert [next(parts) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(NotInDump, match="it is not there") as caught:
        next(parts)
    assert caught.value.mend == "try another"


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    class Odd(Exception):
        def __reduce__(self) -> str:
            raise TypeError("no")

    def fails(lot: int) -> Iterator[int]:
        raise Odd("what it says")
        yield lot

    with pytest.raises(KdumpyError, match="what it says"):
        list(in_order(LOTS, fails, 2, Deadline()))


def test_a_process_that_dies_is_told() -> None:
    def dies(lot: int) -> Iterator[int]:
        if lot == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield lot

    with pytest.raises(HostError, match="signal 9"):
        list(in_order(LOTS, dies, 2, Deadline()))


def test_each_has_its_clock() -> None:
    deadline = Deadline(1)

    def hangs(lot: int) -> Iterator[int]:
        while lot == 2:
            pass
        yield lot

    with deadline.running():
        parts = in_order(LOTS, hangs, 2, deadline)
        assert [next(parts), next(parts)] == [0, 1]
        with pytest.raises(TookTooLong):
            next(parts)


def test_who_is_not_wanted_any_more_ends() -> None:
    before = children()
    def slow(lot: int) -> Iterator[int]:
        time.sleep(30 * bool(lot))
        yield lot

    parts = in_order(LOTS, slow, 3, Deadline())
    assert next(parts) == 0
    assert len(children() - before) == 3
    del parts
    assert ended(before)


def bulk(lot: int) -> Iterator[Bulk | int]:
    time.sleep(0.01 * (lot % 3))        # who is ready first is not whose turn it is
    yield Bulk(b"line %d\n" % lot * 20_000)
    yield lot


def test_text_is_written_in_order_by_those_who_made_it() -> None:
    with tempfile.TemporaryFile("w+") as file:
        file.write("head\n")
        assert list(in_order(LOTS, bulk, 3, Deadline(), file)) == LOTS
        file.write("tail\n")
        file.seek(0)
        text = file.read()
    assert text == "head\n" + "".join(f"line {lot}\n" * 20_000 for lot in LOTS) + "tail\n"


def test_text_is_given_where_nothing_can_be_written_to() -> None:
    parts = list(in_order(LOTS, bulk, 3, Deadline(), None))
    assert b"".join(part for part in parts if isinstance(part, bytes)).count(b"\n") == 9 * 20_000


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as file, pytest.raises(OSError) as caught:  # noqa: PTH123
        list(in_order(LOTS, bulk, 2, Deadline(), file))
    assert caught.value.errno == errno.ENOSPC


def test_a_reader_that_has_gone_ends_it() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as file, pytest.raises(BrokenPipeError):
        list(in_order(LOTS, bulk, 2, Deadline(), file))


def shown(lot: int) -> Iterator[Shown | int]:
    yield Shown(f"first {lot}")
    yield Shown(f"second {lot}" if lot != 2 else "\x1b[31m")
    if lot == 5:
        yield lot


def test_lines_are_written_by_those_who_made_them_unless_there_is_more_to_do() -> None:
    with tempfile.TemporaryFile("w+") as file:
        parts = list(in_order(LOTS, shown, 2, Deadline(), file))
        file.seek(0)
        text = file.read()
    assert parts == ["first 2", "\x1b[31m", "first 5", "second 5", 5]
    assert text == "".join(f"first {lot}\nsecond {lot}\n" for lot in LOTS if lot not in (2, 5))


def test_no_process_is_left_behind() -> None:
    before = children()
    for _ in range(3):
        list(in_order(LOTS, three, 3, Deadline()))
        assert ended(before)
    assert len(workers._leaving) <= 3
