"""`kmem -i`: what the memory was used for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.block import nr_blockdev_pages
from drgn.helpers.linux.hugetlb import hugetlb_total_usage
from drgn.helpers.linux.mm import totalram_pages, vm_commit_limit, vm_memory_committed
from drgn.helpers.linux.slab import slab_total_usage
from drgn.helpers.linux.swap import swap_total_usage, total_swapcache_pages
from drgn.helpers.linux.vmstat import global_node_page_state, nr_free_pages

from kdumpy.crash.command import Options
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump


@dataclass(frozen=True)
class UsageRow:
    """A use of memory."""

    name: str
    pages: int | None
    """None where the dump does not tell."""
    bytes: int | None
    percent: int | None
    """Of the total that the row belongs to; None for a total."""
    of: str
    """Name of that total, or empty."""
    problem: str
    """Why there is no number; empty when there is one."""


_COUNTS: tuple[tuple[str, str, Callable[[drgn.Program], int]], ...] = (
    ("TOTAL MEM", "", totalram_pages),
    ("FREE", "TOTAL MEM", nr_free_pages),
    ("USED", "TOTAL MEM", lambda prog: totalram_pages(prog) - nr_free_pages(prog)),
    ("BUFFERS", "TOTAL MEM", nr_blockdev_pages),
    ("CACHED", "TOTAL MEM", lambda prog: int(global_node_page_state(prog["NR_FILE_PAGES"]))
        - total_swapcache_pages(prog) - nr_blockdev_pages(prog)),
    ("SLAB", "TOTAL MEM", lambda prog: slab_total_usage(prog).total_pages),
    ("TOTAL HUGE", "", lambda prog: hugetlb_total_usage(prog).pages),
    ("HUGE FREE", "TOTAL HUGE", lambda prog: hugetlb_total_usage(prog).free_pages),
    ("TOTAL SWAP", "", lambda prog: swap_total_usage(prog).pages),
    ("SWAP USED", "TOTAL SWAP", lambda prog: swap_total_usage(prog).used_pages),
    ("SWAP FREE", "TOTAL SWAP", lambda prog: swap_total_usage(prog).free_pages),
    ("COMMIT LIMIT", "", vm_commit_limit),
    ("COMMITTED", "COMMIT LIMIT", vm_memory_committed),
)
"""Name, the total it is a part of, and how it is read (pages)."""


def rows(session: Session, options: Options) -> Iterator[UsageRow]:
    """Yield the uses, each total before its parts."""
    if session.kernel.debuginfo.types is None and not session.kernel.debuginfo.dwarf:
        raise NotInDump("the kernel's counters cannot be read")
    page = int(session.prog["PAGE_SIZE"])
    totals: dict[str, int] = {}
    for name, of, read in _COUNTS:
        try:
            pages = int(read(session.prog))
        except (LookupError, ValueError, AttributeError, TypeError, drgn.FaultError) as error:
            yield UsageRow(name, None, None, None, of, str(error).split("\n")[0])
            continue
        totals[name] = pages
        percent = None
        if of:
            percent = 100 * pages // totals[of] if totals.get(of) else 0      # crash rounds down
        yield UsageRow(name, pages, pages * page, percent, of, "")
        if name == "USED":
            yield _shared(session, totals.get("TOTAL MEM", 0), page)


def _shared(session: Session, total: int, page: int) -> UsageRow:
    from kdumpy.crash.kmem.pages import shared_pages

    shared = shared_pages(session)
    if shared is None:
        return UsageRow("SHARED", None, None, None, "TOTAL MEM", "the struct pages cannot be read")
    return UsageRow("SHARED", shared, shared * page, 100 * shared // total if total else 0, "TOTAL MEM", "")


def render(found: Iterable[UsageRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the uses out as crash does."""
    yield "                 PAGES        TOTAL      PERCENTAGE"
    for number, row in enumerate(found):
        if number and not row.of:
            yield ""
        if row.pages is None:
            yield f"{row.name:>13}  ({row.problem})"
            continue
        of = "TOTAL LIMIT" if row.of == "COMMIT LIMIT" else row.of      # as crash calls it
        share = f"{row.percent:>5}% of {of}" if row.of else "        ----"
        yield f"{row.name:>13} {row.pages:>8} {_size(row.bytes or 0):>12} {share}"


def _size(size: int) -> str:
    """Return a size as crash's pages_to_size() does: one digit behind the point, and no zero there."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}".replace(".0 ", " ")
    return "0" if not size else f"{size} bytes"
