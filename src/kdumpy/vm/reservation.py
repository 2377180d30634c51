"""How much memory a capture needs: what a rehearsal measured, and the reservation that it makes safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STEP = 16 << 20
"""Reservations are whole multiples of it."""

MARGIN_SHARE = 10
"""Percent of the need that are put on top: a crash never finds the same memory twice."""

MARGIN = 16 << 20
"""Bytes that are put on top of that: the ladder's other steps, a sample every 0.1 s that misses a peak."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the capture kernel had, and used; in bytes."""

    reserved: int
    """crashkernel=."""
    total: int
    """MemTotal of the capture kernel: the rest is its own code, data and page tables."""
    least: int
    """The least MemAvailable while the capture ran."""
    process: int
    """The largest peak of a process: the capture program's."""
    image: int
    """The capture image, packed, as it lies in the reservation until it is unpacked."""
    unpacked: int
    """Its files."""

    @property
    def used(self) -> int:
        """Of MemTotal, at the peak."""
        return self.total - self.least

    @property
    def kernel(self) -> int:
        """What the kernel never gives to programs."""
        return self.reserved - self.total

    @property
    def capturing(self) -> int:
        """The reservation with which nothing would have been left at the peak of the capture."""
        return self.reserved - self.least

    @property
    def unpacking(self) -> int:
        """The reservation that unpacking the image takes: its files get at most half of what is there then."""
        return self.kernel + self.image + 2 * self.unpacked

    @property
    def need(self) -> int:
        """The larger of the two."""
        return max(self.capturing, self.unpacking)


def rounded(size: int) -> int:
    """Return a size rounded up to a whole STEP."""
    return -(-size // STEP) * STEP


def safe(need: int) -> int:
    """Return the reservation that makes a need safe: with the margin, rounded up."""
    return rounded(need + need * MARGIN_SHARE // 100 + MARGIN)


def bisect(works: Callable[[int], bool], largest: int, guess: int) -> int:
    """Return the smallest multiple of STEP with which a capture works, by trying.

    Args:
        works: tries a size in bytes; it is asked for multiples of STEP below `largest`.
        largest: a size that is known to work.
        guess: what it may be; a good one saves tries.
    """
    least, most = 0, largest // STEP if largest % STEP == 0 else largest // STEP + 1
    pivot = rounded(guess) // STEP
    first = True
    while most - least > 1:
        if not least < pivot < most:
            pivot = most - 1 if first else (least + most) // 2
        if works(pivot * STEP):
            most = pivot
            # A guess that holds is mostly the answer: the next smaller one shows it.
            pivot = most - 1 if first else (least + most) // 2
        else:
            least = pivot
            pivot = least + 1 if first else (least + most) // 2
        first = False
    return min(most * STEP, largest)
