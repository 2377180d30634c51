"""Equal pages: found wherever they are, and never taken for equal when they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kdumpy.capture.batch import Packer
from kdumpy.capture.duplicates import SeenPages
from kdumpy.dumpfile.compressors import compressor

PAGE = 4096


class Memory:
    """As much of a dump as a packer needs: pages from pfn 0 on."""

    page_size = PAGE

    def __init__(self, pages: NDArray[np.uint8]) -> None:
        self.pages = pages

    def read_pages(self, pfns: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pages[pfns]


def packed_again(pages: NDArray[np.uint8], batch_pages: int) -> tuple[NDArray[np.uint8], int]:
    """Pack pages in batches, and put them together again from what is stored and shared; also count the stored."""
    memory = Memory(pages)
    packer = Packer(memory, compressor("none"), SeenPages(PAGE))  # type: ignore[arg-type]
    result = np.full_like(pages, 0xee)
    count = 0
    for start in range(0, len(pages), batch_pages):
        pfns = np.arange(start, min(start + batch_pages, len(pages)))
        batch = packer.pack(pfns)
        if batch.packed is not None:
            data = np.frombuffer(batch.packed.data, np.uint8).reshape(-1, PAGE)
            result[pfns[batch.stored]] = data
            count += len(data)
            result[pfns[batch.twins]] = data[batch.twin_of]
        result[pfns[batch.zero]] = 0
        assert (batch.shared_pfns < start).all()
        result[pfns[batch.shared]] = result[batch.shared_pfns]
        rows = np.concatenate([batch.stored, batch.twins, batch.zero, batch.shared, batch.unreadable])
        assert sorted(rows.tolist()) == list(range(len(pfns)))
    return result, count


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.integers(0, 6), min_size=1, max_size=60), size=st.integers(1, 20), seed=st.integers(0, 99))
def test_each_content_is_stored_once(kinds: list[int], size: int, seed: int) -> None:
    contents = np.random.default_rng(seed).integers(0, 256, (7, PAGE)).astype(np.uint8)
    contents[0] = 0
    contents[1] = 0x6b
    pages = contents[kinds]
    result, count = packed_again(pages, size)
    assert np.array_equal(result, pages)
    assert count == len({kind for kind in kinds if kind})


@pytest.mark.parametrize("batch_pages", [1, 8])
def test_an_equal_sum_is_not_taken_for_equal(batch_pages: int) -> None:
    # The sum is linear with odd weights modulo 2**64: the top bits of two words cancel each other out.
    words = np.random.default_rng(1).integers(0, 1 << 62, (1, 512)).astype(np.uint64).repeat(4, axis=0)
    top = np.uint64(1 << 63)
    words[1, [3, 200]] ^= top
    words[2, [7, 8]] ^= top
    words[3] = 0
    words[3, [0, 511]] = top        # the sum of a zero page
    sums = SeenPages(PAGE).sums(words)
    assert len(set(sums.tolist())) == 2
    assert sums[3] == 0
    pages = words.view(np.uint8)
    result, count = packed_again(pages, batch_pages)
    assert np.array_equal(result, pages)
    assert count == 4


def test_a_full_table_costs_space_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdumpy.capture.duplicates.PLACES", 4)
    pages = np.random.default_rng(2).integers(0, 256, (50, PAGE)).astype(np.uint8)
    pages = np.concatenate([pages, pages])
    result, count = packed_again(pages, 10)
    assert np.array_equal(result, pages)
    assert 50 < count < 100


def test_the_table_may_name_a_page_that_has_changed_hands() -> None:
    # Another worker may write an entry while it is read: the sum of one page with the number of another.
    pages = np.random.default_rng(3).integers(0, 256, (3, PAGE)).astype(np.uint8)
    pages[2] = pages[0]
    seen = SeenPages(PAGE)
    packer = Packer(Memory(pages), compressor("none"), seen)  # type: ignore[arg-type]
    packer.pack(np.array([0, 1]))
    seen._table["pfn"][seen._table["sum"] == seen.sums(pages[:1].view(np.uint64))[0]] = 1
    batch = packer.pack(np.array([2]))
    assert batch.stored.tolist() == [0]
    assert not len(batch.shared)
