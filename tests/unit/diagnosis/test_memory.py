"""What an address means by its value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.diagnosis.memory import Meaning, index_meaning, meaning


@pytest.mark.parametrize(("address", "expected", "words"), [
    (0, Meaning.NULL, "NULL"),
    (0x18, Meaning.NULL, "offset"),
    (0x1008, Meaning.SMALL, "small number"),
    (0xFFFFFFFFFFFFFFF4, Meaning.ERROR, "ENOMEM"),
    (0x6B6B6B6B6B6B6B6B, Meaning.FREED, "POISON_FREE"),
    (0x6B6B6B6B6B6B6B7B, Meaning.FREED, "POISON_FREE"),
    (0x6B6B6B6B7A7A7A78, Meaning.FREED, "POISON_FREE"),         # an index was added
    (0x6B6B6B6B6B6B6AEB, Meaning.FREED, "POISON_FREE"),         # container_of() took an offset off
    (0xA56B6B6B6B6B6B6B, Meaning.FREED, "POISON_END"),          # the object's last member
    (0x6B6B6B73, Meaning.FREED, "POISON_FREE"),                 # 32 bits of it
    (0xCCCCCCCCCCCCCCD4, Meaning.NON_CANONICAL, "red zone beside an object"),
    (0xBBBBBBBBBBBBBBBB, Meaning.NON_CANONICAL, "red zone beside a free object"),
    (0x5A5A5A5A5A5A5A5A, Meaning.UNINITIALISED, "POISON_INUSE"),
    (0xDEAD000000000100, Meaning.LIST_POISON, "LIST_POISON1"),
    (0xDEAD000000000122, Meaning.LIST_POISON, "LIST_POISON2"),
    (0xDEAD000000000108, Meaning.LIST_POISON, "LIST_POISON1"),
    (0x7F0012345678, Meaning.USER, "process"),
    (0x656C2D746E656D65, Meaning.TEXT, "ement-le"),
    (0x0123456789ABCDEF, Meaning.NON_CANONICAL, "not canonical"),
    (0xFFFF888012345678, Meaning.KERNEL, ""),
    (0xFF48C6C2571CFCC0, Meaning.KERNEL, ""),
])
def test_meaning(address: int, expected: Meaning, words: str) -> None:
    meant = meaning(address)
    assert meant.meaning == expected
    assert words in meant.words


@pytest.mark.parametrize(("address", "levels", "expected", "words"), [
    (0x0123456789ABCDEF, 4, Meaning.NON_CANONICAL, "with four levels"),
    (0x0123456789ABCDEF, 5, Meaning.NON_CANONICAL, "with five levels"),
    (0x007003FED8E049B8, 5, Meaning.STRAY, "with five levels"),         # canonical there: a page fault, no #GP
    (0x007003FED8E049B8, 4, Meaning.NON_CANONICAL, "with four levels"),
    (0xFFA58B13026FD000, 4, Meaning.NON_CANONICAL, "0xffff8b13026fd000"),
    (0xFFA58B13026FD000, 5, Meaning.KERNEL, ""),
    (0xFFFF8B13026FD000, 4, Meaning.KERNEL, ""),
])
def test_what_is_canonical_depends_on_the_levels_of_page_tables(address: int, levels: int, expected: Meaning,
                                                                 words: str) -> None:
    meant = meaning(address, levels)
    assert meant.meaning == expected
    assert words in meant.words


@given(st.integers(0, (1 << 64) - 1))
def test_every_address_means_something(address: int) -> None:
    assert meaning(address).words


@pytest.mark.parametrize(("value", "words"), [
    (0x6B6B6B6B, "an index of 0x6b6b6b6b, times 1;"),
    (0x6B6B6B6B * 16, "an index of 0x6b6b6b6b, times 16; the kernel fills freed objects"),
    (0x6B6B6B6B * 72, "times 72;"),
    (0xAAAAAAAA * 8, "freed pages"),
])
def test_a_poison_that_was_used_as_an_index(value: int, words: str) -> None:
    meant = index_meaning(value)
    assert meant is not None
    assert meant.meaning == Meaning.FREED
    assert words in meant.words


@pytest.mark.parametrize("value", [0, 1, 0x6B6B6B6A, 0x6B6B6B6B * 16 + 8, 0x6B6B6B6B6B6B6B6B, 0xFFFF888012345678])
def test_a_usual_index(value: int) -> None:
    assert index_meaning(value) is None
