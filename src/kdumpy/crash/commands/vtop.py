"""`vtop`: where a virtual address lies in the memory, and by which page table entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import drgn
from drgn.helpers.linux.mm import vma_find

from kdumpy.crash.areas import Area, area_of
from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.pte import decode, decode_arm64, pte_lines
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError, NotInDump, UsageError

if TYPE_CHECKING:
    from kdumpy.crash.kmem.pages import PageRow

_LEVELS = {12: "PTE", 21: "PMD", 30: "PUD", 39: "P4D", 48: "PGD"}
"""Names by the lowest bit of the address that indexes the table (4 KiB pages)."""
_PAGES = {21: "  (2MB)", 30: "  (1GB)"}
_HALF = 1 << 63


@dataclass(frozen=True)
class TableEntry:
    """An entry on the way."""

    level: str
    """PGD, P4D, PUD, PMD, PTE; or level0 … on other page sizes."""
    address: int
    """Physical address of the entry."""
    entry: int


@dataclass(frozen=True)
class TranslationRow:
    """What a virtual address is translated to."""

    virtual: int
    physical: int | None
    """None where nothing is mapped."""
    directory: int
    """Where the top table lies: its virtual address."""
    entries: tuple[TableEntry, ...]
    page: int | None
    """Physical address of the page."""
    page_kind: str
    """(2MB), (1GB), or empty."""
    page_struct: PageRow | None
    """The page's struct page; None where nothing is mapped, or it is no page of memory or not in the dump."""
    area: Area | None
    """The area of the address space, for an address of user space."""
    problem: str
    """What ended the walk; empty where it led to a page, or nothing is mapped."""


class Vtop(Command[TranslationRow]):
    """Translate virtual addresses by the page tables: the kernel's, or those of the context's user space.

    Example:
        crash> vtop -k ffffffff81000000
        VIRTUAL           PHYSICAL
        ffffffff81000000  1000000
        ...
    """

    names = ("vtop",)
    example = "vtop linux_banner"
    row = TranslationRow
    args = (
        Arg("addresses", nargs="+", metavar="ADDRESS|SYMBOL", help="virtual addresses, hexadecimal"),
        Arg("-u", dest="user", action="store_true", help="of user space"),
        Arg("-k", dest="kernel", action="store_true", help="of the kernel"),
        Arg("-c", dest="task", metavar="PID|TASK", help="by this task's tables"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[TranslationRow]:
        """Yield a row an address."""
        if options.user and options.kernel:
            raise UsageError("an address is of user space (-u) or of the kernel (-k)")
        task = session.task(options.task) if options.task else session.context
        for text in options.addresses:
            address = session.address(text)
            user = options.user or (address < _HALF and not options.kernel)
            if user and not task.mm:
                raise NotInDump("the task has no user space", mend="set another: set PID, or vtop -c PID")
            found = _translate(session, task, address, user=user)
            yield found if found.physical is None else replace(found, page_struct=_page(session, found.physical))

    def render(self, rows: Iterable[TranslationRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the translations out as crash does."""
        x86 = session.kernel.system.machine == "x86_64"
        for number, row in enumerate(rows):
            if number:
                yield ""
            virtual = f"{row.virtual:x}"
            yield f"{'VIRTUAL':<{max(len(virtual), 7)}}  PHYSICAL"
            physical = "(not mapped)" if row.physical is None else f"{row.physical:x}"
            yield f"{virtual:<7}  {physical}"
            if not row.entries:
                if row.problem:
                    yield f"({row.problem})"
                continue
            yield ""
            user = row.virtual < _HALF
            if not x86:
                yield f"PAGE DIRECTORY: {row.directory:x}"
            elif not user:
                yield f"PGD DIRECTORY: {row.directory:x}"
            for at, entry in enumerate(row.entries):
                level = entry.level if at or not x86 else "PGD"
                yield f"PAGE DIRECTORY: {entry.entry:x}" if x86 and not at and not user \
                    else f"   {level}: {entry.address:x} => {entry.entry:x}"
            if row.page is not None:
                yield f"  PAGE: {row.page:x}{row.page_kind}"
            if row.problem:
                yield f"({row.problem})"
            # What an entry of arm64 says of a page that is not present is not known.
            if row.entries[-1].entry and (row.page is not None or (x86 and row.entries[-1].level == "PTE")):
                yield ""
                known = (decode if x86 else decode_arm64)(session, row.entries[-1].entry)
                meant = "PAT" if row.entries[-1].level == "PTE" else "PSE"       # bit 7 has two meanings
                yield from pte_lines(replace(known, flags=tuple(
                    meant if flag == "PSE|PAT" else flag for flag in known.flags)))
            if row.area is not None:
                yield ""
                yield f"{'VMA':^16} {'START':^12} {'END':^12} FLAGS FILE"
                yield (f"{row.area.vma:016x} {row.area.start:>12x} {row.area.end:>12x} {row.area.flags:x} "
                       f"{row.area.file}").rstrip()
            if row.page_struct is not None:
                from kdumpy.crash.kmem.somepages import HEADER, line

                yield from ("", HEADER, line(row.page_struct))


def _translate(session: Session, task: drgn.Object, address: int, *, user: bool) -> TranslationRow:
    memory = session.arrays.memory
    tables = memory.tables
    area = None
    if user:
        directory = task.mm.pgd.value_()
        root = memory.translate(directory)
        try:
            found = vma_find(task.mm, address)
            area = area_of(task.mm, found) if found else None
        except READ_ERRORS:
            pass        # the tables tell what is there all the same
    else:
        root = tables.root
        directory = next((session.prog.symbol(name).address for name in ("init_top_pgt", "swapper_pg_dir")
                          if session.prog.symbols(name)), root)
    entries: list[TableEntry] = []
    table, problem = root, ""
    for shift in tables.shifts:
        index = address >> shift & (memory.page_size // 8 if entries else tables.top_entries) - 1
        at = table + 8 * index
        try:
            entry = int.from_bytes(memory.dump.read_physical(at, 8), "little")
        except KdumpyError as error:
            problem = f"the page table at {table:x} is not in the dump: {error.what}"
            break
        level = _LEVELS.get(shift, f"level{len(entries)}") if memory.page_size == 4096 else f"level{len(entries)}"
        entries.append(TableEntry(level, at, entry))
        try:
            table, leaf = tables.step(entry, shift)
        except LookupError:
            break
        if leaf:
            page = table & ~((1 << shift) - 1)
            inside = address & (1 << shift) - 1
            return TranslationRow(address, page | inside, directory, tuple(entries), page, _PAGES.get(shift, ""), None,
                                  area, "")
    return TranslationRow(address, None, directory, tuple(entries), None, "", None, area, problem)


def _page(session: Session, physical: int) -> PageRow | None:
    from kdumpy.crash.kmem.somepages import SomePages

    try:
        return SomePages(session).at(physical // session.arrays.page_size)
    except READ_ERRORS:         # memory of a device, such as its registers
        return None


COMMAND = Vtop()
