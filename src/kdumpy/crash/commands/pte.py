"""`pte`: what a page table entry says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError

_FLAGS = ((0, "PRESENT"), (1, "RW"), (2, "USER"), (3, "PWT"), (4, "PCD"), (5, "ACCESSED"), (6, "DIRTY"),
          (7, "PSE|PAT"), (8, "GLOBAL"), (63, "NX"))
"""Source: arch/x86/include/asm/pgtable_types.h."""
_PROTNONE = 1 << 8
_ADDRESS = 0x000ffffffffff000


@dataclass(frozen=True)
class PteRow:
    """A page table entry of x86-64."""

    pte: int
    physical: int | None
    """None for a page that is not present."""
    flags: tuple[str, ...]
    swap: str
    """The file or device of a page that was swapped out; or empty."""
    offset: int | None
    """Its place there, in pages."""


class Pte(Command[PteRow]):
    """Say what a page table entry (hexadecimal) means: physical address and flags, or where in the swap the page is.

    Example:
        crash> pte d8e067
         PTE    PHYSICAL  FLAGS
        d8e067   d8e000   (PRESENT|RW|USER|ACCESSED|DIRTY)
    """

    names = ("pte",)
    example = "pte d8e067"
    row = PteRow
    args = (Arg("entries", nargs="+", metavar="CONTENTS", help="what stands in the page table"),)

    def rows(self, session: Session, options: Options) -> Iterator[PteRow]:
        """Yield the entries."""
        if session.kernel.system.machine != "x86_64":
            raise NotInDump("entries of this machine's page tables are not explained", mend="'vtop' translates "
                            "addresses on every machine")
        for text in options.entries:
            try:
                yield decode(session, int(text, 16))
            except ValueError:
                raise UsageError(f"{text!r} is no hexadecimal number") from None

    def render(self, rows: Iterable[PteRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the entries out as crash does."""
        for row in rows:
            yield from pte_lines(row)


def pte_lines(row: PteRow) -> Iterator[str]:
    """Yield an entry below a header, as crash does."""
    pte = f"{row.pte:x}"
    width = max(len(pte), 6)
    if row.physical is None and row.offset is not None:
        yield f"{'PTE':^{width}}  {'SWAP':^{max(len(row.swap), 4)}}  OFFSET"
        yield f"{pte:>{width}}  {row.swap}  {row.offset}"
        return
    physical = "" if row.physical is None else f"{row.physical:x}"
    yield f"{'PTE':^{width}}  {'PHYSICAL':^{max(len(physical), 8)}}  FLAGS"
    yield f"{pte:>{width}}  {physical:^{max(len(physical), 8)}}  ({'|'.join(row.flags) or 'no page'})"


def decode(session: Session, pte: int) -> PteRow:
    """Return what an entry of x86-64 means.

    Source: arch/x86/include/asm/pgtable_64.h: type in the highest 5 bits, the offset inverted from bit 14 on.
    """
    flags = tuple(name for bit, name in _FLAGS if pte >> bit & 1)
    mask = _ADDRESS & ~session.kernel.dump.vmcoreinfo.number("sme_mask", 0)
    if pte & 1 or pte & _PROTNONE:
        return PteRow(pte, pte & mask, flags if pte & 1 else ("PROTNONE", *flags), "", None)
    if not pte:
        return PteRow(pte, None, (), "", None)
    kind, offset = pte >> 59, (~pte << 5 & (1 << 64) - 1) >> 14
    return PteRow(pte, None, flags, swap_name(session, kind), offset)


def swap_name(session: Session, kind: int) -> str:
    """Return the file or device of a kind of swap; what it is where it is no swap."""
    try:
        count = int(session.prog["nr_swapfiles"])
        if kind >= count:
            return f"(special entry of type {kind})"       # migration, hwpoison, device memory
        from drgn.helpers.linux.fs import d_path

        file = session.prog["swap_info"][kind].swap_file
        return d_path(file.f_path).decode("utf-8", "backslashreplace")
    except (drgn.FaultError, *READ_ERRORS):
        return f"(swap {kind})"


COMMAND = Pte()
