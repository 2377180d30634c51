from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kdumpy.vm.reservation import STEP, Memory, bisect, rounded, safe

MIB = 1 << 20


def test_what_a_capture_took_says_what_is_safe() -> None:
    # A guest with Debian's 6.1 and 192M: works with 112M, and not with 96M.
    memory = Memory(reserved=192 * MIB, total=152 * MIB, least=71 * MIB, process=42 * MIB, image=10 * MIB,
                    unpacked=29 * MIB)
    assert memory.kernel == 40 * MIB
    assert memory.used == 81 * MIB
    assert memory.capturing == memory.need == 121 * MIB
    assert memory.unpacking == 108 * MIB
    assert safe(memory.need) == 160 * MIB


def test_a_large_image_needs_more_to_be_unpacked_than_to_capture() -> None:
    memory = Memory(reserved=512 * MIB, total=470 * MIB, least=300 * MIB, process=40 * MIB, image=40 * MIB,
                    unpacked=120 * MIB)
    assert memory.need == memory.unpacking == (42 + 40 + 240) * MIB


def test_sizes_are_rounded_up() -> None:
    assert rounded(1) == STEP
    assert rounded(STEP) == STEP
    assert safe(0) == STEP


@given(st.integers(1, 64), st.integers(0, 40), st.integers(-8, 8))
def test_bisection_finds_the_smallest_that_works(smallest: int, above: int, off: int) -> None:
    asked: list[int] = []

    def works(size: int) -> bool:
        assert size % STEP == 0
        assert size not in asked, "tried twice"
        asked.append(size)
        return size >= smallest * STEP

    largest = (smallest + above) * STEP
    assert bisect(works, largest, (smallest + off) * STEP) == smallest * STEP
    assert all(0 < size < largest for size in asked)
    # A right guess: that it works, and that the next smaller one does not.
    if off == 0:
        assert len(asked) <= 2
    assert len(asked) <= 9


def test_a_largest_size_that_is_no_multiple_stays_the_answer() -> None:
    assert bisect(lambda size: False, 100 * MIB, 90 * MIB) == 100 * MIB
