"""`vm`: the address space of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.fs import d_path
from drgn.helpers.linux.mm import for_each_vma, task_rss
from drgn.helpers.linux.sched import task_cpu

from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.commands.bt import header
from kdumpy.crash.layout import Layout
from kdumpy.crash.session import Session

_MOST = 1 << 20
"""Areas of one task (vm.max_map_count is 65530)."""


@dataclass(frozen=True)
class Area:
    """A mapping (struct vm_area_struct)."""

    vma: int
    """Its address."""
    start: int
    end: int
    flags: int
    """VM_* (include/linux/mm.h)."""
    file: str
    """Path of the file, [heap], [stack], or empty."""


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
        Arg("-R", dest="reference", metavar="TEXT", help="only areas of this file, or that hold this address"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[VmRow]:
        """Yield a row a task."""
        for task in session.tasks_of(options.tasks):
            row = _row(session, task, options.reference)
            if row.areas or not options.reference:
                yield row

    def render(self, rows: Iterable[VmRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the address spaces out as crash does."""
        for number, row in enumerate(rows):
            if number:
                yield ""
            yield header(row.pid, row.task, row.cpu, row.command)
            if options.mm or options.vmas:
                yield from _structures(session, row, options)
                continue
            yield from columns(("       MM", "      PGD", "RSS", "TOTAL_VM"),
                               [(f"{row.mm:016x}", f"{row.pgd:016x}", f"{row.rss_kb}k", f"{row.total_kb}k")], "<<>>")
            if row.areas:
                yield from columns(
                    ("      VMA", "START", "END", "FLAGS", "FILE"),
                    ((f"{area.vma:016x}", f"{area.start:x}", f"{area.end:x}", f"{area.flags:x}", area.file)
                     for area in row.areas), "<>>><")
            if row.problem:
                yield f"({row.problem})"


def _structures(session: Session, row: VmRow, options: Options) -> Iterator[str]:
    layout = Layout(session)
    for name, addresses in (("struct mm_struct", [row.mm] if options.mm and row.mm else []),
                            ("struct vm_area_struct", [area.vma for area in row.areas] if options.vmas else [])):
        for address in addresses:
            yield f"{name} {layout.value(drgn.Object(session.prog, name, address=address))}"


def _row(session: Session, task: drgn.Object, reference: str | None) -> VmRow:
    page_kb = int(session.prog["PAGE_SIZE"]) // 1024
    mm, pgd, rss, total, problem = 0, 0, 0, 0, ""
    areas: list[Area] = []
    try:
        mm = task.mm.value_()
        if mm:
            pgd, total = task.mm.pgd.value_(), task.mm.total_vm.value_() * page_kb
            rss = task_rss(task).total * page_kb
            for vma in for_each_vma(task.mm):
                area = _area(task.mm, vma)
                if reference is None or area.file == reference or _holds(area, reference):
                    areas.append(area)
                if len(areas) >= _MOST:
                    problem = f"cut after {_MOST} areas"
                    break
    except (drgn.FaultError, LookupError, AttributeError, ValueError) as error:
        problem = f"not all can be read: {error}"
    return VmRow(task.pid.value_(), task.value_(), task_cpu(task),
                 task.comm.string_().decode("utf-8", "backslashreplace"), mm, pgd, rss, total, tuple(areas), problem)


def _area(mm: drgn.Object, vma: drgn.Object) -> Area:
    start, end = vma.vm_start.value_(), vma.vm_end.value_()
    name = ""
    if vma.vm_file:
        try:
            name = d_path(vma.vm_file.f_path).decode("utf-8", "backslashreplace")
        except (drgn.FaultError, ValueError, LookupError):
            name = "(not in the dump)"
    # Source: fs/proc/task_mmu.c, show_map_vma().
    elif start <= mm.brk.value_() and end >= mm.start_brk.value_():
        name = "[heap]"
    elif start <= mm.start_stack.value_() <= end:
        name = "[stack]"
    return Area(vma.value_(), start, end, vma.vm_flags.value_(), name)


def _holds(area: Area, text: str) -> bool:
    try:
        return area.start <= int(text, 16) < area.end
    except ValueError:
        return False


COMMAND = Vm()
