"""`swap`: the swap devices and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.swap import for_each_swap_info, swap_file_path, swap_is_file, swap_usage_in_pages

from kdumpy.crash.command import Command, Options
from kdumpy.crash.session import Session
from kdumpy.crash.unread import Unread
from kdumpy.debuginfo.reading import READ_ERRORS


@dataclass(frozen=True)
class SwapRow:
    """A swap device or file."""

    info: int
    """Address of its struct swap_info_struct."""
    type: str
    """FILE or PARTITION."""
    size_kb: int
    used_kb: int
    priority: int
    name: str


class Swap(Command[SwapRow]):
    """List the swap devices and files.

    Example:
        crash> swap
        SWAP_INFO_STRUCT    TYPE       SIZE       USED     PCT  PRI  FILENAME
        ff26bcbce7e22a00    FILE       2040k       0k       0%   -2  /data/swap
    """

    names = ("swap",)
    example = "swap"
    row = SwapRow

    def rows(self, session: Session, options: Options) -> Iterator[SwapRow]:
        """Yield the swaps in use."""
        page_kb = int(session.prog["PAGE_SIZE"]) // 1024
        unread = Unread("swaps")

        def row_of(info: drgn.Object) -> SwapRow:
            return SwapRow(info.value_(), "FILE" if swap_is_file(info) else "PARTITION", info.pages.value_() * page_kb,
                           swap_usage_in_pages(info) * page_kb, info.prio.value_(),
                           _path(info, unread))

        yield from unread.rows(for_each_swap_info(session.prog), row_of)
        unread.tell()

    def render(self, rows: Iterable[SwapRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the swaps out as crash does."""
        for number, row in enumerate(rows):
            if not number:
                yield "SWAP_INFO_STRUCT    TYPE       SIZE       USED     PCT  PRI  FILENAME"
            percent = 100 * row.used_kb // row.size_kb if row.size_kb else 0
            yield (f"{row.info:016x}  {row.type:^9} {f'{row.size_kb}k':>8} {f'{row.used_kb}k':>8} {percent:>7}% "
                   f"{row.priority:>4}  {row.name}")


def _path(info: drgn.Object, unread: Unread) -> str:
    try:
        return swap_file_path(info).decode("utf-8", "backslashreplace")
    except READ_ERRORS as error:
        unread.lost(f"the name of {info.value_():016x}", error)
        return "?"


COMMAND = Swap()
