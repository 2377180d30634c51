"""The kernel's linked lists, followed to where they end or break, and there from the other end.

What is given can be read: a pointer that leads nowhere is told, and not handed on. A list that breaks off at one
entry is followed from its end backwards, so that one changed pointer takes no entry at all. Source:
include/linux/types.h, struct list_head (next, prev) and struct hlist_node (next, pprev).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import drgn

from kdumpy.errors import DamagedDump

_LINK = struct.Struct("<QQ")
_MOST = 1 << 22
"""Entries that are read from the end of a list."""
_MOST_DOUBTS = 8
"""Entries that do not lead back to the one before them, for which it is looked whether they came before."""


class _Kind(NamedTuple):
    """How a kind of list is followed."""

    ahead: int
    """Which of the two words leads on."""
    circular: bool
    """It ends at its head, and can be followed from there the other way round; else it ends at NULL."""


_FORWARDS, _BACKWARDS, _HASHED = _Kind(0, True), _Kind(1, True), _Kind(0, False)


def list_entries(prog: drgn.Program, head: int, *, reverse: bool = False) -> Iterator[int]:
    """Yield the address of each `struct list_head` on the list of a head.

    Raises:
        drgn.FaultError: the head is not in the dump.
        DamagedDump: behind all that can be read, where the list breaks off or runs in a circle.
    """
    return _follow(prog, head, _BACKWARDS if reverse else _FORWARDS)


def hlist_entries(prog: drgn.Program, head: int) -> Iterator[int]:
    """Yield the address of each `struct hlist_node` on the list of a `struct hlist_head`.

    Raises:
        drgn.FaultError: the head is not in the dump.
        DamagedDump: behind what can be read, where the list breaks off or runs in a circle.
    """
    return _follow(prog, head, _HASHED)


def chain(first: drgn.Object, member: str) -> Iterator[drgn.Object]:
    """Yield the structures that pointers to each other lead to, each of which can be read.

    Args:
        first: a pointer to the first, or NULL.
        member: what points to the next.

    Raises:
        DamagedDump: behind what can be read, where the chain breaks off or runs in a circle.
    """
    seen: set[int] = set()
    before, entry = first.address_ or 0, first.read_()
    while entry:
        address = entry.value_()
        try:
            following = entry.member_(member).read_()
        except drgn.FaultError:
            raise broken(first.address_ or 0, first.prog_, len(seen), before, address, "is not in the dump") from None
        if address in seen or len(seen) >= _MOST:
            raise broken(first.address_ or 0, first.prog_, len(seen), before, address, "came before", circle=True)
        seen.add(address)
        yield entry
        before, entry = address, following


def _follow(prog: drgn.Program, head: int, kind: _Kind) -> Iterator[int]:
    ahead = kind.ahead
    end = head if kind.circular else 0
    before, entry = head, _links(prog, head)[ahead] if kind.circular else prog.read_u64(head)
    count, doubts = 0, set[int]()
    mark, steps, limit = 0, 0, 1            # Brent's algorithm, where nothing else finds a circle
    while entry != end:
        try:
            links = _links(prog, entry)
        except drgn.FaultError:
            circle = False
            break
        circle = entry == mark or entry in doubts
        if links[1 - ahead] != before and not circle and len(doubts) < _MOST_DOUBTS:
            doubts.add(entry)
            circle = _came_before(prog, head, kind, entry, count)
        if circle:
            break
        steps += 1
        if steps == limit:
            mark, steps, limit = entry, 0, limit * 2
        count += 1
        yield entry
        before, entry = entry, links[ahead]
    else:
        return
    rest = _from_the_end(prog, head, kind, before) if kind.circular else []
    yield from reversed(rest)
    raise broken(head, prog, count, before, entry, "came before" if circle else "is not in the dump",
                 rest=len(rest), circle=circle)


def _links(prog: drgn.Program, address: int) -> tuple[int, int]:
    first, second = _LINK.unpack(prog.read(address, 16))
    return first, second


def _came_before(prog: drgn.Program, head: int, kind: _Kind, wanted: int, count: int) -> bool:
    """Whether an entry is the head's or one of the first `count`, which have been read."""
    entry = _links(prog, head)[kind.ahead] if kind.circular else prog.read_u64(head)
    for _ in range(count):
        if entry == wanted:
            return True
        entry = _links(prog, entry)[kind.ahead]
    return False


def _from_the_end(prog: drgn.Program, head: int, kind: _Kind, last: int) -> list[int]:
    """Return the entries from the end of a list up to the one that leads nowhere, or to another break.

    Each has to lead to the one it was reached from, so that this cannot run in a circle.
    """
    found: list[int] = []
    try:
        after, entry = head, _links(prog, head)[1 - kind.ahead]
        while entry not in (last, head) and len(found) < _MOST:
            links = _links(prog, entry)
            if links[kind.ahead] != after:
                break
            found.append(entry)
            after, entry = entry, links[1 - kind.ahead]
    except drgn.FaultError:
        pass
    return found


def broken(head: int, prog: drgn.Program, count: int, before: int, entry: int, what: str, *, rest: int = 0,
           circle: bool = False) -> DamagedDump:
    """Return the error of a list that breaks off: which list, after which entry, how many were read."""
    place = "its head" if before == head or not before else f"entry {count}, {before:016x},"
    more = f"; {rest} more were read from its end" if rest else ""
    return DamagedDump("a list runs in a circle" if circle else "a list breaks off", where=_named(prog, head),
                       why=f"{place} leads to {entry:016x}, which {what}; {count} "
                           f"entr{'y was' if count == 1 else 'ies were'} read{more}")


def _named(prog: drgn.Program, head: int) -> str:
    if not head:
        return ""
    try:
        symbol = prog.symbol(head)
    except LookupError:
        return f"list at {head:016x}"
    offset = f"+{head - symbol.address}" if head != symbol.address else ""
    return f"list {symbol.name}{offset}"
