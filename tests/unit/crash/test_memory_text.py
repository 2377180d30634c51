"""Text of many rows made by numpy: letter by letter what Python's own formatting makes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.crash.memory.text import Hexadecimal, joined, same

HEXADECIMAL = Hexadecimal()
WORD = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 63).map(lambda bit: 1 << bit),
                 st.integers(1, 63).map(lambda bit: (1 << bit) - 1), st.sampled_from([0, 0x10000, 0xffff0000]))
ROW = st.tuples(WORD, WORD, st.sampled_from([b"", b"1", b" 7 locked", "größer".encode(), b"uptodate,lru"]))


@given(st.lists(ROW, max_size=40), st.integers(1, 16))
def test_rows_are_what_python_s_formatting_makes_of_them(rows: list[tuple[int, int, bytes]], least: int) -> None:
    ends = sorted({end for _, _, end in rows})
    page, number = (np.array([row[place] for row in rows], np.uint64) for place in range(2))
    which = np.array([ends.index(row[2]) for row in rows], np.int64)
    text = joined((HEXADECIMAL.addresses(page), HEXADECIMAL.cells(number, least),
                   same([end + b"\n" for end in ends], which)), len(rows))
    assert text.tobytes() == b"".join(b"%016x %*x %s\n" % (first, least, second, end) for first, second, end in rows)


def test_no_row_is_no_text() -> None:
    assert joined((HEXADECIMAL.cells(np.zeros(0, np.uint64), 8), same([], np.zeros(0, np.int64))), 0).tobytes() == b""
