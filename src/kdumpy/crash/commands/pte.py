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
_ARM64_FLAGS = ((0, "VALID"), (6, "USER"), (7, "RDONLY"), (10, "AF"), (11, "NG"), (50, "GP"), (51, "WRITE"),
                (52, "CONT"), (53, "PXN"), (54, "UXN"), (55, "DIRTY"), (56, "SPECIAL"))
"""Source: arch/arm64/include/asm/pgtable-hwdef.h, pgtable-prot.h: those whose meaning no kernel has changed."""
_ARM64_SHARED = 3 << 8
"""PTE_SHARED; with addresses of 52 bits and pages below 64 KiB these bits belong to the address."""
_PROTNONE = 1 << 8
_ADDRESS = 0x000ffffffffff000


@dataclass(frozen=True)
class PteRow:
    """A page table entry."""

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
        machine = session.kernel.system.machine
        if machine not in ("x86_64", "aarch64"):
            raise NotInDump("entries of this machine's page tables are not explained", mend="'vtop' translates "
                            "addresses on every machine")
        for text in options.entries:
            try:
                entry = int(text, 16)
            except ValueError:
                raise UsageError(f"{text!r} is no hexadecimal number") from None
            if not 0 <= entry < 1 << 64:
                raise UsageError(f"{text} is no entry", why="entries have 64 bits")
            yield decode(session, entry) if machine == "x86_64" else decode_arm64(session, entry)

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


def decode_arm64(session: Session, pte: int) -> PteRow:
    """Return what an entry of arm64's last level means.

    Raises:
        NotInDump: the page is not present: where such an entry keeps the place in the swap has moved (5.19, 6.11), and
            nothing in a dump tells how its kernel has it.
    """
    memory = session.arrays.memory
    try:
        physical, _ = memory.tables.step(pte, memory.page_size.bit_length() - 1)
    except LookupError:
        if pte:
            raise NotInDump("the page is not present", where=f"{pte:x}", why="it was swapped out, moves, or may not be "
                            "accessed: kernels of arm64 keep that in different bits") from None
        return PteRow(pte, None, (), "", None)
    flags = [name for bit, name in _ARM64_FLAGS if pte >> bit & 1]
    if pte & _ARM64_SHARED == _ARM64_SHARED and not physical & _ARM64_SHARED << 42:
        flags.insert(min(3, len(flags)), "SHARED")
    return PteRow(pte, physical, tuple(flags), "", None)


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
