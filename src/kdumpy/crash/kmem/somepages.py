"""The struct pages of some pages, wherever they lie: those of a file, or the one behind an address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from kdumpy.crash.kmem.pages import FlagNames, PageRow
from kdumpy.crash.memory.arrays import BATCH
from kdumpy.crash.memory.pages import PageArray, StructPages
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump

HEADER = "      PAGE       PHYSICAL      MAPPING       INDEX CNT FLAGS"


class SomePages:
    """Reads struct pages by their addresses."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pages = StructPages(session.prog, session.arrays)
        self.names = FlagNames(session.prog)
        self.base = int(session.prog["vmemmap"])

    def at(self, pfn: int) -> PageRow | None:
        """Return the page of a page frame number; None where its struct page is not in the dump."""
        return next(self.read([self.base + pfn * self.pages.size]), None)

    def read(self, addresses: Iterable[int]) -> Iterator[PageRow]:
        """Yield the pages whose struct pages lie at addresses, many read at a time; those not in the dump are left out.

        Raises:
            NotInDump: an address cannot be that of a struct page.
        """
        limit = self.session.kernel.dump.max_pfn
        rest_of = iter(addresses)
        while some := list(islice(rest_of, BATCH)):
            for address in some:
                pfn, rest = divmod(address - self.base, self.pages.size)
                if rest or not 0 <= pfn < limit:
                    raise NotInDump(f"{address:016x} is no struct page")
            places = np.array(some, np.uint64)
            raw, held = self.session.arrays.gather(places, self.pages.size)
            yield from self._rows(places[held], raw[held])

    def _rows(self, places: NDArray[np.uint64], raw: NDArray[np.uint8]) -> Iterator[PageRow]:
        found = PageArray(0, 0, np.ascontiguousarray(raw), np.ones(len(raw), np.bool_))

        def column(*members: str, size: int = 8) -> list[int]:
            values: list[int] = self.pages.column(found, self.pages.offset(*members), size, signed=size == 4).tolist()
            return values

        physical = (places - np.uint64(self.base)) // np.uint64(self.pages.size) \
            * np.uint64(self.session.arrays.page_size)
        for page, at, mapping, index, count, flags in zip(
                places.tolist(), physical.tolist(), column("mapping"), column("index", "__folio_index"),
                column("_refcount", "_count", size=4), column("flags"), strict=True):
            yield PageRow(page, at, mapping, index, count, flags, self.names(flags))


def line(page: PageRow) -> str:
    """Lay a page out as crash does."""
    return (f"{page.page:016x} {page.physical:8x} {page.mapping:16x} {page.index:8x} {page.count:2d} {page.flags:x} "
            f"{page.names}").rstrip()
