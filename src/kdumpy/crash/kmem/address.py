"""`kmem ADDRESS`: what lies at an address: a symbol, an object of a slab, a task or its stack, an area, a page."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import drgn

from kdumpy.crash.command import Options
from kdumpy.crash.commands.sym import Sym, SymbolRow, symbol_row
from kdumpy.crash.failures import explain
from kdumpy.crash.kmem import slabs, vmalloc
from kdumpy.crash.kmem.pages import PageRow
from kdumpy.crash.kmem.somepages import HEADER, SomePages, line
from kdumpy.crash.kmem.vmalloc import VmallocRow
from kdumpy.crash.members import Members
from kdumpy.crash.session import Session
from kdumpy.crash.taskgroups import QueuedTask, queued_task
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import KdumpyError, NotInDump
from kdumpy.kernel.taskreader import tasks_by_id

_HALF = 1 << 63
_STACK_CACHE = "thread_stack"
"""Where stacks are smaller than a page (kernel/fork.c, thread_stack_cache_init())."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class AddressRow:
    """What lies at an address."""

    address: int
    """As it was given: virtual, or physical."""
    symbol: SymbolRow | None
    cache: slabs.CacheRow | None
    """The slab cache, with the slab and the object."""
    task: QueuedTask | None
    """The task that the address belongs to, or whose stack."""
    area: VmallocRow | None
    """The area of vmalloc's."""
    page: PageRow | None
    """The page of memory behind it, or whose struct page it is."""
    problem: str
    """What could not be read; empty when all could."""


def rows(session: Session, options: Options) -> Iterator[AddressRow]:
    """Yield a row an address.

    Raises:
        NotInDump: nothing is known of an address.
    """
    unknown = []
    for text in options.addresses:
        row = _Looking(session, session.address(text)).row()
        if row.symbol or row.cache or row.task or row.area or row.page:
            yield row
        else:
            unknown.append(f"{text}: {row.problem or 'no page lies there'}")
    if unknown:
        raise NotInDump("nothing is known of this address", why="; ".join(unknown))


class _Looking:
    """Looks for what lies at an address."""

    def __init__(self, session: Session, address: int) -> None:
        self.session, self.address = session, address
        self.pages = SomePages(session)
        self.problems: list[str] = []

    def row(self) -> AddressRow:
        """Return what was found."""
        pfn = (self.address - self.pages.base) // self.pages.pages.size
        if 0 <= pfn < self.session.kernel.dump.max_pfn and self.address >= _HALF:
            page = self._try("the struct page", lambda: self.pages.at(pfn))
            return AddressRow(self.address, None, None, None, None, page, "; ".join(self.problems))
        virtual, physical = self._places()
        symbol = self.session.symbol(virtual) if virtual else None
        name = self._try("the slab cache", lambda: self.session.slab_names.of(virtual)) or ""
        cache = self._try("the slab cache", lambda: self._cache(virtual)) if name else None
        area = self._try("the areas", lambda: self._area(virtual)) if virtual and not name else None
        task = self._try("the tasks", lambda: self._task(virtual, name, area))
        page = None if physical is None else self._try(
            "the struct page", lambda: self.pages.at(physical // self.session.arrays.page_size))
        return AddressRow(self.address, symbol_row(self.session, symbol, virtual) if symbol else None, cache, task,
                          area, page, "; ".join(self.problems))

    def _places(self) -> tuple[int, int | None]:
        """Return the virtual address, 0 where there is none, and the physical one."""
        arrays = self.session.arrays
        if self.address < _HALF:
            direct = arrays.direct
            known = self.address < arrays.dump.max_pfn * arrays.page_size
            return (direct + self.address if direct is not None and known else 0), self.address if known else None
        try:
            return self.address, arrays.memory.translate(self.address)
        except KdumpyError:
            return self.address, None

    def _try(self, what: str, read: Callable[[], Found]) -> Found | None:
        try:
            return read()
        except READ_ERRORS as error:
            self.problems.append(f"{what}: {explain(error)}")
            return None

    def _cache(self, virtual: int) -> slabs.CacheRow | None:
        return slabs.holder(self.session, virtual)

    def _area(self, virtual: int) -> VmallocRow | None:
        try:
            return next(vmalloc.rows(self.session, argparse.Namespace(addresses=[f"{virtual:x}"])), None)
        except NotInDump:
            return None

    def _task(self, virtual: int, cache: str, area: VmallocRow | None) -> QueuedTask | None:
        """Return the task that an address belongs to: it lies in its task_struct, or on its stack."""
        prog = self.session.prog
        members = Members(prog, "struct task_struct", "stack")
        size, stack = drgn.sizeof(prog.type("struct task_struct")), int(prog["THREAD_SIZE"])
        idle = prog["init_task"].address_of_()
        if cache == "task_struct" or idle.value_() <= virtual < idle.value_() + size:
            wanted, length = None, size
        elif area is not None or cache == _STACK_CACHE:
            wanted, length = members, stack
        else:
            return None
        for task in (idle, *tasks_by_id(prog)):
            begin = task.value_() if wanted is None else wanted.read(task.value_())[0]
            if begin <= virtual < begin + length:
                return queued_task(task)
        return None


def render(found: Iterable[AddressRow], session: Session, options: Options) -> Iterator[str]:
    """Lay what was found out as crash does."""
    from kdumpy.crash.commands.sys import context_facts

    begun = False
    for row in found:
        parts: list[Iterable[str]] = []
        if row.symbol is not None:
            parts.append(Sym().render([row.symbol], session, options))
        if row.cache is not None:
            parts.append(slabs.render([row.cache], session, argparse.Namespace(slabs_all=False)))
        if row.area is not None:
            parts.append(vmalloc.render([row.area], session, options))
        if row.task is not None:
            parts.append(f"{fact.name:>7}: {fact.value}"
                         for fact in context_facts(session, session.kernel.task_object(row.task.task)))
        if row.page is not None:
            parts.append((HEADER, line(row.page)))
        if row.problem:
            parts.append((f"({row.problem})",))
        for part in parts:
            if begun:
                yield ""
            begun = True
            yield from part
