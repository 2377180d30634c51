"""`kmem`: what the memory was used for; all but `-i` is drgn's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.block import nr_blockdev_pages
from drgn.helpers.linux.hugetlb import hugetlb_total_usage
from drgn.helpers.linux.mm import totalram_pages, vm_commit_limit, vm_memory_committed
from drgn.helpers.linux.slab import slab_total_usage
from drgn.helpers.linux.swap import swap_total_usage, total_swapcache_pages
from drgn.helpers.linux.vmstat import global_node_page_state, nr_free_pages

from kdumpy.crash.command import Arg, Command, Options
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


class Kmem(Command[UsageRow]):
    """Show what the memory was used for.

    A line that the dump cannot tell says why; the others stand.

    Example:
        crash> kmem -i
                      PAGES     TOTAL  PERCENTAGE
           TOTAL MEM  102916   402.0 MB  ----
                FREE   89116   348.1 MB   87% of TOTAL MEM
    """

    names = ("kmem",)
    example = "kmem -i"
    row = UsageRow
    args = (
        Arg("-i", dest="info", action="store_true", help="free, used, cached, slab, huge pages, swap, committed"),
        *(Arg(name, engine=True, help=f"{words} (drgn)") for name, words in {
            "-f": "the lists of free pages", "-F": "every free page", "-c": "the page cache", "-v": "vmalloc's areas",
            "-V": "the counters of vmstat", "-n": "nodes and memory blocks", "-z": "zones", "-o": "per-CPU offsets",
            "-h": "huge pages", "-p": "every page", "-m": "members of every page", "-s": "slab caches",
            "-S": "slab caches with their slabs", "-g": "page flags in words", "-I": "leave out these caches"}.items()),
    )

    def for_engine(self, words: Sequence[str]) -> bool:
        """Everything but `-i` is drgn's: an address too."""
        return [word for word in words if word not in ("--json", "--help")] != ["-i"]

    def rows(self, session: Session, options: Options) -> Iterator[UsageRow]:
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
                percent = round(100 * pages / totals[of]) if totals.get(of) else 0
            yield UsageRow(name, pages, pages * page, percent, of, "")

    def render(self, rows: Iterable[UsageRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the uses out as crash does."""
        yield f"{'PAGES':>21}  {'TOTAL':>10}  {'PERCENTAGE':^20}".rstrip()
        for number, row in enumerate(rows):
            if number and not row.of:
                yield ""
            if row.pages is None:
                yield f"{row.name:>12}  ({row.problem})"
                continue
            share = f"{row.percent:>3}% of {row.of}" if row.of else "----"
            yield f"{row.name:>12} {row.pages:>8}  {_size(row.bytes or 0):>10}  {share}"


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return "0" if not size else f"{size} bytes"


COMMAND = Kmem()
