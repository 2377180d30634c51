"""The mappings of address spaces, read with few calls, and once for all the threads that share them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

import drgn
from drgn.helpers.linux.fs import d_path
from drgn.helpers.linux.mm import for_each_vma

from kdumpy.crash.recent import Recent
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump
from kdumpy.kernel.resident import resident_pages

_MOST = 1 << 20
"""Areas of one address space (vm.max_map_count is 65530)."""
_KEPT_AREAS = 4096
"""Areas of an address space that is kept."""
_MOST_PATHS = 1 << 14
_HIGHEST = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class UserPage:
    """A page of an address space."""

    virtual: int
    physical: int | None
    """None where it is not in memory."""
    swap: str
    """The swap device or file that holds it; or empty."""
    offset: int | None
    """In the swap, in pages; in the file, in bytes; None for a page that nothing backs."""


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
    pages: tuple[UserPage, ...] = ()
    """With -p and -P."""


class Space(NamedTuple):
    """An address space (struct mm_struct)."""

    pgd: int
    total: int
    """Pages."""
    rss: int
    """Pages; 0 where no task was given whose threads' counters are part of it."""
    areas: tuple[Area, ...]
    problem: str
    """What could not be read; empty when all is there."""


class Spaces:
    """Reads the address spaces of one program."""

    def __init__(self, prog: drgn.Program) -> None:
        self.prog = prog
        self._known = Recent[Space]()
        """By (mm, process): a child of vfork() shares its parent's, and drgn counts its resident pages apart."""
        try:
            self._reader: _Reader | None = _Reader(prog)
        except LookupError:         # a structure is not as known here
            self._reader = None

    def of(self, mm: drgn.Object, task: drgn.Object | None = None) -> Space:
        """Return what a `struct mm_struct *` holds; where it cannot be read to its end, with the reason.

        Args:
            mm: the address space.
            task: a task that has it; None where its resident pages are not asked for.
        """
        if task is None:
            return self._read(mm, None)
        return self._known.get((mm.value_(), task.tgid.value_()), lambda: self._read(mm, task),
                               keep=lambda space: len(space.areas) <= _KEPT_AREAS)

    def _read(self, mm: drgn.Object, task: drgn.Object | None) -> Space:
        pgd = total = rss = 0
        areas: list[Area] = []
        problem = ""
        try:
            pgd, total = mm.pgd.value_(), mm.total_vm.value_()
            rss = resident_pages(task) if task is not None else 0
            for area in self._areas(mm):
                areas.append(area)
                if len(areas) >= _MOST:
                    problem = f"cut after {_MOST} areas"
                    break
        except READ_ERRORS as error:
            problem = f"not all can be read: {error}"
        return Space(pgd, total, rss, tuple(areas), problem)

    def _areas(self, mm: drgn.Object) -> Iterator[Area]:
        """Yield the mappings of a `struct mm_struct *`.

        Raises:
            READ_ERRORS: they cannot be read to their end.
        """
        if self._reader is None:
            yield from (area_of(mm, vma) for vma in for_each_vma(mm))
            return
        marks = mm.start_brk.value_(), mm.brk.value_(), mm.start_stack.value_()
        if self._reader.linked:
            yield from self._reader.chain(mm, marks)
            return
        for vma in for_each_vma(mm):
            try:
                yield self._reader.area(vma.value_(), marks)
            except drgn.FaultError:         # what is not asked for may lie in the page that is missing
                yield area_of(mm, vma)


class _Reader:
    """Reads a `struct vm_area_struct` with one call, and one for its file."""

    def __init__(self, prog: drgn.Program) -> None:
        """Find out where the members lie.

        Raises:
            LookupError: a structure is not as known here.
        """
        self.prog = prog
        made = prog.type("struct vm_area_struct")
        # 763ecb035029 "mm: remove the vma linked list" (6.1)
        self.linked = made.has_member("vm_next")
        """Each area leads to the next."""
        names = ("vm_start", "vm_end", "vm_flags", "vm_file", *(("vm_next",) if self.linked else ()))
        places = [int(drgn.offsetof(made, name)) for name in names]
        self._first, self._size = min(places), max(places) + 8 - min(places)
        if self._size > drgn.sizeof(made) or any(place % 8 for place in places):
            raise LookupError("the members of struct vm_area_struct lie nowhere")
        self._words = struct.Struct(f"<{self._size // 8}Q")
        self._places = [(place - self._first) // 8 for place in places]
        # f_path is a pair of pointers: include/linux/path.h.
        self._path = int(drgn.offsetof(prog.type("struct file"), "f_path"))
        self._path_of = lru_cache(_MOST_PATHS)(self._named)
        self._path_of_file = lru_cache(_MOST_PATHS)(self._file)
        self._wanted = itemgetter(*self._places[:4])

    def area(self, vma: int, marks: tuple[int, int, int]) -> Area:
        """Return an area; `marks`: start_brk, brk and start_stack of its address space.

        Raises:
            drgn.FaultError: it is not in the dump.
        """
        return self._area(vma, self._words.unpack(self.prog.read(vma + self._first, self._size)), marks)

    def chain(self, mm: drgn.Object, marks: tuple[int, int, int]) -> Iterator[Area]:
        """Yield the areas of an address space, each leading to the next.

        Raises:
            DamagedDump: they lead back to where they came from.
            READ_ERRORS: they cannot be read to their end.
        """
        read, unpack, following = self.prog.read, self._words.unpack, self._places[-1]
        seen: set[int] = set()
        vma = mm.mmap.value_()
        while vma:
            if vma in seen:
                raise DamagedDump("the areas run in a circle", where=f"vm_area_struct {vma:#x}")
            seen.add(vma)
            try:
                words = unpack(read(vma + self._first & _HIGHEST, self._size))
                yield self._area(vma, words, marks)
                vma = words[following]
            except drgn.FaultError:         # what is not asked for may lie in the page that is missing
                found = drgn.Object(self.prog, "struct vm_area_struct *", value=vma)
                yield area_of(mm, found)
                vma = found.vm_next.value_()

    def _area(self, vma: int, words: tuple[int, ...], marks: tuple[int, int, int]) -> Area:
        start, end, flags, file = self._wanted(words)
        return Area(vma, start, end, flags, self._path_of_file(file) if file else _purpose(start, end, *marks))

    def _file(self, file: int) -> str:
        return self._path_of(self.prog.read(file + self._path, 16))

    def _named(self, path: bytes) -> str:
        """Return the name of a struct path."""
        return _name(drgn.Object.from_bytes_(self.prog, self.prog.type("struct path"), path))


def area_of(mm: drgn.Object, vma: drgn.Object) -> Area:
    """Read a `struct vm_area_struct *`.

    Raises:
        READ_ERRORS: it cannot be read.
    """
    start, end = vma.vm_start.value_(), vma.vm_end.value_()
    name = _name(vma.vm_file.f_path) if vma.vm_file else \
        _purpose(start, end, mm.start_brk.value_(), mm.brk.value_(), mm.start_stack.value_())
    return Area(vma.value_(), start, end, vma.vm_flags.value_(), name)


def _name(path: drgn.Object) -> str:
    try:
        return str(d_path(path).decode("utf-8", "backslashreplace"))
    except drgn.FaultError:
        return "(not in the dump)"
    except READ_ERRORS:
        return "(damaged)"


def _purpose(start: int, end: int, start_brk: int, brk: int, start_stack: int) -> str:
    """Say what memory without a file is for. Source: fs/proc/task_mmu.c, show_map_vma()."""
    if start <= brk and end >= start_brk:
        return "[heap]"
    return "[stack]" if start <= start_stack <= end else ""
