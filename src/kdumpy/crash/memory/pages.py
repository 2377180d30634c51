"""The kernel's struct pages, as arrays: addresses, flags, counts of a few thousand pages at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import drgn
import numpy as np
from drgn.helpers.linux.mm import for_each_valid_page_range
from numpy.typing import NDArray

from kdumpy.crash.memory.arrays import Arrays
from kdumpy.crash.memory.bits import page_struct_size
from kdumpy.errors import NotInDump

_PAGES = 32768
"""Struct pages read together: 2 MiB of them."""


@dataclass(frozen=True)
class PageArray:
    """Some struct pages that follow each other."""

    first: int
    """Page frame number of the first."""
    address: int
    """Virtual address of its struct page."""
    raw: NDArray[np.uint8]
    """Shape (n, size of struct page)."""
    held: NDArray[np.bool_]
    """Which of them the dump holds."""


class Stretch(NamedTuple):
    """Where some struct pages lie that follow each other."""

    first: int
    """Page frame number of the first."""
    length: int
    address: int
    """Virtual address of the first."""


class StructPages:
    """Where the members of this kernel's struct page lie, and all of them in order."""

    def __init__(self, prog: drgn.Program, arrays: Arrays) -> None:
        self.prog = prog
        self.arrays = arrays
        self.type = prog.type("struct page")
        self.size = page_struct_size(prog)

    def offset(self, *names: str) -> int:
        """Return the byte offset of the first of these members that the kernel has.

        Raises:
            NotInDump: it has none of them.
        """
        for name in names:
            try:
                return int(drgn.offsetof(self.type, name))
            except LookupError:
                continue
        raise NotInDump(f"struct page has no member {names[0]!r}")

    def member(self, name: str) -> tuple[int, drgn.Type]:
        """Return the byte offset and the type of a member.

        Raises:
            NotInDump: there is none of that name.
        """
        try:
            value = drgn.Object(self.prog, self.type, address=0).subobject_(name)
            return int(drgn.offsetof(self.type, name)), value.type_
        except LookupError:
            raise NotInDump(f"struct page has no member {name!r}") from None

    def walk(self) -> Iterator[PageArray]:
        """Yield the struct pages of all memory of the machine."""
        for stretch in self.stretches():
            self.arrays.alive()
            yield self.read(stretch)

    def stretches(self, start: int = 0, stop: int | None = None) -> Iterator[Stretch]:
        """Yield where the struct pages of all memory in pfns [start, stop) lie, some thousands at a time."""
        for low, high, mem_map in for_each_valid_page_range(self.prog):
            base = mem_map.value_()         # the address that the struct page of pfn 0 would have
            low, high = max(low, start), high if stop is None else min(high, stop)
            for first in range(low, high, _PAGES):
                yield Stretch(first, min(_PAGES, high - first), base + first * self.size)

    def read(self, stretch: Stretch) -> PageArray:
        """Return the struct pages of a stretch."""
        first, count, address = stretch
        data, lost = self.arrays.read(address, count * self.size)
        held = np.ones(count, np.bool_)
        for low, high in lost:
            held[low // self.size:-(-high // self.size)] = False
        return PageArray(first, address, data.reshape(count, self.size), held)

    def column(self, pages: PageArray, offset: int, size: int = 8, *, signed: bool = False) -> NDArray[np.generic]:
        """Return one member of all, shape (n,)."""
        kind = np.dtype(f"<{'i' if signed else 'u'}{size}")
        return np.ascontiguousarray(pages.raw[:, offset:offset + size]).view(kind).reshape(-1)
