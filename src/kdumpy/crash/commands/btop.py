"""`btop`, `ptob`: from the address of a byte to the number of its page, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.numbers import WORD, hexadecimal, number
from kdumpy.crash.session import Session
from kdumpy.dumpfile.paging import kernel_page_size
from kdumpy.errors import UsageError


@dataclass(frozen=True)
class PageNumberRow:
    """A page and where it begins."""

    page: int
    """Page frame number."""
    address: int
    """Physical address: as it was given (btop), or of the page's first byte (ptob)."""


class Btop(Command[PageNumberRow]):
    """Turn physical addresses into page frame numbers (btop), or these into addresses (ptob).

    Addresses are hexadecimal; numbers of pages decimal, or hexadecimal with 0x or where they have a letter.

    Example:
        crash> btop 512a000
        512a000: 512a
        crash> ptob 512a
        512a: 512a000
    """

    names = ("btop", "ptob")
    example = "btop 512a000"
    row = PageNumberRow
    args = (Arg("numbers", nargs="+", metavar="ADDRESS|PAGE", help="one or more"),)

    def rows(self, session: Session, options: Options) -> Iterator[PageNumberRow]:
        """Yield a row a number.

        Raises:
            UsageError: one is no number, or of no address.
        """
        size = kernel_page_size(session.kernel.dump)
        for text in options.numbers:
            if options.command == "btop":
                address = hexadecimal(text)
                yield PageNumberRow(address // size, address)
                continue
            page = number(text)
            if page * size > WORD:
                raise UsageError(f"{text!r} is no page's number", why="its address would have more than 64 bits")
            yield PageNumberRow(page, page * size)

    def render(self, rows: Iterable[PageNumberRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the numbers out as crash does."""
        for row in rows:
            given, found = (row.address, row.page) if options.command == "btop" else (row.page, row.address)
            yield f"{given:x}: {found:x}"


COMMAND = Btop()
