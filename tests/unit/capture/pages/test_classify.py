"""Struct pages of every layout from 5.4 to 7.2, made by hand: what they say, in one piece and in many."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from kdumpy.capture.kinds import Kind
from kdumpy.capture.pages.classify import NO_BLOCK, Block, classify
from kdumpy.capture.pages.layout import PageLayout
from struct_pages import HEAD, HWPOISON, STYLES, StructPages, Style

SINGLE = ("kernel", "cache", "mapped cache", "private", "swap cache of a file", "another use of the swap cache's bit",
          "anonymous", "anonymous, isolated", "merged", "movable", "poisoned", "poisoned, the kernel's", "slab",
          "table", "offline")
COMPOUND = ("kernel", "cache", "private", "anonymous", "slab", "hugetlb")


@pytest.fixture(params=STYLES, ids=lambda style: style.name)
def style(request: pytest.FixtureRequest) -> Style:
    chosen: Style = request.param
    return chosen


def made_up(style: Style, pages: int, seed: int) -> StructPages:
    """Return an array filled with blocks and pages of all kinds, by chance."""
    chance = random.Random(seed)
    made = StructPages(style, pages)
    at = 0
    while at < pages:
        order = chance.randrange(11)
        while at % (1 << order) or at + (1 << order) > pages:
            order -= 1
        what = chance.random()
        if what < 0.4:
            made.free(at, order)
        elif what < 0.6 and order:
            made.compound(at, order, chance.choice(COMPOUND))
        else:
            order = 0
            made.page(at, chance.choice(SINGLE))
        at += 1 << order
    return made


def in_pieces(made: StructPages, layout: PageLayout, first: int, each: int) -> tuple[NDArray[np.uint8], int]:
    """Classify `each` pages at a time, as a walk does; return kinds and the count of the impossible."""
    found, block, impossible = [], NO_BLOCK, 0
    for at in range(0, len(made.raw), each):
        kinds, block, wrong = classify(made.raw[at:at + each], layout, first + at, block)
        found.append(kinds)
        impossible += wrong
    return np.concatenate(found), impossible


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("each", [4096, 512, 16])
def test_every_kind_is_recognised_in_one_piece_and_in_many(style: Style, seed: int, each: int) -> None:
    made = made_up(style, 4096, seed)
    kinds, impossible = in_pieces(made, PageLayout.of(style.info), 1 << 20, each)
    wrong = np.flatnonzero(kinds != made.expected)
    assert not len(wrong), f"{wrong[0]}: {kinds[wrong[0]]} and not {made.expected[wrong[0]]}"
    assert impossible == 0


def test_a_block_of_the_largest_order_goes_on_over_many_arrays(style: Style) -> None:
    layout = PageLayout.of(style.info)
    made = StructPages(style, 4096)
    made.compound(0, 10, "hugetlb")
    made.raw[0:2].reshape(-1)[style.order] = 18
    made.words[1:, 1] |= np.uint64(1)
    kinds, block, _ = classify(made.raw, layout, 3 << 18, NO_BLOCK)
    assert (kinds == Kind.USER).all()
    assert block == Block(4 << 18, Kind.USER)
    tails = StructPages(style, 4096)
    tails.words[:, 1] = 2 ** 64 - 1
    kinds, after, impossible = classify(tails.raw, layout, (4 << 18) - 4096, block)
    assert (kinds == Kind.USER).all()
    assert impossible == 0
    assert after.stop <= 4 << 18
    kinds, _, _ = classify(StructPages(style, 4096).raw, layout, 4 << 18, after)
    assert (kinds == Kind.KERNEL).all()


def test_unaccepted_memory_is_a_block_of_the_largest_order() -> None:
    style = STYLES[-1]
    made = StructPages(style, 2048)
    made.counts[1024] = style.types["unaccepted"]
    kinds, _, impossible = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert (kinds[:1024] == Kind.KERNEL).all()
    assert (kinds[1024:] == Kind.UNACCEPTED).all()
    assert impossible == 0


def free_order_too_large(made: StructPages) -> None:
    made.free(64, 3)
    made.words[64, 5] = 11


def free_order_that_is_a_pointer(made: StructPages) -> None:
    made.free(64, 3)
    made.words[64, 5] = 0xffff888000000003


def free_block_not_aligned(made: StructPages) -> None:
    made.free(68, 3)


def compound_order_too_large(made: StructPages) -> None:
    made.compound(64, 3, "anonymous")
    made.raw[64:66].reshape(-1)[made.style.order] = 33


def compound_order_of_200(made: StructPages) -> None:
    made.compound(64, 3, "cache")
    made.raw[64:66].reshape(-1)[made.style.order] = 200


def compound_page_without_tails(made: StructPages) -> None:
    made.compound(64, 3, "anonymous")
    made.words[65, 1] = 0


def compound_page_not_aligned(made: StructPages) -> None:
    made.compound(68, 3, "anonymous")


@pytest.mark.parametrize("break_it", [free_order_too_large, free_order_that_is_a_pointer, free_block_not_aligned,
                                      compound_order_too_large, compound_order_of_200, compound_page_without_tails,
                                      compound_page_not_aligned])
def test_what_cannot_be_is_kept_and_counted(style: Style, break_it: Callable[[StructPages], None]) -> None:
    made = StructPages(style, 128)
    break_it(made)
    kinds, block, impossible = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert (kinds == Kind.KERNEL).all()
    assert block == NO_BLOCK
    assert impossible == 1


def test_an_order_that_grew_takes_no_page_in_use_along(style: Style) -> None:
    """A free block's order was overwritten with a larger one that still fits: pages in use lie in it."""
    made = StructPages(style, 128)
    made.free(64, 4)
    for at, use in ((66, "table"), (70, "mapped cache")):
        made.page(at, use)
    if made.counts[66] == 0xffffffff:
        made.counts[66] = 0
    kinds, _, impossible = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert kinds[66] == Kind.KERNEL
    assert kinds[70] == Kind.CACHE
    assert (kinds[[64, 65, 67, 68, 69, 79]] == Kind.FREE).all()
    assert impossible == 2


