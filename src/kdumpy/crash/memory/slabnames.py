"""Which slab cache an address lies in: by its struct page, for a few addresses; `Slabs` reads all struct pages."""

from __future__ import annotations

from functools import cached_property

import drgn
from drgn.helpers.linux.mm import PageSlab, compound_head, page_to_virt, phys_to_virt, virt_to_page
from drgn.helpers.linux.slab import for_each_slab_cache

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.paging import kernel_page_size
from kdumpy.errors import DamagedDump

_MOST_CACHES = 1 << 16
_KEPT = 1 << 16
"""Pages that are remembered: words of a stack or a structure point into the same ones again and again."""


class SlabNames:
    """Names the slab caches of one dump."""

    def __init__(self, prog: drgn.Program, dump: Dump) -> None:
        self.prog = prog
        self._page = kernel_page_size(dump)
        self._start = int(phys_to_virt(prog, 0))
        self._end = self._start + dump.max_pfn * dump.page_size
        try:
            self._type = prog.type("struct slab *")     # "mm: Split slab into its own type" (d122019bf061, 5.17)
        except LookupError:
            self._type = prog.type("struct page *")
        self._known: dict[int, str] = {}

    @cached_property
    def _caches(self) -> dict[int, str]:
        """Names by address.

        Raises:
            DamagedDump, drgn.FaultError: the list of caches does not lead to its end.
        """
        found: dict[int, str] = {}
        for cache in for_each_slab_cache(self.prog):
            found[cache.value_()] = cache.name.string_().decode("utf-8", "backslashreplace")
            if len(found) > _MOST_CACHES:
                raise DamagedDump("the list of slab caches has no end", where=f"address {cache.value_():#x}")
        return found

    def of(self, address: int) -> str:
        """Return the name of the cache in one of whose slabs an address lies; empty where there is none.

        Raises:
            READ_ERRORS: it cannot be told of any address.
        """
        if not self._start <= address < self._end:
            return ""
        page = address // self._page
        name = self._known.get(page)
        if name is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            name = self._known[page] = self._read(address)
        return name

    def begin(self, address: int) -> int | None:
        """Return where the object begins that an address of a slab lies in; None between objects.

        Raises:
            READ_ERRORS: its slab or the cache cannot be read.
        """
        page = compound_head(virt_to_page(self.prog, address))
        cache = drgn.cast(self._type, page).slab_cache
        size, first = cache.size.value_(), page_to_virt(page).value_()
        if cache.type_.type.has_member("red_left_pad"):
            first += cache.red_left_pad.value_()
        if size <= 0 or address < first:
            return None
        offset: int = (address - first) % size
        return address - offset if offset < cache.object_size.value_() else None

    def _read(self, address: int) -> str:
        caches = self._caches
        try:
            page = compound_head(virt_to_page(self.prog, address))
            if not PageSlab(page):
                return ""
            return caches.get(drgn.cast(self._type, page).slab_cache.value_(), "")
        except drgn.FaultError:         # a hole in the memory
            return ""
