"""A dump with bytes of the kernel's memory changed: what a stray write leaves, or a list that was torn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drgn
import numpy as np

import kdumpy
from console import Console
from kdumpy.dumpfile.paging import KernelMemory


def member(value: drgn.Object) -> int:
    """Return the address of a member."""
    address = value.address_of_().value_()
    assert isinstance(address, int)
    return address


class Broken(Console):
    """A shell on a dump of its own, whose memory tests may change. The file is not touched."""

    def __init__(self, path: Path) -> None:
        super().__init__(kdumpy.open(path))
        self._changed: dict[int, bytes] = {}
        self._memory = KernelMemory(self.kernel.dump)
        dump: Any = self.kernel.dump
        self._page, self._pages = dump._page, dump.read_pages
        dump._page, dump.read_pages = self._read_page, self._read_pages

    def write(self, address: int, data: bytes) -> None:
        """Change the kernel's memory within a page."""
        physical = self._memory.translate(address)
        self._changed[physical] = data
        cache: Any = self.kernel.dump
        cache._cache.clear()
        # drgn reads these in place of the file: it asks libkdumpfile for virtual addresses too.
        for at, is_physical in ((physical, True), (address, False)):
            self.prog.add_memory_segment(at, len(data), lambda _at, count, offset, _: data[offset:offset + count],
                                         physical=is_physical)

    def write_word(self, address: int, value: int) -> None:
        self.write(address, (value % (1 << 64)).to_bytes(8, "little"))

    def close(self) -> None:
        self.kernel.close()

    def _patched(self, pfn: int, data: bytearray) -> bytes:
        size = self.kernel.dump.page_size
        for physical, changed in self._changed.items():
            if physical // size == pfn:
                data[physical % size:physical % size + len(changed)] = changed
        return bytes(data)

    def _read_page(self, pfn: int) -> bytes:
        return self._patched(pfn, bytearray(self._page(pfn)))

    def _read_pages(self, pfns: Any, missing: Any = "raise") -> Any:
        pages = self._pages(pfns, missing)
        for row, pfn in enumerate(np.asarray(pfns).tolist()):
            if any(physical // self.kernel.dump.page_size == pfn for physical in self._changed):
                pages[row] = np.frombuffer(self._patched(pfn, bytearray(pages[row].tobytes())), np.uint8)
        return pages
