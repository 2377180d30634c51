"""The crash, read from registers, code, page tables and structures."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdumpy.diagnosis.facts.base import HEX


@dataclass(frozen=True)
class Track:
    """Who allocated or freed a slab object; only with slub_debug=U."""

    event: str
    """allocated or freed."""
    pid: int
    """Process that did it."""
    cpu: int
    """CPU that it ran on."""
    seconds_before: float | None
    """Seconds before the crash, by the timer tick; null where unknown."""
    trace: tuple[str, ...]
    """The stack that did it, innermost first."""
    address: int = field(default=0, metadata=HEX)
    """Where the allocator keeps that: its struct track, behind the object."""


@dataclass(frozen=True)
class Pointee:
    """What an address points at."""

    address: int = field(metadata=HEX)
    """The address."""
    kind: str
    """null, small, error, freed, list poison, uninitialised, text, user, non-canonical, stray, code, kernel data,
    module data, per-cpu, stack, stack guard, slab, vmalloc, page, not mapped, or unknown."""
    words: str
    """The same in words."""
    symbol: str | None = None
    """Symbol and offset, of code and data."""
    module: str | None = None
    """Module that it belongs to."""
    object: int | None = field(default=None, metadata=HEX)
    """Where the object, stack or area begins."""
    cache: str | None = None
    """Slab cache of the object."""
    object_size: int | None = None
    """Bytes of the object."""
    state: str | None = None
    """allocated, freed or state unknown, of a slab object; the kind of page, of a page."""
    poison: str | None = None
    """The poison that the object is filled with; null where it is not."""
    tracks: tuple[Track, ...] = ()
    """Who allocated and freed it, where the kernel kept that."""


@dataclass(frozen=True)
class BadPointer:
    """The pointer that could not be used."""

    register: str | None
    """Register that held it; null where the instruction has it as a constant."""
    value: int = field(metadata=HEX)
    """What it was."""
    words: str
    """What that value is: NULL, a poison, an error code, text, ..."""
    expression: str | None
    """Where it came from, as the source would say it: dev->channel; null where the dump does not show it."""
    function: str | None
    """The function whose source that is."""
    type: str | None
    """Type of the pointer: struct flaky_channel *; null where it is not known."""
    member: str | None
    """What was accessed through it: struct flaky_channel.rate_hz; null where it is not known."""
    offset: int | None
    """Bytes from the pointer to what was accessed."""
    loaded_by: str | None
    """The instruction that loaded it from memory."""
    loaded_from: Pointee | None
    """Where it was loaded from."""
    still_there: bool | None
    """That memory still holds the same value; false: it was changed since, or the value was changed on its way."""
    target: Pointee
    """What it points at."""


@dataclass(frozen=True)
class Check:
    """Something that the log and the dump both say."""

    what: str
    """What was compared."""
    agrees: bool
    """Whether they say the same."""
    detail: str
    """What each says."""


@dataclass(frozen=True)
class Reading:
    """What the faulting instruction wanted, and what it got."""

    instruction: str
    """The instruction, in AT&T syntax, as the shell's dis shows it."""
    address: int = field(metadata=HEX)
    """Where it lies."""
    access: str
    """read, write, read and write, execute, or empty where it used no memory."""
    used: int | None = field(metadata=HEX)
    """The address that it used."""
    size: int | None
    """Bytes that it used there."""
    operands: tuple[str, ...]
    """Its operands with the values of their registers, the bad one first."""
    pointer: BadPointer | None
    """The pointer that could not be used; null where the crash is not about one."""
    trap: str | None
    """The processor's exception, in words."""
    error_code: str | None
    """The exception's error code, in words."""
    checks: tuple[Check, ...]
    """Where the log and the dump were compared."""
