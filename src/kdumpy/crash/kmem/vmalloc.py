"""`kmem -v`: what vmalloc() and vmap() gave out, area by area.

Source: mm/vmalloc.c; include/linux/vmalloc.h, struct vmap_area, struct vm_struct.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import drgn

from kdumpy.crash.command import Options
from kdumpy.crash.members import Members
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, NotInDump

_MOST = 1 << 22
"""Areas; a machine with all its memory in modules and stacks has some 100,000."""
_MOST_NODES = 1 << 12
"""vmap_nodes: as many as CPUs, 128 at most (mm/vmalloc.c, vmap_init_nodes())."""
_MOST_PROBLEMS = 8
_HALF = 1 << 63


@dataclass(frozen=True, slots=True)
class VmallocRow:
    """A range of the kernel's addresses that is in use."""

    area: int
    """Address of its struct vmap_area."""
    vm: int
    """Address of its struct vm_struct; 0 for one of vm_map_ram(), which has none."""
    start: int
    end: int
    bytes: int
    """Its size, with the guard page behind it."""
    pages: int | None
    """Pages behind it; 0 where they are not memory of vmalloc()'s own; None where that is not in the dump."""
    caller: str
    """Who asked for it, as symbol+offset; empty where that is not kept."""


class _Area(NamedTuple):
    """A struct vmap_area."""

    address: int
    start: int
    end: int
    vm: int


def rows(session: Session, options: Options) -> Iterator[VmallocRow]:
    """Yield the areas by address, or those that hold the addresses (virtual or physical) that are asked for.

    Raises:
        DamagedDump: a list of areas does not lead to its end; said behind the areas that were found.
        NotInDump: an address lies in no area.
    """
    wanted = [session.address(text) for text in options.addresses]
    areas, problems = all_areas(session.prog)
    details = _Details(session)
    met = set[int]()
    for place, start, end, vm in areas:
        held = [address for address in wanted if _holds(session, start, end, address)]
        if held or not wanted:
            met.update(held)
            yield VmallocRow(place, vm, start, end, end - start, *details.of(vm))
    if problems:
        raise DamagedDump("not all areas were found", why="; ".join(problems))
    if set(wanted) - met:
        raise NotInDump("in no area of vmalloc's", where=", ".join(f"{one:x}" for one in wanted if one not in met))


def _holds(session: Session, start: int, end: int, address: int) -> bool:
    if address >= _HALF:
        return start <= address < end
    return any(physical <= address < physical + size
               for _, physical, size in session.arrays.memory.extents(start, end))


def all_areas(prog: drgn.Program) -> tuple[list[_Area], list[str]]:
    """Return all areas by address, and why they are not all.

    Raises:
        READ_ERRORS: where the lists begin is not known.
    """
    lists = _Lists(prog)
    for head in _heads(prog):
        lists.follow(head)
    problems = lists.problems
    if len(problems) > _MOST_PROBLEMS:
        problems = [*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS} more"]
    return sorted(lists.areas, key=lambda area: area.start), problems


def _heads(prog: drgn.Program) -> Sequence[int]:
    """Return the addresses of the heads of the lists.

    One list, until d093602919ad "mm: vmalloc: remove global vmap_area_root rb-tree" (6.9) made one a node.
    """
    try:
        nodes = prog["vmap_nodes"].read_()
    except LookupError:
        head: int = prog["vmap_area_list"].address_
        return [head]
    count = prog["nr_vmap_nodes"].value_()
    if count > _MOST_NODES:
        raise DamagedDump(f"{count} lists of areas are not believed", where="nr_vmap_nodes")
    return [nodes[number].busy.head.address_ for number in range(count)]


class _Lists:
    """Follows lists of areas: forwards, and where one is torn backwards too."""

    def __init__(self, prog: drgn.Program) -> None:
        """Find out where the members lie.

        Raises:
            LookupError: a structure is not as known here.
        """
        self.prog = prog
        names = ("list.next", "list.prev", "va_start", "va_end", "vm")
        self.members = Members(prog, "struct vmap_area", *names)
        self.link = int(drgn.offsetof(prog.type("struct vmap_area"), "list"))
        self.areas: list[_Area] = []
        self.seen = set[int]()
        """Addresses of the links."""
        self.problems: list[str] = []

    def follow(self, head: int) -> None:
        """Take up the areas of the list of a head.

        Raises:
            drgn.FaultError: the head is not in the dump.
        """
        self.seen.add(head)
        for place, start in enumerate((self.prog.read_u64(head), self.prog.read_u64(head + 8))):
            problem = self._walk(head, int(start), place)
            if not problem:
                return
            if not place:
                self.problems.append(f"the list at {head:016x} {problem}")

    def _walk(self, head: int, current: int, place: int) -> str:
        """Follow next (0) or prev (1) to the head, or to where the list was followed before; return what is wrong."""
        before = head
        while current != head:
            if current in self.seen:
                return f"runs in a circle at {current:016x}"
            if len(self.areas) >= _MOST:
                return f"was cut after {_MOST} areas"
            address = current - self.link & 2 * _HALF - 1
            try:
                *links, start, end, vm = self.members.read(address)
            except drgn.FaultError:
                return f"leads from {before:016x} to {current:016x}, which is not in the dump"
            self.seen.add(current)
            if _HALF <= start < end:
                self.areas.append(_Area(address, start, end, vm))
            else:
                self.problems.append(f"{address:016x} is no area: it begins at {start:x} and ends at {end:x}")
            before, current = current, links[place]
        return ""


class _Details:
    """What the vm_structs tell."""

    def __init__(self, session: Session) -> None:
        self.session = session
        try:
            self._members: Members | None = Members(session.prog, "struct vm_struct", "nr_pages", "caller")
        except READ_ERRORS:
            self._members = None
        self._callers: dict[int, str] = {0: ""}

    def of(self, vm: int) -> tuple[int | None, str]:
        """Return how many pages lie behind an area, and who asked for it."""
        if not vm or self._members is None:
            return None, ""
        try:
            pages, caller = self._members.read(vm)
        except READ_ERRORS:
            return None, ""
        if caller not in self._callers:
            self._callers[caller] = self.session.place(caller)
        return pages, self._callers[caller]


def render(found: Iterable[VmallocRow], session: Session, options: Options) -> Iterator[str]:
    """Lay the areas out as crash does."""
    yield f"{'VMAP_AREA':^16}  {'VM_STRUCT':^16}  {'ADDRESS RANGE':^35}     SIZE"
    for row in found:
        yield f"{row.area:016x}  {row.vm:016x}  {row.start:016x} - {row.end:016x}  {row.bytes:7}"
