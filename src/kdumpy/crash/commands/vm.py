"""`vm`: the address space of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import drgn

from kdumpy.crash.areas import Area, Space
from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.commands.bt import header
from kdumpy.crash.fileviews import in_path
from kdumpy.crash.layout import Layout
from kdumpy.crash.recent import Last
from kdumpy.crash.session import Session
from kdumpy.crash.userpages import pages_of
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError
from kdumpy.kernel.taskreader import task_value


@dataclass(frozen=True)
class VmRow:
    """A task and its address space."""

    pid: int
    task: int
    cpu: int
    command: str
    mm: int
    """Address of its mm_struct; 0 for a kernel thread."""
    pgd: int
    """Address of its top page table."""
    rss_kb: int
    total_kb: int
    areas: tuple[Area, ...]
    problem: str
    """What could not be read; empty when all is there."""


class Vm(Command[VmRow]):
    """Show the address space of a task: of the context, if no other is named.

    Example:
        crash> vm 1
        PID: 1        TASK: ff29ecb5011f0000  CPU: 1    COMMAND: "init"
               MM               PGD           RSS   TOTAL_VM
        ff29ecb527f19680  ff29ecb527c6c000  1732k      2260k
              VMA          START     END       FLAGS  FILE
        ff29ecb527f8b130  400000  401000    8000071  /bin/busybox
    """

    names = ("vm",)
    example = "vm 1"
    row = VmRow
    args = (
        Arg("tasks", nargs="*", metavar="PID|TASK", help="process ids, or addresses of task_structs"),
        Arg("-m", dest="mm", action="store_true", help="the mm_struct"),
        Arg("-v", dest="vmas", action="store_true", help="every vm_area_struct"),
        Arg("-p", dest="translate", action="store_true", help="where each page is: in memory, in the swap, in a file"),
        Arg("-P", dest="one_area", metavar="VMA", help="the same for one vm_area_struct"),
        Arg("-M", dest="given_mm", metavar="MM", help="with this mm_struct: of a task that exits and has left its own"),
        Arg("-f", dest="flags", metavar="FLAGS", help="say what the bits of vm_flags mean"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
        Arg("-R", dest="reference", metavar="TEXT",
            help="only areas of files with this in their path, or that hold this address"),
    )

    def __init__(self) -> None:
        self._table = Last[str]()

    def rows(self, session: Session, options: Options) -> Iterator[VmRow]:
        """Yield a row a task."""
        if options.flags:
            yield _flags_row(session, options.flags)
            return
        given = session.address(options.given_mm) if options.given_mm else None
        for task in session.tasks_of(options.tasks):
            row = _row(session, task, options.reference, given)
            if options.one_area:
                wanted = session.address(options.one_area)
                row = replace(row, areas=tuple(area for area in row.areas if area.vma == wanted))
                if not row.areas:
                    raise NotInDump(f"no area of this task lies at {wanted:016x}")
            if options.translate or options.one_area:
                row = replace(row, areas=tuple(replace(area, pages=tuple(pages_of(session, row.mm, area)))
                                               for area in row.areas))
            if row.areas or not options.reference:
                yield row

    def render(self, rows: Iterable[VmRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the address spaces out as crash does."""
        for number, row in enumerate(rows):
            if number:
                yield ""
            if options.flags:
                yield row.problem
                continue
            yield header(row.pid, row.task, row.cpu, row.command)
            if options.mm or options.vmas:
                yield from _structures(session, row, options)
                continue
            yield from columns(("       MM", "      PGD", "RSS", "TOTAL_VM"),
                               [(f"{row.mm:016x}", f"{row.pgd:016x}", f"{row.rss_kb}k", f"{row.total_kb}k")], "<<>>")
            if options.translate or options.one_area:
                for area in row.areas:
                    yield from _render_pages(area)
            elif row.areas:
                yield self._table.get(row.areas, partial(_table, row.areas))
            if row.problem:
                yield f"({row.problem})"


