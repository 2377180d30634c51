"""A dump seen with holes: what is erased reads as X everywhere, what is left out is not there."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lab
from kdumpy.dumpfile import Dump, open_dump
from kdumpy.dumpfile.erased import FILL, ErasedDump
from kdumpy.errors import MissingPage

PAGE = 4096


@pytest.fixture(scope="module")
def dump() -> Dump:
    return open_dump(lab.bundled())


def first_pages(dump: Dump, count: int) -> list[int]:
    return list(itertools.islice(itertools.chain.from_iterable(dump.present()), count))


@settings(max_examples=60, deadline=None)
@given(holes=st.lists(st.tuples(st.integers(0, 8 * PAGE), st.integers(0, 3 * PAGE)), max_size=6),
       start=st.integers(0, 8 * PAGE), size=st.integers(0, 3 * PAGE))
def test_bytes_are_erased_and_no_others(dump: Dump, holes: list[tuple[int, int]], start: int, size: int) -> None:
    run = next(run for run in dump.present() if len(run) >= 12)
    base = run.start * PAGE
    expected = bytearray(dump.read_physical(base, 12 * PAGE))
    for at, length in holes:
        expected[at:at + length] = bytes([FILL]) * length
    erased = ErasedDump(dump, [(base + at, length) for at, length in holes])
    assert erased.read_pages(range(run.start, run.start + 12)).tobytes() == expected[:12 * PAGE]
    assert erased.read_physical(base + start, size) == expected[start:start + size]
    assert erased.read_pages([run.start + 3, run.start])[1].tobytes() == expected[:PAGE]


def test_pages_left_out_are_not_there(dump: Dump) -> None:
    def odd(first: int, count: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.arange(first, first + count) % 2 == 1
        return found

    erased = ErasedDump(dump, [], left_out=odd, level=8)
    pages = [pfn for run in erased.present() for pfn in run]
    assert pages == [pfn for run in dump.present() for pfn in run if pfn % 2 == 0]
    assert erased.pages_present == len(pages)
    assert erased.dump_level == (dump.dump_level or 0) | 8
    hidden = next(pfn for pfn in first_pages(dump, 100) if pfn % 2)
    assert not erased.has_page(hidden)
    assert erased.has_page(pages[0])
    some = range(hidden - 50, hidden + 50)
    assert erased.held(some).tolist() == [erased.has_page(pfn) for pfn in some]
    assert 0 < erased.held(some).sum() < dump.held(some).sum()
    with pytest.raises(MissingPage, match="erased"):
        erased.read_physical(hidden * PAGE + 8, 8)
    with pytest.raises(MissingPage, match="erased"):
        erased.read_pages([pages[0], hidden])
    both = erased.read_pages([hidden, pages[0]], missing="zero")
    assert not both[0].any()
    assert both[1].tobytes() == dump.read_physical(pages[0] * PAGE, PAGE)


def test_the_rest_is_as_it_was(dump: Dump) -> None:
    erased = ErasedDump(dump, [(0, 10)], b"erase key.payload size 10\n")
    for name in ("format", "machine", "page_size", "vmcoreinfo", "notes", "prstatus", "crash_time", "utsname",
                 "compression", "incomplete", "max_pfn", "pages_present", "dump_level", "source"):
        assert getattr(erased, name) == getattr(dump, name)
    assert erased.eraseinfo.endswith(b"erase key.payload size 10\n")
    assert ErasedDump(erased, [], b"erase a size 1\n").eraseinfo.endswith(b"size 10\nerase a size 1\n")
