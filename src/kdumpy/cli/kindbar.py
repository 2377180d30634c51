"""A dump's memory as a stacked bar and a table: which kinds of pages it holds, which it lacks.

A capital letter is held, a small one was left out; colours repeat what the letters say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kdumpy.capture.census import UNSORTED, Census
from kdumpy.units import human_bytes

WIDTH = 64
"""Columns of the bar."""
_PLAIN = "\033[m"


class Look(NamedTuple):
    """How a kind is shown."""

    letter: str
    words: str
    colour: int
    """Of 256 colours, distinct for people who see no red and green apart."""


LOOKS = {
    "kernel": Look("K", "the kernel's", 33),
    "zero": Look("Z", "zero pages", 250),
    "cache": Look("C", "page cache", 178),
    "cache_private": Look("P", "page cache with private data", 136),
    "user": Look("U", "user data", 133),
    "free": Look("F", "free", 71),
    "unaccepted": Look("N", "free, never accepted by the guest", 72),
    "offline": Look("O", "offline", 240),
    "hwpoison": Look("H", "broken memory", 196),
    UNSORTED: Look("M", "memory of unknown use", 33),
}


def lines(found: Census, *, colour: bool = False) -> Iterator[str]:
    """Yield the bar, then a line for each kind."""
    yield bar(found, WIDTH, colour=colour)
    total = max(found.memory, 1)
    size = found.page_size
    for each in found.kinds:
        look = LOOKS[each.kind]
        pages = each.held + each.left_out
        mark = _painted(look.letter, look.colour, held=True) if colour else look.letter
        held = f"{human_bytes(each.held * size)} held" if each.held else ""
        left_out = f"{human_bytes(each.left_out * size)} left out" if each.left_out else ""
        yield (f"{mark} {look.words:<34}{human_bytes(pages * size):>11} {pages / total:>6.1%}   "
               f"{', '.join(filter(None, (held, left_out)))}")


def bar(found: Census, width: int, *, colour: bool = False) -> str:
    """Return the stacked bar: all memory in `width` columns, in the order of the kinds, what is held first."""
    pieces = [(LOOKS[each.kind], True, each.held) for each in found.kinds]
    pieces += [(LOOKS[each.kind], False, each.left_out) for each in found.kinds]
    pieces = [piece for piece in pieces if piece[2]]
    columns = shares([pages for _look, _held, pages in pieces], width)
    text = ""
    for (look, held, _pages), count in zip(pieces, columns, strict=True):
        letters = (look.letter if held else look.letter.lower()) * count
        text += _painted(letters, look.colour, held=held) if colour else letters
    return text


def shares(sizes: list[int], width: int) -> list[int]:
    """Divide `width` columns by size: at least one for each, so that nothing that is there is hidden."""
    total = sum(sizes)
    if not sizes or not total:
        return [0] * len(sizes)
    columns = [max(size * width // total, 1) for size in sizes]
    while sum(columns) != width and len(sizes) <= width:
        step = 1 if sum(columns) < width else -1
        # To the one that is farthest from its share.
        best = max((number for number in range(len(sizes)) if step > 0 or columns[number] > 1),
                   key=lambda number: step * (sizes[number] * width / total - columns[number]))
        columns[best] += step
    return columns


def _painted(text: str, colour: int, *, held: bool) -> str:
    style = f"48;5;{colour};38;5;16" if held else f"38;5;{colour}"
    return f"\033[{style}m{text}{_PLAIN}"
