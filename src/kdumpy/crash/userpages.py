"""Where the pages of a task's address space are: in memory, in the swap, in their file, or nowhere yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import drgn

from kdumpy.crash.areas import UserPage
from kdumpy.crash.session import Session
from kdumpy.dumpfile.paging import KernelMemory, PageTables
from kdumpy.errors import KdumpyError, NotInDump


class Extent(Protocol):
    """What is asked of an area."""

    @property
    def vma(self) -> int:
        """Address of its vm_area_struct."""

    @property
    def start(self) -> int:
        """The first address."""

    @property
    def end(self) -> int:
        """One past the last."""


def pages_of(session: Session, mm: int, area: Extent) -> Iterator[UserPage]:
    """Yield every page of an area. A page table that is not in the dump counts as empty.

    Raises:
        KdumpyError: the top table's address cannot be had.
    """
    from kdumpy.crash.commands.pte import decode

    memory = session.arrays.memory
    space = drgn.Object(session.prog, "struct mm_struct *", value=mm)
    vma = drgn.Object(session.prog, "struct vm_area_struct *", value=area.vma)
    first = vma.vm_pgoff.value_() * memory.page_size if vma.vm_file else None
    root = memory.translate(space.pgd.value_())
    is_x86 = session.kernel.system.machine == "x86_64"
    walker = _Walker(memory, root)
    for virtual in range(area.start, area.end, memory.page_size):
        physical, entry = walker.find(virtual)
        swap, offset = "", None if first is None else first + virtual - area.start
        if physical is None and entry and is_x86:
            found = decode(session, entry)
            if found.offset is not None:
                swap, offset = found.swap, found.offset
        yield UserPage(virtual, physical, swap, offset)


def in_user_space(session: Session, made: drgn.Type, address: int) -> drgn.Object:
    """Return a value that lies in the context task's user space.

    Raises:
        NotInDump: the task has none.
        drgn.FaultError: it is not in the dump.
    """
    data = read_user(session, address, drgn.sizeof(made))
    return drgn.Object.from_bytes_(session.prog, made, data)


def read_user(session: Session, address: int, size: int) -> bytes:
    """Read the context task's user space.

    Raises:
        NotInDump: the task has none.
        drgn.FaultError: it is not in the dump.
    """
    from drgn.helpers.linux.mm import access_process_vm

    if not session.context.mm:
        raise NotInDump("the context task has no user space", mend="set another: set PID")
    return bytes(access_process_vm(session.context, address, size))


class _Walker:
    """Walks page tables; each table is read once for all of its neighbours."""

    def __init__(self, memory: KernelMemory, root: int) -> None:
        self._memory = memory
        self._root = root
        self._tables: dict[int, bytes] = {}

    def find(self, address: int) -> tuple[int | None, int]:
        """Return (physical address or None, the entry that ended the walk)."""
        tables: PageTables = self._memory.tables
        table = self._root
        for shift in tables.shifts:
            index = address >> shift & self._memory.page_size // 8 - 1
            entry = int.from_bytes(self._table(table)[8 * index:8 * index + 8], "little")
            try:
                table, leaf = tables.step(entry, shift)
            except LookupError:
                # Only the lowest level keeps where a page went to.
                return None, entry if shift == tables.shifts[-1] else 0
            if leaf:
                inside = (1 << shift) - 1
                return table & ~inside | address & inside, entry
        return None, 0

    def _table(self, physical: int) -> bytes:
        found = self._tables.get(physical)
        if found is None:
            try:
                found = self._memory.dump.read_physical(physical, self._memory.page_size)
            except KdumpyError:
                found = bytes(self._memory.page_size)
            if len(self._tables) > 64:
                self._tables.clear()
            self._tables[physical] = found
        return found
