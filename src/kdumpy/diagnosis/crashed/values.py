"""Where a register's value came from, as a value: an argument, a load, a call's answer, and offsets of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """What a register held when the function was entered."""

    register: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, or the address of a variable."""

    number: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What a call returned."""

    pc: int
    """Address of the call."""
    target: int
    """Address of the function that was called; 0 where it was called through a register."""


@dataclass(frozen=True, slots=True)
class PerCpu:
    """What lies at an offset of this CPU's own memory (segment gs)."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Plus:
    """Another value and a number of bytes."""

    base: Value
    offset: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What memory held."""

    base: Value
    """The pointer; `offset` bytes behind it the value was."""
    offset: int
    size: int
    """Bytes."""
    scale: int
    """Bytes of an element, where an index was added that is not followed; 0 where there was none."""
    pc: int
    """Address of the instruction that loaded it."""
    index: Value | None = None
    """The index that was added, where it is known; it makes no address, but tells what the value depends on."""


@dataclass(frozen=True, slots=True)
class Met:
    """What a register held where paths met that bring different values, as a loop's begin: whatever it was, that.

    It is the value of the last time: what was kept from an earlier turn of a loop is known as something else.
    """

    register: str
    pc: int
    """Where the paths meet."""
    offset: int = 0
    """Bytes that every path had added to a pointer, as container_of() does: before them, it was what the pointer is."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was computed of other values: shifted, masked, multiplied, summed. Not what it was, but of what."""

    parts: frozenset[Value]
    """None of them is one that was made itself: its own parts stand here."""
    pc: int
    """Address of the instruction that computed it."""


Value = Argument | Constant | Returned | PerCpu | Plus | Loaded | Met | Made


def rooted(value: Value) -> tuple[Value, int]:
    """Return (base, offset in bytes) of a value, as `apart`, but with what was added before paths met."""
    base, offset = apart(value)
    return base, offset + (base.offset if isinstance(base, Met) else 0)


_HEAVIEST = 24
"""Values that one may be made of, all in all: code that computes a checksum would make ever larger ones."""


def made(sources: Iterable[Value | None], pc: int) -> Made | None:
    """Return what an instruction computes of other values; None where none of them is known, or they are too many."""
    parts: set[Value] = set()
    for source in sources:
        base = apart(source)[0] if source is not None else None
        if isinstance(base, Made):
            parts |= base.parts
        elif base is not None and not isinstance(base, Constant) and base != Argument("rsp"):
            parts.add(base)
    left = _HEAVIEST
    for part in parts:
        left -= _weight(part, left)
    return Made(frozenset(parts), pc) if parts and left >= 0 else None


def _weight(value: Value, most: int) -> int:
    """Return of how many values one is made, itself too; some more than `most` where they are more."""
    inner: tuple[Value, ...] = ()
    if isinstance(value, Plus):
        inner = (value.base,)
    elif isinstance(value, Loaded):
        inner = (value.base,) if value.index is None else (value.base, value.index)
    elif isinstance(value, Made):
        inner = tuple(value.parts)
    found = 1
    for item in inner:
        if found > most:
            break
        found += _weight(item, most - found)
    return found


def leaves(value: Value | None) -> Iterator[Value]:
    """Yield what a value comes from: itself, where it is no computed one; and of what is in a table, the index too."""
    work = [value] if value is not None else []
    while work:
        base = apart(work.pop())[0]
        if isinstance(base, Made):
            work += base.parts
            continue
        yield base
        if isinstance(base, Loaded) and base.index is not None:
            work.append(base.index)


def plus(base: Value | None, offset: int) -> Value | None:
    """Return a value and a number of bytes behind it, folded."""
    if base is None:
        return None
    if isinstance(base, Plus):
        return plus(base.base, base.offset + offset)
    if isinstance(base, Constant):
        return Constant((base.number + offset) % (1 << 64))
    return Plus(base, offset) if offset else base


def apart(value: Value) -> tuple[Value, int]:
    """Return (base, offset in bytes) of a value."""
    return (value.base, value.offset) if isinstance(value, Plus) else (value, 0)
