"""Many pages at once: each way of decompressing gives the same rows, and none writes beyond its own."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from kdumpy.dumpfile import compression, unpacking
from kdumpy.dumpfile.bulk import copy_pages, pieces
from kdumpy.dumpfile.compressors import compressor
from kdumpy.dumpfile.unpacking import Unpacker, unpacker
from synthetic import page_like

Packed = tuple[bytes, list[tuple[int, int, int]], NDArray[np.uint8]]


def packed(bit: int, count: int = 400) -> Packed:
    """Return compressed pages, the jobs to unpack them in no order, and the pages."""
    rng = random.Random(bit)
    wanted = [page_like(rng, 4096) for _ in range(count)]
    pages = np.frombuffer(b"".join(wanted), np.uint8).reshape(-1, 4096)
    result = compressor(compression.NAMES[bit]).pack(pages)
    starts = (np.cumsum(result.sizes) - result.sizes).tolist()
    jobs = [(start, size, row) for row, (start, size, flag)
            in enumerate(zip(starts, result.sizes.tolist(), result.flags.tolist(), strict=True)) if flag]
    rng.shuffle(jobs)
    return bytes(result.data), jobs, pages


def ways(bit: int) -> list[Unpacker]:
    plain = unpacking._one_by_one(bit)
    return [unpacker(bit), plain, unpacking._threaded(plain), unpacking._threaded(unpacker(bit))]


@pytest.mark.parametrize("bit", compression.NAMES)
def test_every_way_gives_the_same(bit: int) -> None:
    data, jobs, pages = packed(bit)
    rows = [row for _, _, row in jobs]
    for unpack in ways(bit):
        target = np.full_like(pages, 0x55)
        unpack(data, jobs, target)
        assert np.array_equal(target[rows], pages[rows])
        others = np.setdiff1d(np.arange(len(pages)), rows)
        assert (target[others] == 0x55).all()


@pytest.mark.parametrize("bit", compression.NAMES)
def test_a_page_that_is_too_short_or_too_long_is_refused(bit: int) -> None:
    packer = compressor(compression.NAMES[bit])
    for size in (2048, 8192):
        piece = bytes(packer.pack(np.zeros((1, size), np.uint8)).data)
        for unpack in ways(bit):
            target = np.full((3, 4096), 0x55, np.uint8)
            with pytest.raises(Exception, match=r"."):
                unpack(piece, [(0, len(piece), 1)], target)
            assert (target[[0, 2]] == 0x55).all()


@pytest.mark.parametrize("bit", compression.NAMES)
def test_threads_do_not_disturb_each_other(bit: int) -> None:
    data, jobs, pages = packed(bit, 200)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            target = pages.copy()
            target[[row for _, _, row in jobs]] = 0
            unpacker(bit)(data, jobs, target)
            start, size, row = jobs[0]
            one = compression.decompress(bit, data[start:start + size], 4096, "here")
            if not np.array_equal(target, pages) or one != pages[row].tobytes():
                wrong.append(row)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_pieces_are_neighbours_and_bounded() -> None:
    rng = random.Random(1)
    for gap in (0, 4096, 32768):
        starts = np.sort(np.array([rng.randrange(1 << 26) for _ in range(3000)], np.int64))
        stops = starts + np.array([rng.randrange(1, 4096) for _ in starts])
        covered = list(pieces(starts, stops, gap))
        assert [place for first, last in covered for place in range(first, last)] == list(range(3000))
        for first, last in covered:
            reached = np.maximum.accumulate(stops[first:last])
            assert (starts[first + 1:last] <= reached[:-1] + gap).all()
            assert starts[last - 1] - starts[first] < 8 << 20
    assert list(pieces(starts[:0], stops[:0])) == []


def test_pages_are_copied_from_any_offset() -> None:
    data = random.Random(1).randbytes(50_000)
    pages = np.zeros((5, 4096), np.uint8)
    copy_pages(data, np.array([0, 45_904, 3]), pages, np.array([4, 0, 2]))
    assert pages[[4, 0, 2]].tobytes() == data[:4096] + data[45_904:] + data[3:4099]
    assert not pages[[1, 3]].any()
