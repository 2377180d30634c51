"""The bar of pages by kind: every column accounted for, readable without colours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.capture.census import UNSORTED, Census, KindCount
from kdumpy.capture.kinds import Kind
from kdumpy.cli import kindbar

FOUND = Census(4096, (KindCount("kernel", 500, 0), KindCount("zero", 100, 0), KindCount("cache", 100, 100),
                      KindCount("user", 1, 0), KindCount("free", 0, 200)), "", True, 0)


def test_every_kind_has_a_look_of_its_own() -> None:
    names = {kind.name.lower() for kind in Kind} - {"not_memory"} | {"zero", UNSORTED}
    assert set(kindbar.LOOKS) == names
    assert len({look.letter for look in kindbar.LOOKS.values()}) == len(names)
    assert len({look.colour for name, look in kindbar.LOOKS.items() if name != UNSORTED}) == len(names) - 1


def test_capitals_are_held_and_small_letters_left_out() -> None:
    bar = kindbar.bar(FOUND, 100)
    assert re.fullmatch("K+Z+C+Uc+f+", bar)
    assert len(bar) == 100
    assert 48 <= bar.count("K") <= 50
    assert bar.count("U") == 1          # one page of a thousand is still seen


def test_the_table_has_bytes_and_percent() -> None:
    lines = list(kindbar.lines(FOUND))
    assert len(lines) == 1 + len(FOUND.kinds)
    cache = next(line for line in lines[1:] if line.startswith("C "))
    assert "800.0 KiB" in cache
    assert "20.0%" in cache
    assert "400.0 KiB held, 400.0 KiB left out" in cache
    assert all("\033" not in line for line in lines)


def test_colours_change_nothing_but_the_colours() -> None:
    plain, painted = list(kindbar.lines(FOUND)), list(kindbar.lines(FOUND, colour=True))
    assert any("\033[" in line for line in painted)
    assert [re.sub(r"\033\[[\d;]*m", "", line) for line in painted] == plain


@given(st.lists(st.integers(1, 1 << 40), max_size=18), st.integers(20, 120))
def test_columns_add_up_and_none_is_hidden(sizes: list[int], width: int) -> None:
    columns = kindbar.shares(sizes, width)
    assert len(columns) == len(sizes)
    if sizes:
        assert sum(columns) == width
        assert min(columns) >= 1
        biggest = max(range(len(sizes)), key=lambda number: sizes[number])
        assert columns[biggest] >= max(columns) - 1


@pytest.mark.parametrize("kinds", [(), (KindCount(UNSORTED, 10, 0),)])
def test_little_to_show(kinds: tuple[KindCount, ...]) -> None:
    found = Census(4096, kinds, "the layout is not known", False, 0)
    assert kindbar.bar(found, 10) == "M" * 10 * len(kinds)
    assert found.as_json()["not_judged"] == "the layout is not known"
