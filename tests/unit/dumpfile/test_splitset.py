"""Split sets: parts joined are the dump that was split, and what does not belong together is refused."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.dumpfile.health import State, health
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.opening import open_dump, open_source
from kdumpy.dumpfile.sink import FileSink
from kdumpy.dumpfile.splitset import SplitDump, join, parts
from kdumpy.errors import DumpFormatError, MissingPage, UsageError
from synthetic import MadeUpDump, MemorySink, page_like, write_kdump


def made_up(seed: int = 1, count: int = 400) -> MadeUpDump:
    rng = random.Random(seed)
    return MadeUpDump({pfn: page_like(rng, 4096) for pfn in rng.sample(range(2000), count)}, max_pfn=2048)


def written(dump: MadeUpDump, folder: Path, names: list[str]) -> list[Path]:
    paths = [folder / name for name in names]
    for path, part in zip(paths, parts(dump, len(names)), strict=True):
        with FileSink(path) as sink:
            write_kdump(dump, sink, "zstd", part=part)
    return paths


@given(seed=st.integers(0, 1000), count=st.integers(1, 300), pieces=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_cuts_cover_all_pages_about_evenly(seed: int, count: int, pieces: int) -> None:
    dump = made_up(seed, count)
    cut = parts(dump, pieces)
    assert cut[0][0] == 0
    assert cut[-1][1] == dump.max_pfn
    assert all(one[1] == two[0] and one[0] < one[1] for one, two in itertools.pairwise(cut))
    assert all(first % 64 == 0 for first, _ in cut)
    assert len(cut) <= pieces
    share = -(-count // pieces)
    for first, last in cut:
        assert sum(first <= pfn < last for pfn in dump.pages) <= share + 64


def test_cuts_of_one_long_run_are_even() -> None:
    dump = MadeUpDump(dict.fromkeys(range(1 << 16), bytes(4096)))
    assert parts(dump, 4) == [(0, 1 << 14), (1 << 14, 2 << 14), (2 << 14, 3 << 14), (3 << 14, 4 << 14)]
    with pytest.raises(UsageError, match="cannot be split in 0"):
        parts(dump, 0)


@given(seed=st.integers(0, 1000), pieces=st.integers(2, 6))
@settings(max_examples=12, deadline=None)
def test_parts_joined_are_the_whole(seed: int, pieces: int) -> None:
    dump = made_up(seed)
    opened = []
    for part in parts(dump, pieces):
        sink = MemorySink()
        write_kdump(dump, sink, "lzo", part=part)
        opened.append(open_source(sink.source()))
    random.Random(seed).shuffle(opened)
    whole = join(opened)
    assert [pfn for run in whole.present() for pfn in run] == list(dump.pages)
    order = random.Random(seed).sample(list(dump.pages), 200)
    assert whole.read_pages(order).tobytes() == b"".join(dump.pages[pfn] for pfn in order)
    assert whole.pages_present == len(dump.pages)
    assert whole.held(range(2100)).tolist() == [pfn in dump.pages for pfn in range(2100)]
    assert not whole.gaps
    assert health(whole, deep=True).state is State.COMPLETE
    assert whole.utsname == dump.utsname
    absent = next(pfn for pfn in range(2000) if pfn not in dump.pages)
    assert not whole.has_page(absent)
    with pytest.raises(MissingPage):
        whole.read_pages([order[0], absent])
    assert whole.read_pages([absent, order[0]], "zero").tobytes() == bytes(4096) + dump.pages[order[0]]


@pytest.mark.parametrize("names", [["vmcore-1", "vmcore-2", "vmcore-3"], ["d.0.kdump", "d.1.kdump", "d.2.kdump"],
                                   ["part8", "part9", "part10"]])
def test_siblings_are_found_by_their_names(tmp_path: Path, names: list[str]) -> None:
    dump = made_up()
    paths = written(dump, tmp_path, names)
    (tmp_path / names[0].replace("1", "7").replace("0", "7").replace("8", "7")).write_bytes(b"no dump at all")
    for path in paths:
        with open_dump(path) as whole:
            assert isinstance(whole, SplitDump)
            assert whole.format == "kdump, split in 3"
            assert whole.pages_present == len(dump.pages)
    with open_dump(paths[2], paths[0], paths[1]) as whole:
        assert isinstance(whole, SplitDump)
        assert not whole.gaps


def test_a_part_without_siblings_opens_alone(tmp_path: Path) -> None:
    dump = made_up()
    paths = written(dump, tmp_path, ["one", "two"])
    with open_dump(paths[1]) as part:
        assert isinstance(part, KdumpDump)
        with pytest.raises(MissingPage, match="another part"):
            part.page(min(dump.pages))
    with open_dump(*paths) as whole:
        assert whole.read_physical(min(dump.pages) * 4096, 4096) == dump.pages[min(dump.pages)]


def test_a_set_that_lacks_a_part_says_which(tmp_path: Path) -> None:
    dump = made_up()
    paths = written(dump, tmp_path, ["a", "b", "c"])
    with open_dump(paths[0], paths[2]) as some:
        assert isinstance(some, SplitDump)
        gap, = some.gaps
        state = health(some)
        assert state.state is State.INCOMPLETE
        assert f"pages {gap.start} to {gap.stop}" in state.reasons[0].what
        lost = next(pfn for pfn in dump.pages if pfn in gap)
        with pytest.raises(MissingPage, match="no part that was given"):
            some.page(lost)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = written(made_up(1), tmp_path, ["v1", "v2"])
    other = MadeUpDump(made_up(2).pages, max_pfn=4096)
    two = written(other, tmp_path / "other", ["v1", "v2"])
    with pytest.raises(DumpFormatError, match="parts of different dumps"):
        open_dump(one[0], two[1])
    with pytest.raises(DumpFormatError, match="hold the same pages"):
        open_dump(one[0], one[0])
    whole = tmp_path / "whole"
    with FileSink(whole) as sink:
        write_kdump(made_up(1), sink, "lzo")
    with pytest.raises(DumpFormatError, match="not a part of a split dump"):
        open_dump(one[0], whole)
    two[1].rename(tmp_path / "v3")  # beside the others, and of another dump: passed over
    with open_dump(one[0]) as found:
        assert isinstance(found, SplitDump)
        assert len(found.parts) == 2
