"""Maple trees, a node read at once; a tree that leads back to one of its nodes ends with where.

Source: include/linux/maple_tree.h, lib/maple_tree.c (ma_data_end, mte_node_type), since Linux 6.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import drgn

from kdumpy.errors import DamagedDump

_LEAF, _RANGE, _ARANGE = 1, 2, 3
"""enum maple_type: maple_leaf_64, maple_range_64, maple_arange_64; the others are not in use on 64 bits."""
KINDS = {0: "maple_dense", _LEAF: "maple_leaf_64", _RANGE: "maple_range_64", _ARANGE: "maple_arange_64"}
_MASK = 0xFF
"""A node is aligned to 256 bytes; its type stands in bits 3 to 6 of the pointer to it."""
_ZERO = 1030
"""XA_ZERO_ENTRY: a place that is reserved."""
_DEEPEST = 31
"""MAPLE_HEIGHT_MAX."""
_LARGEST = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class MapleNode:
    """A node of a tree."""

    address: int
    kind: int
    """enum maple_type."""
    first: int
    last: int
    """The indices that it is about, the last one included."""
    path: tuple[int, ...]
    """The slots that lead to it from the root."""
    parent: int
    pivots: tuple[int, ...]
    slots: tuple[int, ...]
    gaps: tuple[int, ...]
    """Empty but for maple_arange_64."""
    end: int
    """The last slot in use."""
    widest: int
    """The slot with the widest gap, of maple_arange_64."""

    @property
    def leaf(self) -> bool:
        """Whether its slots are entries and not nodes."""
        return self.kind <= _LEAF

    def extents(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (slot, first index, last index, what the slot holds) of every slot in use."""
        first = self.first
        for number in range(self.end + 1):
            last = self.pivots[number] if number < min(self.end, len(self.pivots)) else self.last
            yield number, first, last, self.slots[number]
            first = last + 1


class _Layout(NamedTuple):
    """Where the parts of a node lie, in bytes and elements."""

    pivot: tuple[int, int]
    slot: tuple[int, int]
    gap: tuple[int, int]
    end: int
    size: int


def is_node(entry: int) -> bool:
    """Whether the root of a tree leads to a node, and is no entry itself (xa_is_node)."""
    return entry & 3 == 2 and entry > 4096


def nodes(prog: drgn.Program, root: int) -> Iterator[MapleNode]:
    """Yield the nodes below the entry `root`, each before those below it, in the order of their indices.

    Raises:
        DamagedDump: a node is none, or stands in the tree twice.
        drgn.FaultError: one is not in the dump.
    """
    waiting: list[tuple[int, int, int, tuple[int, ...]]] = [(root, 0, _LARGEST, ())] if is_node(root) else []
    seen: set[int] = set()
    while waiting:
        entry, first, last, path = waiting.pop()
        node = _read(prog, entry, first, last, path)
        if node.address in seen or len(path) > _DEEPEST:
            raise DamagedDump("a maple tree leads back to a node it has had", where=f"address {node.address:016x}",
                              why=f"after {len(seen)} nodes")
        seen.add(node.address)
        yield node
        if not node.leaf:
            waiting += [(child, low, high, (*path, number))
                        for number, low, high, child in reversed(list(node.extents())) if child]


def mt_for_each(mt: drgn.Object, *, advanced: bool = False) -> Iterator[tuple[int, int, drgn.Object]]:
    """Yield (first index, last index, entry) as drgn's helper of this name does."""
    prog, root = mt.prog_, mt.ma_root.value_()
    if not is_node(root):
        if root:
            yield 0, 0, mt.ma_root.read_()
        return
    for node in nodes(prog, root):
        if node.leaf:
            for _, first, last, entry in node.extents():
                if entry and (advanced or entry != _ZERO):
                    yield first, last, drgn.Object(prog, "void *", entry)


def mtree_load(mt: drgn.Object, index: int, *, advanced: bool = False) -> drgn.Object:
    """Return the entry at an index, or NULL, as drgn's helper of this name does.

    Raises:
        DamagedDump: the way to it is deeper than any tree.
    """
    prog, entry, index = mt.prog_, mt.ma_root.value_(), int(index)
    if not is_node(entry):
        return drgn.Object(prog, "void *", entry if index == 0 else 0)
    first, last = 0, _LARGEST
    for _ in range(_DEEPEST + 1):
        node = _read(prog, entry, first, last, ())
        _, first, last, entry = next((extent for extent in node.extents() if extent[2] >= index),
                                     (0, 0, 0, 0))
        if node.leaf or not entry:
            return drgn.Object(prog, "void *", 0 if entry == _ZERO and not advanced else entry)
    raise DamagedDump("a maple tree is deeper than any can be", where=f"address {entry & ~_MASK:016x}")


def _read(prog: drgn.Program, entry: int, first: int, last: int, path: tuple[int, ...]) -> MapleNode:
    address, kind = entry & ~_MASK, entry >> 3 & 0xF
    if kind not in (_LEAF, _RANGE, _ARANGE):
        raise DamagedDump(f"a maple node of type {kind} is none", where=f"address {address:016x}")
    layout = _layout(prog, kind)
    data = prog.read(address, layout.size)
    (parent, *pivots), slots, gaps = (
        struct.unpack_from(f"<{count}Q", data, at)
        for at, count in ((0, 1 + layout.pivot[1]), layout.slot, layout.gap))
    if kind == _ARANGE or not pivots[-1]:
        end = min(data[layout.end], len(slots) - 1)
    else:
        end = len(pivots) - (pivots[-1] == last)
    return MapleNode(address, kind, first, last, path, parent, tuple(pivots), slots, gaps,
                     min(end, len(slots) - 1), data[layout.end + 1] if kind == _ARANGE else 0)


def _layout(prog: drgn.Program, kind: int) -> _Layout:
    name = "struct maple_arange_64" if kind == _ARANGE else "struct maple_range_64"
    known = prog.cache.setdefault("kdumpy maple layouts", {})
    if name not in known:
        made = prog.type(name)
        pivot, place = _array(made, "pivot"), _array(made, "slot")
        gap = _array(made, "gap") if kind == _ARANGE else (0, 0)
        known[name] = _Layout(pivot, place, gap, drgn.offsetof(made, "meta.end"), made.size or 0)
    found: _Layout = known[name]
    return found


def _array(made: drgn.Type, member: str) -> tuple[int, int]:
    return drgn.offsetof(made, member), made.member(member).type.length or 0
