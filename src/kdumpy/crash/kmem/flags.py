"""`kmem -g`: the flags of pages, all or those of a value.

Source: include/linux/page-flags.h, enum pageflags; one bit has several names, by what the page is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn

from kdumpy.crash.command import Options
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump, UsageError


@dataclass(frozen=True)
class FlagRow:
    """A flag of pages."""

    name: str
    bit: int
    value: int


def rows(session: Session, options: Options) -> Iterator[FlagRow]:
    """Yield the flags, or those that are set in the value that was given.

    Raises:
        UsageError: that is no hexadecimal number.
        NotInDump: none of its bits is a flag.
    """
    wanted = _wanted(options)
    found = [FlagRow(name, bit, 1 << bit) for name, bit in _flags(session.prog)
             if wanted is None or wanted >> bit & 1]
    yield from found
    if not found:
        raise NotInDump("no flag is set in this value", where=f"{wanted:x}" if wanted is not None else "",
                        why="above the flags lie the page's node, zone and section")


def _flags(prog: drgn.Program) -> list[tuple[str, int]]:
    """Return (name, bit) in the kernel's order.

    Raises:
        LookupError: the enumeration is not known.
    """
    return [(name, bit) for name, bit in prog.type("enum pageflags").enumerators or ()
            if name.startswith("PG_") and 0 <= bit < 64]


def _wanted(options: Options) -> int | None:
    if not options.flags:
        return None
    try:
        return int(options.flags, 16)
    except ValueError:
        raise UsageError(f"{options.flags!r} is no hexadecimal number", where="kmem -g") from None


def render(found: Iterable[FlagRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the flags out as crash does."""
    known = _flags(session.prog)
    wide, digits = max(len(name) for name, _ in known), (max(bit for _, bit in known) + 1) // 4 + 1
    margin = "  " if options.flags else ""
    if options.flags:
        yield f"FLAGS: {_wanted(options):x}"
    yield f"{margin}{'PAGE-FLAG':<{wide}} BIT  VALUE"
    yield from (f"{margin}{row.name:<{wide}}  {row.bit:2}  {row.value:0{digits}x}" for row in found)
