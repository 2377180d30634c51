"""`kmem -h`: the pools of huge pages.

Source: mm/hugetlb.c, struct hstate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from drgn.helpers.linux.hugetlb import for_each_hstate, huge_page_size

from kdumpy.crash.command import Options
from kdumpy.crash.failures import explain
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump

_MOST = 64
"""Sizes; arm64 with 4 KiB pages has four (HUGE_MAX_HSTATE)."""


@dataclass(frozen=True)
class HugeRow:
    """A size of huge pages."""

    hstate: int
    """Address of its struct hstate."""
    size: int
    """Bytes of one page."""
    free: int
    """Pages."""
    total: int
    reserved: int
    """Free pages that are promised."""
    surplus: int
    """Pages beyond the pool's own size."""
    name: str


def rows(session: Session, options: Options) -> Iterator[HugeRow]:
    """Yield the sizes that the kernel has pools of.

    Raises:
        DamagedDump: a pool cannot be read; said behind those in front of it.
    """
    for number, state in enumerate(for_each_hstate(session.prog)):
        if number >= _MOST:
            raise DamagedDump(f"cut after {number} sizes of huge pages", where="hstates")
        try:
            yield HugeRow(state.value_(), int(huge_page_size(state)), state.free_huge_pages.value_(),
                          state.nr_huge_pages.value_(), state.resv_huge_pages.value_(),
                          state.surplus_huge_pages.value_(), state.name.string_().decode("utf-8", "backslashreplace"))
        except READ_ERRORS as error:
            raise DamagedDump(f"pool {number} of huge pages cannot be read", why=str(explain(error))) from None


def render(found: Iterable[HugeRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the pools out as crash does."""
    yield f"{'HSTATE':^16}   SIZE    FREE   TOTAL  NAME"
    for row in found:
        yield f"{row.hstate:016x}  {_size(row.size):>5}  {row.free:>6}  {row.total:>6}  {row.name}"


def _size(size: int) -> str:
    for shift, unit in ((30, "GB"), (20, "MB"), (10, "KB")):
        if size >> shift:
            return f"{size >> shift}{unit}"
    return str(size)
