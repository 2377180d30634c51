"""Lines of text for a great many rows, put together by numpy: a Python line each takes longer than all the reading.

A column is its cells' bytes, each at the right end of its row of a matrix. Where every cell begins in the whole text
follows from the lengths; cells of equal length are then copied there together, one memory copy each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLANK, _ZERO = b" 0"
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_BLANKS = int.from_bytes(b"    ", "little")
_WORD = 4
"""Digits that are looked up together."""


class Cells(NamedTuple):
    """A column of n rows."""

    texts: NDArray[np.uint8]
    """Shape (m, width); each text ends at the right edge. What is left of it is never read."""
    lengths: int | NDArray[np.int64]
    """Bytes of each of the m texts, or of all."""
    which: NDArray[np.int64] | None = None
    """Shape (n,): the row of `texts` that each cell is; None where they are in order (m == n)."""


class Hexadecimal:
    """Turns numbers into hexadecimal cells by tables of four digits."""

    def __init__(self) -> None:
        numbers = np.arange(1 << 4 * _WORD, dtype=np.uint32)[:, None]
        digits = _DIGITS[numbers >> np.arange(4 * _WORD - 4, -1, -4, dtype=np.uint32) & np.uint32(15)]
        self._all = digits.view("<u4").reshape(-1)
        blank = np.maximum.accumulate(digits != _ZERO, axis=1)
        self._leading = np.where(blank, digits, np.uint8(_BLANK)).view("<u4").reshape(-1)
        """The same with blanks for leading zeros, and nothing but blanks for 0."""

    def addresses(self, numbers: NDArray[np.uint64]) -> Cells:
        """Return numbers of 16 digits, and a blank behind each."""
        return _ended(self._all[_words(numbers)], 16)

    def cells(self, numbers: NDArray[np.uint64], least: int) -> Cells:
        """Return numbers of at least `least` characters, filled up with blanks in front, and a blank behind each."""
        words = _words(numbers)
        digits = np.full((len(numbers), 4), _BLANKS, "<u4")
        nothing = np.ones(len(numbers), np.bool_)       # in the words so far
        for place in range(4):
            word = words[:, place]
            some = word != 0
            if not some.any() and nothing.all():
                continue
            digits[:, place] = np.where(nothing, self._leading[word], self._all[word]) if nothing.any() \
                else self._all[word]
            nothing &= ~some
        digits.view(np.uint8)[nothing, 15] = _ZERO
        if not len(numbers) or int(numbers.max()) < 1 << 4 * least:
            return _ended(digits, least)
        needed = 1 + sum((numbers >= np.uint64(1 << 4 * count)).astype(np.int64) for count in range(1, 16))
        return Cells(_ended(digits, 16).texts, np.maximum(needed, least) + 1)


def _ended(digits: NDArray[np.uint32], size: int) -> Cells:
    """Return the last `size` of 16 digits, shape (n, 4), with a blank behind them."""
    texts = np.empty((len(digits), size + 1), np.uint8)
    texts[:, :size] = digits.view(np.uint8)[:, 16 - size:]
    texts[:, size] = _BLANK
    return Cells(texts, size + 1)


def _words(numbers: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the four words of each number, the highest first; shape (n, 4)."""
    words: NDArray[np.uint16] = np.ascontiguousarray(numbers, "<u8").view("<u2").reshape(-1, 4)[:, ::-1]
    return words


def same(texts: Sequence[bytes], which: NDArray[np.int64]) -> Cells:
    """Return a column whose cells are some texts, each many times."""
    width = max(map(len, texts), default=0)
    matrix = np.frombuffer(b"".join(text.rjust(width) for text in texts), np.uint8).reshape(len(texts), width)
    return Cells(matrix, np.array([len(text) for text in texts], np.int64), which)


def joined(columns: Sequence[Cells], count: int) -> NDArray[np.uint8]:
    """Return the bytes of `count` rows, column behind column."""
    lengths = [cells.lengths[cells.which] if isinstance(cells.lengths, np.ndarray) and cells.which is not None
               else cells.lengths for cells in columns]
    line = np.zeros(count, np.int64)
    for length in lengths:
        line += length
    text = np.empty(int(line.sum()), np.uint8)
    at = np.cumsum(line) - line
    for cells, length in zip(columns, lengths, strict=True):
        if isinstance(length, int):
            _put(text, at, cells, None, length)
        else:
            for size in np.flatnonzero(np.bincount(length)).tolist():
                _put(text, at, cells, np.flatnonzero(length == size), size)
        at = at + length
    return text


def _put(text: NDArray[np.uint8], at: NDArray[np.int64], cells: Cells, rows: NDArray[np.int64] | None, size: int
         ) -> None:
    """Copy the cells of `size` bytes to their places; `rows` are theirs, or None for all."""
    if not len(text) or not size:
        return
    which = cells.which if rows is None or cells.which is None else cells.which[rows]
    own = cells.texts[:, cells.texts.shape[1] - size:]
    chosen = np.ascontiguousarray(own if which is None and rows is None else own[rows if which is None else which])
    whole = np.dtype((np.void, size))
    # One element at each byte of the text: giving some of them a value is one memory copy each.
    anywhere = np.ndarray((len(text) - size + 1,), whole, text.data, strides=(1,))
    anywhere[at if rows is None else at[rows]] = chosen.view(whole).reshape(-1)
