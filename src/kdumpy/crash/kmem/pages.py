"""`kmem -p` and `kmem -m`: every page of the machine, or some, by struct page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import drgn
import numpy as np
from drgn.helpers.linux.mm import for_each_valid_page_range
from numpy.typing import NDArray

from kdumpy.crash.command import Options
from kdumpy.crash.layout import unaliased
from kdumpy.crash.memory.pages import PageArray, Stretch, StructPages
from kdumpy.crash.memory.text import Cells, Hexadecimal, joined, same
from kdumpy.crash.session import Session
from kdumpy.crash.workers import Bulk
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError
from kdumpy.units import printable

_MOST_ENDS = 1 << 16
"""Ends of lines that are kept."""


@dataclass(frozen=True, slots=True)
class PageRow:
    """A page."""

    page: int
    """Address of its struct page."""
    physical: int
    mapping: int
    index: int
    count: int
    flags: int
    names: str
    """The flags in words, as the kernel calls them."""


@dataclass(frozen=True)
class MemberRow:
    """Some members of a struct page."""

    page: int
    members: dict[str, str]


class FlagNames:
    """Turns page flags into words, each value once."""

    def __init__(self, prog: drgn.Program) -> None:
        self._bits: list[tuple[int, str]] = []
        try:
            found = prog.type("enum pageflags").enumerators or ()
            end = next(value for name, value in found if name == "__NR_PAGEFLAGS")
        except (LookupError, StopIteration):
            return
        seen = set()
        for name, value in found:
            # The first name of a bit is its own; later ones are other users' of it.
            if value < end and value not in seen and name.startswith("PG_"):
                seen.add(value)
                self._bits.append((value, printable(name.removeprefix("PG_"))))
        self._known: dict[int, str] = {}

    def __call__(self, flags: int) -> str:
        """Return the names of the bits that are set."""
        low = flags & 0xffffffff
        text = self._known.get(low) if self._bits else ""
        if text is None:
            text = self._known[low] = ",".join(name for bit, name in self._bits if low >> bit & 1)
        return text


def rows(session: Session, options: Options) -> Iterator[PageRow | Stretch]:
    """Yield a row a page; where text is wanted, where they lie: a value a page takes longer than all the rest.

    Raises:
        NotInDump: some struct pages are not in the dump; they are counted at the end.
    """
    pages = StructPages(session.prog, session.arrays)
    if options.as_text:
        yield from selected(session, pages, options.addresses)
        return
    names = FlagNames(session.prog)
    missing = 0
    for stretch in selected(session, pages, options.addresses):
        found = pages.read(stretch)
        missing += int(np.count_nonzero(~found.held))
        yield from _array(pages, found, names, session.arrays.page_size)
    _tell_missing(missing)


def _tell_missing(count: int) -> None:
    if count:
        raise NotInDump(f"the struct pages of {count} pages are not in the dump")


def selected(session: Session, pages: StructPages, addresses: list[str]) -> Iterator[Stretch]:
    """Yield all struct pages, or those that addresses (of a struct page, physical, virtual) mean."""
    if not addresses:
        yield from pages.stretches()
        return
    for text in addresses:
        pfn = pfn_of(session, pages, text)
        found = next(pages.stretches(pfn, pfn + 1), None)
        if found is None:
            raise NotInDump(f"there is no page {pfn:#x}", where=text)
        yield found


def pfn_of(session: Session, pages: StructPages, text: str) -> int:
    """Return the page frame number that an address means: of a struct page, else virtual, else physical.

    Raises:
        UsageError: it is none of these.
    """
    address = session.address(text)
    for low, high, mem_map in for_each_valid_page_range(session.prog):
        base = mem_map.value_()
        if base + low * pages.size <= address < base + high * pages.size:
            return int((address - base) // pages.size)
    if address >> 63:
        physical = int(session.arrays.physical(np.array([address], np.uint64))[0])
        if physical < 0:
            raise UsageError("nothing is mapped at this address", where=text)
        return physical // session.arrays.page_size
    return address // session.arrays.page_size


class _Columns(NamedTuple):
    """What is told of some pages; shapes (n,)."""

    page: NDArray[np.uint64]
    """Address of the struct page."""
    physical: NDArray[np.uint64]
    mapping: NDArray[np.uint64]
    place: NDArray[np.uint64]
    """Its index in the mapping."""
    users: NDArray[np.int32]
    flags: NDArray[np.uint64]


def _columns(pages: StructPages, found: PageArray, page_size: int) -> _Columns:
    """Return the columns of those pages that are held."""
    def column(*members: str) -> NDArray[Any]:
        size = 4 if members[0] == "_refcount" else 8
        values = pages.column(found, pages.offset(*members), size, signed=size == 4)
        return values if len(which) == len(values) else values[which]

    which = np.flatnonzero(found.held)
    numbers = which.astype(np.uint64)
    return _Columns(numbers * np.uint64(pages.size) + np.uint64(found.address),
                    (numbers + np.uint64(found.first)) * np.uint64(page_size), column("mapping"),
                    column("index", "__folio_index"), column("_refcount", "_count"), column("flags"))


def _array(pages: StructPages, found: PageArray, names: FlagNames, page_size: int) -> Iterator[PageRow]:
    columns: list[list[int]] = [column.tolist() for column in _columns(pages, found, page_size)]
    for page, physical, mapping, index, count, flags in zip(*columns, strict=True):
        yield PageRow(page, physical, mapping, index, count, flags, names(flags))


class _Ends:
    """The ends of the lines, count and flags: 1,000,000 pages have some hundreds of them."""

    def __init__(self, names: FlagNames) -> None:
        self._names = names
        self._numbers: dict[tuple[int, int], int] = {}
        self._texts: list[bytes] = []

    def cells(self, counts: NDArray[np.int32], flags: NDArray[np.uint64]) -> Cells:
        """Return them as a column."""
        if len(self._texts) > _MOST_ENDS:       # a dump whose counts are noise
            self._numbers.clear()
            self._texts.clear()
        # Neighbours are mostly alike: the first of each run is looked up.
        changes = (counts[1:] != counts[:-1]) | (flags[1:] != flags[:-1])
        first = np.concatenate([np.zeros(min(len(counts), 1), np.int64), np.flatnonzero(changes) + 1])
        pairs = list(zip(counts[first].tolist(), flags[first].tolist(), strict=True))
        for count, value in set(pairs) - self._numbers.keys():
            self._numbers[count, value] = len(self._texts)
            self._texts.append(f"{count:2d} {value:x} {self._names(value)}".rstrip().encode() + b"\n")
        which = np.array([self._numbers[pair] for pair in pairs], np.int64)
        return same(self._texts, np.repeat(which, np.diff(first, append=len(counts))))


def render(found: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
    """Lay the pages out as crash does; where they lie, thousands of lines at a time.

    Raises:
        NotInDump: some struct pages are not in the dump; they are counted at the end.
    """
    yield "      PAGE       PHYSICAL      MAPPING       INDEX CNT FLAGS"
    if not options.as_text:
        yield from (f"{row.page:016x} {row.physical:8x} {row.mapping:16x} {row.index:8x} {row.count:2d} {row.flags:x} "
                    f"{row.names}".rstrip() for row in found)
        return
    pages = StructPages(session.prog, session.arrays)
    hexadecimal, ends = Hexadecimal(), _Ends(FlagNames(session.prog))

    def text_of(stretch: Stretch) -> Iterator[Bulk | int]:
        array = pages.read(stretch)
        page, physical, mapping, index, count, flags = _columns(pages, array, session.arrays.page_size)
        text = joined((hexadecimal.addresses(page), hexadecimal.cells(physical, 8), hexadecimal.cells(mapping, 16),
                       hexadecimal.cells(index, 8), ends.cells(count, flags)), len(page))
        yield Bulk(text.data)
        yield int(np.count_nonzero(~array.held))

    missing = 0
    for part in session.share(list(found), text_of):
        if isinstance(part, int):
            missing += part
        elif part:
            yield str(part[:-1], "utf-8")       # whoever writes it ends the last line
    _tell_missing(missing)


def member_rows(session: Session, options: Options) -> Iterator[MemberRow]:
    """Yield the members that `-m` names, of every page or of some."""
    pages = StructPages(session.prog, session.arrays)
    members = [(name, *pages.member(name)) for name in options.members.split(",") if name]
    if not members:
        raise UsageError("which members?", where="kmem -m")
    readers = [_Reader(name, offset, *_style(name, made, session.radix)) for name, offset, made in members]
    for stretch in selected(session, pages, options.addresses):
        found = pages.read(stretch)
        columns = [(reader, [pages.column(found, reader.offset + at, min(reader.size, 8), signed=reader.signed).tolist()
                             for at in range(0, reader.size, 8)]) for reader in readers]
        for row in np.flatnonzero(found.held).tolist():
            yield MemberRow(found.address + row * pages.size, {
                reader.name: ",".join(format(values[row], reader.style) for values in parts)
                for reader, parts in columns})


class _Reader(NamedTuple):
    """How a member is read and shown."""

    name: str
    offset: int
    size: int
    """Bytes; more than 8: words, parted by commas."""
    signed: bool
    style: str


def _style(name: str, made: drgn.Type, radix: int) -> tuple[int, bool, str]:
    """Return (bytes, signed, format) of a member; integers by the radix, everything else hexadecimal, as in crash."""
    made = unaliased(made)
    size = drgn.sizeof(made)
    if name.split(".")[0] in ("_count", "_refcount", "_mapcount", "counter"):
        return min(size, 4), False, "08x"
    if made.kind == drgn.TypeKind.STRUCT and made.tag == "list_head":
        return size, False, "016x"
    if size not in (1, 2, 4, 8):
        raise UsageError(f"a member of {size} bytes cannot be shown in a column", where=name,
                         mend="name one of its own members, such as lru.next")
    signed = made.kind == drgn.TypeKind.INT and bool(made.is_signed)
    decimal = made.kind == drgn.TypeKind.INT and radix == 10 and name != "flags"
    return size, signed and decimal, "d" if decimal else f"0{2 * size}x"


def render_members(found: Iterable[MemberRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the members out in columns."""
    widths: list[int] = []
    for row in found:
        if not widths:
            widths = [max(len(name), len(value)) for name, value in row.members.items()]
            yield "      PAGE        " + "  ".join(map(str.ljust, row.members, widths)).rstrip()
        yield f"{row.page:016x}  " + "  ".join(map(str.rjust, row.members.values(), widths))


def shared_pages(session: Session) -> int | None:
    """Return how many pages have more than one user, reserved ones left out; None where that cannot be told."""
    try:
        pages = StructPages(session.prog, session.arrays)
        reserved = np.uint64(1 << int(session.prog["PG_reserved"]))

        def shared(stretch: Stretch) -> Iterator[int]:
            found = pages.read(stretch)
            counts = pages.column(found, pages.offset("_refcount", "_count"), 4, signed=True)
            flags = pages.column(found, pages.offset("flags")).astype(np.uint64, copy=False)
            yield int(np.count_nonzero((counts > np.int32(1)) & ((flags & reserved) == 0)))

        return sum(session.share(list(pages.stretches()), shared))
    except READ_ERRORS:
        return None