def _table(areas: tuple[Area, ...]) -> str:
    return "\n".join(columns(
        ("      VMA", "START", "END", "FLAGS", "FILE"),
        ((f"{area.vma:016x}", f"{area.start:x}", f"{area.end:x}", f"{area.flags:x}", area.file) for area in areas),
        "<>>><"))


def _structures(session: Session, row: VmRow, options: Options) -> Iterator[str]:
    layout = Layout(session, options.radix)
    for name, addresses in (("struct mm_struct", [row.mm] if options.mm and row.mm else []),
                            ("struct vm_area_struct", [area.vma for area in row.areas] if options.vmas else [])):
        for address in addresses:
            yield f"{name} {layout.value(drgn.Object(session.prog, name, address=address))}"


def _row(session: Session, task: drgn.Object, reference: str | None, given: int | None = None) -> VmRow:
    page_kb = int(session.prog["PAGE_SIZE"]) // 1024
    of = task_value(task)
    mm, space = 0, Space(0, 0, 0, (), "")
    try:
        found = task.mm.read_() if given is None else drgn.Object(session.prog, "struct mm_struct *", value=given)
        mm = found.value_()
        if mm:
            space = session.spaces.of(found, task if given is None else None)
    except READ_ERRORS as error:
        space = space._replace(problem=f"not all can be read: {error}")
    areas = space.areas if reference is None else tuple(
        area for area in space.areas
        if area.file == reference or in_path(reference, area.file) or _holds(area, reference))
    return VmRow(of.pid, of.address, of.cpu, of.comm, mm, space.pgd, space.rss * page_kb, space.total * page_kb, areas,
                 space.problem)


_FLAG_NAMES = {
    "READ": 0x1, "WRITE": 0x2, "EXEC": 0x4, "SHARED": 0x8, "MAYREAD": 0x10, "MAYWRITE": 0x20, "MAYEXEC": 0x40,
    "MAYSHARE": 0x80, "GROWSDOWN": 0x100, "UFFD_MISSING": 0x200, "PFNMAP": 0x400, "LOCKED": 0x2000, "IO": 0x4000,
    "SEQ_READ": 0x8000, "RAND_READ": 0x10000, "DONTCOPY": 0x20000, "DONTEXPAND": 0x40000, "LOCKONFAULT": 0x80000,
    "ACCOUNT": 0x100000, "NORESERVE": 0x200000, "HUGETLB": 0x400000, "SYNC": 0x800000, "WIPEONFORK": 0x2000000,
    "DONTDUMP": 0x4000000, "SOFTDIRTY": 0x8000000, "MIXEDMAP": 0x10000000, "HUGEPAGE": 0x20000000,
    "NOHUGEPAGE": 0x40000000, "MERGEABLE": 0x80000000,
}  # fmt: skip
"""VM_*, where they have been since 4.14. Source: include/linux/mm.h."""


def _flags_row(session: Session, text: str) -> VmRow:
    """Return what vm_flags mean, in `problem`: there is no task in it."""
    try:
        flags = int(text, 16)
    except ValueError:
        raise UsageError(f"{text!r} is no hexadecimal number") from None
    names = [name for name, bit in _FLAG_NAMES.items() if flags & bit]
    return VmRow(-1, 0, -1, "", 0, 0, 0, 0, (), f"{flags:x}: ({'|'.join(names)})")


def _render_pages(area: Area) -> Iterator[str]:
    yield from columns(("      VMA", "START", "END", "FLAGS", "FILE"),
                       [(f"{area.vma:016x}", f"{area.start:x}", f"{area.end:x}", f"{area.flags:x}", area.file)],
                       "<>>><")
    yield "VIRTUAL     PHYSICAL"
    for page in area.pages:
        if page.physical is not None:
            where = f"{page.physical:x}"
        elif page.swap:
            where = f"SWAP: {page.swap}  OFFSET: {page.offset}"
        elif page.offset is not None:
            where = f"FILE: {area.file}  OFFSET: {page.offset:x}"
        else:
            where = "(not mapped)"
        yield f"{page.virtual:<10x}  {where}"


def _holds(area: Area, text: str) -> bool:
    try:
        return area.start <= int(text, 16) < area.end
    except ValueError:
        return False


COMMAND = Vm()
