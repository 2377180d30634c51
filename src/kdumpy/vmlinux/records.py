"""BTF as numpy arrays: what `debuginfo.btf` reads record by record, all records at once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kdumpy.debuginfo.btf import Btf, Kind
from kdumpy.errors import DamagedDump

Words = NDArray[np.int64]
"""32-bit words of BTF, type ids, places: widened so that sums of them cannot overflow."""

_HEAD = 3
"""Words of struct btf_type."""
_KIND_BITS, _VLEN_BITS = 0x7F, 0xFFFFFF
_DEEPEST = 64
"""Tags of one type, one behind the other: more is a loop."""
_TRANSPARENT = (Kind.TYPE_TAG, Kind.DECL_TAG, Kind.VAR, Kind.FUNC)
"""What DWARF 4 has no entry for, as a type: the type that it is put on stands for it."""


class Items:
    """What follows the records of some types: members, enumerators or parameters, all in one row."""

    def __init__(self, words: Words, tails: Words, counts: Words, width: int) -> None:
        """`tails` is where, in words, the items of each owner begin; each item is `width` words long."""
        self.counts = counts
        self.owner: Words = np.repeat(np.arange(len(counts)), counts)
        """Whose each item is: an index into `counts`."""
        self._first = np.cumsum(counts) - counts
        inside = np.arange(len(self.owner)) - np.repeat(self._first, counts)
        self._at = np.repeat(tails, counts) + width * inside
        self._words = words

    def __len__(self) -> int:
        return len(self.owner)

    def word(self, number: int) -> Words:
        """Return one word of every item."""
        found: Words = self._words[self._at + number]
        return found

    def lay_out(self, sizes: Words) -> tuple[Words, Words]:
        """Return how far each item lies behind its owner's first one, and how much all of an owner take."""
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        begin = ends[self._first]
        return ends[:-1] - begin[self.owner], ends[self._first + self.counts] - begin


class Records:
    """The records of one blob. An index is a type id less `first`; the kernel's index 0 is void.

    Raises:
        DamagedDump: tags follow each other in a circle, or a type refers to one that is not there.
    """

    def __init__(self, btf: Btf, base: Records | None = None) -> None:
        self.btf = btf
        self.base = base
        self.first = btf.first_id if base else 0
        self.words: Words = np.frombuffer(btf.type_section, "<u4").astype(np.int64)
        at = np.frombuffer(btf.index.records, np.dtype(btf.index.records.typecode)).astype(np.int64)
        before = np.zeros(0 if base else 1, np.int64)           # void
        self.tail: Words = np.concatenate([before, at + _HEAD])
        """Where, in words, what follows each record is."""
        self.name: Words = np.concatenate([before, self.words[at]])
        """Offset in the string table, the base's before this one's."""
        info = np.concatenate([before, self.words[at + 1]])
        self.target: Words = np.concatenate([before, self.words[at + 2]])
        """Size in bytes, or a type id."""
        self.kind: Words = info >> 24 & _KIND_BITS
        self.vlen: Words = info & _VLEN_BITS
        self.flag: NDArray[np.bool_] = info >> 31 != 0
        self.end = self.first + len(self.kind)
        """The first id behind this blob's."""
        self._stands = np.arange(self.first, self.end)
        self._resolve()

    def _resolve(self) -> None:
        tags = self.of(*_TRANSPARENT)
        self._stands[tags] = self.target[tags]
        for _ in range(_DEEPEST):
            onward = self.standing(self._stands[tags])
            if np.array_equal(onward, self._stands[tags]):
                break
            self._stands[tags] = onward
        if np.isin(self._stands[tags], tags + self.first).any():
            raise DamagedDump("BTF's tags follow each other in a circle")

    def standing(self, ids: Words) -> Words:
        """Return the types that stand for some type ids: tags are looked through."""
        if len(ids) and ids.max() >= self.end:
            raise DamagedDump("BTF refers to a type that it does not have", where=f"type id {ids.max()}")
        own = ids >= self.first
        found = ids.copy()
        found[own] = self._stands[ids[own] - self.first]
        if self.base and not own.all():
            found[~own] = self.base.standing(ids[~own])
        return found

    def of(self, *kinds: Kind) -> Words:
        """Return the indexes of the types of some kinds."""
        return np.flatnonzero(np.isin(self.kind, [int(kind) for kind in kinds]))

    def items(self, owners: Words, width: int) -> Items:
        """Return what follows the records of `owners`, `width` words an item."""
        return Items(self.words, self.tail[owners], self.vlen[owners], width)

    @cached_property
    def _odd_bits(self) -> Words:
        """Bits of every INT that has fewer than its bytes hold, else 0: a bit-field's type (before 5.0)."""
        bits = np.zeros(len(self.kind), np.int64)
        integers = self.of(Kind.INT)
        said = self.words[self.tail[integers]] & 0xFF
        bits[integers] = np.where(said < self.target[integers] * 8, said, 0)
        return bits

    def odd_bits(self, ids: Words) -> Words:
        """Return the width of bit-fields of some types, 0 for what is none."""
        own = ids >= self.first
        found = np.zeros_like(ids)
        found[own] = self._odd_bits[ids[own] - self.first]
        if self.base and not own.all():
            found[~own] = self.base.odd_bits(ids[~own])
        return found
