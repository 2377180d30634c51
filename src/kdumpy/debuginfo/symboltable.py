"""A kernel's symbols as arrays: what a name or an address is looked up in, and what is kept from one dump to the next.

drgn's own index of 100,000 symbols takes 0.05 s to make each time; these arrays are read from a file in a millisecond.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from operator import add, attrgetter, gt
from zlib import crc32

from drgn import Program, Symbol, SymbolBinding, SymbolKind

KERNEL_HALF = 1 << 63
"""Where the kernel's addresses begin; what a symbol has below it is an offset, of a per-CPU variable."""
BOUNDARY = re.compile(r"(__\w+_text_(start|end)|_sinittext)$")
"""Marks of the linker (include/asm-generic/vmlinux.lds.h), at the address of the first function behind them."""
MOST_SYMBOLS = 4_000_000
"""A kernel has about 200,000; a count beyond this comes out of a damaged page."""
_MARK = re.compile(BOUNDARY.pattern.encode())
_HEAD = struct.Struct("<QQ")
"""In front of the arrays: how many symbols, and bytes of names."""
_WORD = 1 << 64
_BINDINGS = {binding.value: binding for binding in SymbolBinding}
_KINDS = {kind.value: kind for kind in SymbolKind}
_OBJECT = SymbolKind.OBJECT.value


class SymbolTable:
    """A drgn symbol finder over symbols of which no two overlap.

    Args:
        packed: what `pack` made.
        shift: how much higher the kernel lies than where it lay then (KASLR).
    """

    def __init__(self, packed: bytes | memoryview, shift: int = 0) -> None:
        self._shift = shift
        count, size = _HEAD.unpack_from(packed)
        ends = list(accumulate((_HEAD.size, 8 * count, 8 * count, 4 * count + 4, 4 * count, 4 * count, count)))
        part = [memoryview(packed)[start:end] for start, end in pairwise(ends)]
        self._addresses, self._sizes = part[0].cast("Q"), part[1].cast("Q")
        self._starts = part[2].cast("I")
        """Where each name begins, and where the last one ends."""
        self._hashes, self._hashed = part[3].cast("I"), part[4].cast("I")
        """CRC-32 of each name, rising, and whose it is."""
        self._kinds = part[5]
        self._names = memoryview(packed)[ends[-1]:]
        if len(self._names) != size or self._starts[count] != size:
            raise ValueError("its parts have other lengths than it says")
        self._low = bisect_left(self._addresses, KERNEL_HALF)
        """How many have no address in the kernel's half."""

    def __len__(self) -> int:
        return len(self._addresses)

    def __call__(self, prog: Program, name: str | None, address: int | None, one: bool) -> Sequence[Symbol]:
        """Find symbols by name, by address, or all: drgn's protocol of symbol finders."""
        if name is not None:
            return self._named(name, address, one)
        if address is not None:
            return self._at(address)
        return [self._symbol(place) for place in range(len(self))]

    def _named(self, name: str, address: int | None, one: bool) -> list[Symbol]:
        wanted = name.encode()
        number = crc32(wanted)
        found = []
        for place in range(bisect_left(self._hashes, number), len(self)):
            if self._hashes[place] != number:
                break
            at = self._hashed[place]
            if self._names[self._starts[at]:self._starts[at + 1]] == wanted:
                symbol = self._symbol(at)
                if address is None or symbol.address <= address < symbol.address + symbol.size:
                    found.append(symbol)
                    if one:
                        break
        return found

    def _at(self, address: int) -> list[Symbol]:
        there = address - self._shift if address >= KERNEL_HALF else address
        place = bisect_right(self._addresses, there) - 1
        if place < 0 or there >= self._addresses[place] + self._sizes[place]:
            return []
        return [self._symbol(place)]

    def _symbol(self, place: int) -> Symbol:
        address, kind = self._addresses[place], self._kinds[place]
        if place >= self._low:
            address = (address + self._shift) % _WORD
        name = str(self._names[self._starts[place]:self._starts[place + 1]], "utf-8")
        return Symbol(name, address, self._sizes[place], _BINDINGS[kind >> 4], _KINDS[kind & 15])


def pack(symbols: Iterable[Symbol]) -> bytes:
    """Return what a `SymbolTable` is made of; takes 0.1 s for 100,000 symbols.

    kallsyms knows no sizes: a symbol reaches to the next one. drgn keeps that distance in 16 bits, so that data of
    64 KiB and more (rcu_state, __log_buf, __per_cpu_offset) have none there; and of names at one address it gives it
    to the last one, be that a mark of the linker. Both are put right here. Functions are never so long: what follows
    an end of the text is none.

    Raises:
        ValueError: two symbols overlap, or a name is no UTF-8.
    """
    ordered = sorted(symbols, key=attrgetter("address"))
    addresses = [symbol.address for symbol in ordered]
    sizes = [symbol.size for symbol in ordered]
    if any(map(gt, map(add, addresses, sizes), addresses[1:])):
        raise ValueError("two symbols overlap")
    names = [symbol.name.encode() for symbol in ordered]
    kinds = [symbol.binding._value_ << 4 | symbol.kind._value_ for symbol in ordered]

    def hold(place: int, holder: int) -> None:
        """Let another symbol of the same address be the last, which is the one that holds it."""
        for column in (names, kinds):
            column.insert(place, column.pop(holder))

    image = range(*(addresses[names.index(name)] if name in names else 0 for name in (b"_text", b"_end")))
    for place in [place for place, size in enumerate(sizes) if not size]:
        first = bisect_left(addresses, addresses[place])
        if kinds[first] & 15 == _OBJECT and addresses[place] in image and addresses[place + 1] > addresses[place]:
            sizes[place] = addresses[place + 1] - addresses[place]
            hold(place, first)
    for place in [place for place, name in enumerate(names) if sizes[place] and _MARK.match(name)]:
        first = bisect_left(addresses, addresses[place])
        others = [other for other in range(first, place) if not _MARK.match(names[other])]
        if others:
            hold(place, others[0])
    blob = b"".join(names)
    hashes = list(map(crc32, names))
    hashed = sorted(range(len(names)), key=hashes.__getitem__)
    columns = (array("Q", addresses), array("Q", sizes), array("I", accumulate(map(len, names), initial=0)),
               array("I", [hashes[place] for place in hashed]), array("I", hashed), array("B", kinds))
    return b"".join((_HEAD.pack(len(names), len(blob)), *(column.tobytes() for column in columns), blob))
