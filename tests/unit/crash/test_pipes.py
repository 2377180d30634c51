"""The filters of structured pipes, on rows of our own; and how a line with them is taken apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from kdumpy.crash import pipes
from kdumpy.crash.parser import parse
from kdumpy.errors import UsageError


@dataclass(frozen=True)
class Frame:
    function: str


@dataclass(frozen=True)
class Row:
    pid: int
    state: str
    rss: int
    kernel: bool
    load: float | None
    frames: tuple[Frame, ...] = ()


ROWS = (Row(1, "IN", 300, False, 0.5, (Frame("schedule"), Frame("do_wait"))),
        Row(2, "UN", 0, True, None, (Frame("schedule"), Frame("mutex_lock"))),
        Row(3, "UN", 20, False, 2.5), Row(0xffff888000000040, "RU", 100, False, 1.0))


def pids(*filters: str) -> list[Any]:
    rows, _ = pipes.apply(ROWS, filters)
    return [row.pid for row in rows]


@pytest.mark.parametrize(("condition", "expected"), [
    ("state=UN", [2, 3]), ("state == D", [2, 3]), ("state!=UN pid<10", [1]), ("state=IN,RU rss >= 0x12c", [1]),
    ("kernel=yes", [2]), ("kernel!=true state=UN", [3]), ("pid=ffff888000000040", [0xffff888000000040]),
    ("frames.function~mutex", [2]), ("frames.function=schedule", [1, 2]), ("frames.function!~mutex pid<3", [1]),
    ("load>0.75", [3, 0xffff888000000040]), ("load=-", [2]), ("pid<=2", [1, 2]),
    ("state~'^[IR]'", [1, 0xffff888000000040]),
])
def test_where(condition: str, expected: list[int]) -> None:
    assert pids(f"where {condition}") == expected


def test_order_and_parts() -> None:
    assert pids("sort -rss", "head 2") == [1, 0xffff888000000040]
    assert pids("sort state -rss") == [1, 0xffff888000000040, 3, 2]
    assert pids("sort load") == [2, 1, 0xffff888000000040, 3]       # what is not known stands first
    assert pids("tail 1") == [0xffff888000000040]
    assert pids("uniq state") == [1, 2, 0xffff888000000040]
    assert pids("head 0") == []


def records(*filters: str) -> list[dict[str, Any]]:
    rows, _ = pipes.apply(ROWS, filters)
    return [pipes.plain(row) for row in rows]


def test_what_filters_make() -> None:
    assert records("count") == [{"count": 4}]
    assert records("count state")[0] == {"count": 2, "state": "UN"}
    assert records("count frames.function")[0] == {"count": 2, "frames.function": ()}
    assert records("sum rss by kernel") == [{"rss": 420, "kernel": False}, {"rss": 0, "kernel": True}]
    assert records("sum rss") == [{"rss": 420}]
    assert records("columns pid, frames.function", "head 1") == [{"pid": 1, "frames.function": ("schedule", "do_wait")}]
    assert records("columns pid state", "count state", "where count>1") == [{"count": 2, "state": "UN"}]
    assert [row["field"] for row in records("fields")] == ["pid", "state", "rss", "kernel", "load", "frames",
                                                           "frames.function"]


def test_what_stands_inside_of_rows_goes_into_json() -> None:
    assert json.dumps(records("columns frames", "head 1")) == (
        '[{"frames": [{"function": "schedule"}, {"function": "do_wait"}]}]')


def test_a_table_has_the_columns_of_all_records() -> None:
    rows = [pipes.Record({"a": 1}), pipes.Record({"b": {2}})]
    assert [line.split() for line in pipes.table(rows)] == [["A", "B"], ["1", "-"], ["-", "{2}"]]
    assert [pipes.plain(row) for row in pipes.apply(rows[1:], ["count b"])[0]] == [{"count": 1, "b": "{2}"}]


def test_the_table_of_records() -> None:
    rows, _ = pipes.apply(ROWS, ["columns pid state load frames"])
    assert list(pipes.table(rows)) == [
        "             PID  STATE  LOAD  FRAMES", "               1  IN     0.5   [2]",
        "               2  UN     -     [2]",
        "               3  UN     2.5", "ffff888000000040  RU     1"]


def test_rows_are_read_only_as_far_as_they_are_wanted() -> None:
    def endless() -> Any:
        while True:
            yield ROWS[0]

    rows, _ = pipes.apply(endless(), ["where pid=1", "head 3"])
    assert len(list(rows)) == 3


@pytest.mark.parametrize(("filters", "words"), [
    (["grep x"], "no filter 'grep'"), (["wher pid=1"], "did you mean 'where'"), (["where"], "wants a condition"),
    (["where pid"], "is no condition"), (["where pod=1"], "did you mean 'pid'"), (["where pid=x"], "no number"),
    (["where state~("], "no regular expression"), (["where kernel=maybe"], "yes or no"), (["head x"], "no number"),
    (["sort"], "wants fields"), (["sum state"], "is no number"), (["sum rss kernel"], "sum wants"),
    (["columns nothing.at.all"], "no field"), (["sort nothing"], "no field"),
    (["where pid=" + "9" * 5000], "no number"), (["where frames>3"], "fields of its own"),
    (["where rss>-"], "nothing is more or less"), (["count frames"], "fields of its own"),
    (["uniq frames"], "fields of its own"),
])
def test_wrong_filters_say_what_is_wrong(filters: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        records(*filters)


@pytest.mark.parametrize(("text", "filters", "pipeline", "file"), [
    ("ps |: where pid > 3 |: head 2", ("where pid > 3", "head 2"), None, None),
    ("ps |: count state | sort -n | head", ("count state",), "sort -n | head", None),
    ("ps |: head > out", ("head",), None, "out"),
    ("ps |: where a='x | y' | cat > f", ("where a='x | y'",), "cat > f", None), ("ps > f", (), None, "f"),
    ("p (1|2)", (), None, None), ("ps | : x", (), ": x", None),
])
def test_a_line_with_filters(text: str, filters: tuple[str, ...], pipeline: str | None, file: str | None) -> None:
    (line,) = parse(text)
    assert (line.filters, line.pipeline, line.file) == (filters, pipeline, file)
    assert line.name == text.split()[0]


@pytest.mark.parametrize("text", ["ps |:", "ps |: |: head", "|: head", "ps |: head > a b"])
def test_a_line_that_is_not_whole(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)
