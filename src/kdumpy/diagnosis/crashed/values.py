"""Where a register's value came from, as a value: an argument, a load, a call's answer, and offsets of these."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Met:
    """What a register held where paths met that bring different values, as a loop's begin: whatever it was, that.

    It is the value of the last time: what was kept from an earlier turn of a loop is known as something else.
    """

    register: str
    pc: int
    """Where the paths meet."""


Value = Argument | Constant | Returned | PerCpu | Plus | Loaded | Met


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