def test_a_compound_order_that_grew_takes_no_other_page_along(style: Style) -> None:
    made = StructPages(style, 128)
    made.compound(64, 2, "anonymous")
    made.raw[64:66].reshape(-1)[style.order] = 4
    kinds, _, impossible = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert (kinds[64:68] == Kind.USER).all()
    assert (kinds[68:] == Kind.KERNEL).all()
    assert impossible == 12


def test_a_block_within_a_block_is_not_believed(style: Style) -> None:
    """Marks of an earlier, smaller block that were left behind, some of them beyond the array."""
    made = StructPages(style, 128)
    made.free(64, 2)
    made.free(68, 1)
    made.free(64, 4)
    made.compound(96, 5, "anonymous")
    made.words[104, 0] |= np.uint64(HEAD)
    both = made.raw[104:106].reshape(-1)
    both[style.order] = 3
    kinds, block, impossible = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert np.array_equal(kinds, made.expected)
    assert (block, impossible) == (NO_BLOCK, 0)
    kinds, block, _ = classify(made.raw[:72], PageLayout.of(style.info), 0, NO_BLOCK)
    assert (kinds[64:] == Kind.FREE).all()
    assert block == Block(80, Kind.FREE)


def test_copies_of_a_huge_pages_head_are_part_of_it(style: Style) -> None:
    """With hugetlb_free_vmemmap every 64th struct page is the head's own memory, mapped again."""
    made = StructPages(style, 1024)
    made.compound(512, 9, "hugetlb")
    for at in range(576, 1024, 64):
        made.raw[at:at + 2] = made.raw[512:514]
    kinds, _, impossible = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert (kinds[512:] == Kind.USER).all()
    assert impossible == 0


def test_a_broken_page_within_a_block_is_left_out_alone(style: Style) -> None:
    made = StructPages(style, 128)
    made.compound(32, 3, "slab")
    made.compound(64, 3, "anonymous")
    made.free(96, 3)
    for at in (35, 64, 67, 99):
        made.words[at, 0] |= np.uint64(HWPOISON)
        made.expected[at] = Kind.HWPOISON
    kinds, _, _ = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert np.array_equal(kinds, made.expected)


def test_a_broken_huge_page_is_left_out_whole(style: Style) -> None:
    made = StructPages(style, 1024)
    made.compound(512, 9, "hugetlb")
    made.words[512, 0] |= np.uint64(HWPOISON)
    kinds, _, _ = classify(made.raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert (kinds[512:] == Kind.HWPOISON).all()


@pytest.mark.parametrize("byte", [0x00, 0xff])
def test_struct_pages_that_were_never_set_up_are_kept(style: Style, byte: int) -> None:
    """Memory added and never brought online; page_init_poison() fills with ones."""
    raw = np.full((256, 64), byte, np.uint8)
    kinds, block, impossible = classify(raw, PageLayout.of(style.info), 0, NO_BLOCK)
    assert (kinds == Kind.KERNEL).all()
    assert (block, impossible) == (NO_BLOCK, 0)
