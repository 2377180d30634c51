"""`kmem -n`: NUMA nodes with their zones, the sections of memory, and the blocks that can be plugged in and out.

Source: include/linux/mmzone.h, struct pglist_data, struct mem_section; include/linux/memory.h, struct memory_block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import drgn
from drgn.helpers.linux.device import dev_name
from drgn.helpers.linux.kernfs import kernfs_children, kernfs_name
from drgn.helpers.linux.mm import (
    decode_memory_block_state,
    for_each_memory_block,
    memory_block_size_bytes,
    pfn_to_page,
)
from drgn.helpers.linux.mmzone import for_each_online_pgdat, section_nr_to_pfn
from drgn.helpers.linux.sysfs import sysfs_lookup_node

from kdumpy.crash.command import Options
from kdumpy.crash.failures import explain
from kdumpy.crash.kmem.counters import zones_of
from kdumpy.crash.kmem.zones import zone_name
from kdumpy.crash.memory.bits import page_struct_size
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.paging import kernel_page_size
from kdumpy.errors import DamagedDump, NotInDump

_MOST_SECTIONS = 1 << 20
"""128 TiB of memory, a section of 128 MiB each."""
_BLOCK = re.compile(rb"memory\d+")
"""The directory of a block in sysfs."""
_LINE = "-" * 67
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class ZonePlace:
    """Where a zone lies."""

    zone: int
    """Its place among the node's zones."""
    address: int
    """Of its struct zone."""
    name: str
    pages: int
    """From its first to its last, holes too."""
    mem_map: int | None
    """Address of its first struct page; 0 for a zone without memory, as are the fields behind; None if not known."""
    physical: int
    first_page: int
    """Page frame number."""


@dataclass(frozen=True)
class NodeRow:
    """A node."""

    kind: str
    """`node`"""
    node: int
    pages: int
    """From its first to its last, holes too."""
    pglist_data: int
    """Address of its struct pglist_data."""
    mem_map: int | None
    """Address of its first struct page; None if not known."""
    physical: int
    first_page: int
    """Page frame number."""
    zones: tuple[ZonePlace, ...]


@dataclass(frozen=True)
class SectionRow:
    """A section of memory that is there (CONFIG_SPARSEMEM)."""

    kind: str
    """`section`"""
    section: int
    address: int
    """Of its struct mem_section."""
    coded_mem_map: int
    """What stands there, without the state."""
    mem_map: int
    """Address of its first struct page."""
    state: str
    """P present, M has struct pages, O online, E there since the boot, D has memory of a device too."""
    first_page: int
    """Page frame number."""


@dataclass(frozen=True)
class BlockRow:
    """A block of memory that can be plugged in and out (CONFIG_MEMORY_HOTPLUG)."""

    kind: str
    """`block`"""
    address: int
    """Of its struct memory_block."""
    name: str
    start: int
    """Physical address of its first byte."""
    end: int
    """Physical address of its last byte."""
    node: int | None
    """None where the kernel does not keep it."""
    state: str
    """ONLINE, OFFLINE, …"""
    section: int
    """The first of its sections."""


def rows(session: Session, options: Options) -> Iterator[NodeRow | SectionRow | BlockRow]:
    """Yield the nodes, then the sections, then the blocks.

    Raises:
        NotInDump: some of it cannot be read; said behind the rest.
    """
    problems = []
    for name, read in (("nodes", _nodes), ("sections", _sections), ("memory blocks", _blocks)):
        try:
            yield from read(session)
        except READ_ERRORS as error:
            problems.append(f"{name}: {explain(error)}")
    if problems:
        raise NotInDump("not all can be read", why="; ".join(problems))


def _nodes(session: Session) -> Iterator[NodeRow]:
    page_size = kernel_page_size(session.kernel.dump)
    for node in for_each_online_pgdat(session.prog):
        places = []
        for number, zone in enumerate(zones_of(node)):
            pages = zone.spanned_pages.value_()
            first = zone.zone_start_pfn.value_() if pages else 0
            mem_map = _mem_map(session.prog, first) if pages else 0
            places.append(ZonePlace(number, zone.address_, zone_name(zone), pages, mem_map, first * page_size, first))
        first = node.node_start_pfn.value_()
        yield NodeRow("node", node.node_id.value_(), node.node_spanned_pages.value_(), node.value_(),
                      _mem_map(session.prog, first), first * page_size, first, tuple(places))


def _mem_map(prog: drgn.Program, pfn: int) -> int | None:
    """Return the address of a page's struct page; where these lie is found by the first section's."""
    try:
        return int(pfn_to_page(prog, pfn).value_())
    except READ_ERRORS:
        return None


def _sections(session: Session) -> Iterator[SectionRow]:
    """Yield the sections, read a root (a page of them) at a time."""
    prog = session.prog
    if "mem_section" not in prog:       # without CONFIG_SPARSEMEM
        return
    states, mask = _states(prog)
    made = prog.type("struct mem_section")
    size, at = int(drgn.sizeof(made)), int(drgn.offsetof(made, "section_mem_map"))
    pages = int(section_nr_to_pfn(prog, 1))
    coded_step = pages * page_struct_size(prog)
    for first, address, count in _roots(prog, session.kernel.dump.max_pfn // pages):
        data = prog.read(address, count * size)
        for number in range(count):
            word = int.from_bytes(data[number * size + at:number * size + at + 8], "little")
            if not word & 1:            # SECTION_MARKED_PRESENT
                continue
            section = first + number
            state = "".join(letter for bit, letter in states if word >> bit & 1)
            yield SectionRow("section", section, address + number * size, word & mask,
                             (word & mask) + section * coded_step & _WORD, state, section * pages)


def _states(prog: drgn.Program) -> tuple[list[tuple[int, str]], int]:
    """Return the bits of a section's state with crash's letters, and the mask of the address above them.

    An enumeration since ed7802dd48f7 "mm: memory_hotplug: enumerate all supported section flags" (6.0).
    """
    letters = {"SECTION_MARKED_PRESENT_BIT": "P", "SECTION_HAS_MEM_MAP_BIT": "M", "SECTION_IS_ONLINE_BIT": "O",
               "SECTION_IS_EARLY_BIT": "E", "SECTION_TAINT_ZONE_DEVICE_BIT": "D"}
    try:
        found = prog["SECTION_MARKED_PRESENT_BIT"].type_.enumerators or ()
    except LookupError:
        return list(enumerate("PMOED")), _WORD << 5 & _WORD
    last = next((value for name, value in found if name == "SECTION_MAP_LAST_BIT"), 5)
    return [(value, letters[name]) for name, value in found if name in letters], _WORD << last & _WORD


def _roots(prog: drgn.Program, last: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number of its first section, address, sections) of each array of struct mem_section that is there.

    Args:
        prog: the kernel.
        last: the section in which the memory of the dump ends, which serves where the kernel's own number does not.

    Raises:
        DamagedDump: there are too many.
    """
    each = int(prog["SECTIONS_PER_ROOT"])
    try:
        highest = int(prog["__highest_present_section_nr"])
    except READ_ERRORS:
        highest = last
    if highest >= _MOST_SECTIONS:
        highest = last
    if highest >= _MOST_SECTIONS or not 0 < each <= _MOST_SECTIONS:
        raise DamagedDump(f"{highest + 1} sections are not believed")
    table = prog["mem_section"]
    if table.type_.unaliased_kind() == drgn.TypeKind.POINTER:       # CONFIG_SPARSEMEM_EXTREME, since 4.15
        table = table.read_()
        if not table:
            return
    for number in range(highest // each + 1):
        root = table[number]
        address = root.value_() if root.type_.unaliased_kind() == drgn.TypeKind.POINTER else root.address_
        if address:
            yield number * each, address, min(each, highest + 1 - number * each)


def _blocks(session: Session) -> Iterator[BlockRow]:
    prog = session.prog
    try:
        known = prog.type("struct memory_block").has_member("nid")      # d0dc12e86b31, 4.17
    except LookupError:             # without CONFIG_MEMORY_HOTPLUG
        return
    page_size = kernel_page_size(session.kernel.dump)
    size = int(memory_block_size_bytes(prog))
    pages = int(section_nr_to_pfn(prog, 1))
    for number, block in enumerate(_memory_blocks(prog)):
        if number >= _MOST_SECTIONS:
            raise DamagedDump(f"cut after {number} blocks")
        section = block.start_section_nr.value_()
        start = section * pages * page_size
        yield BlockRow("block", block.value_(), dev_name(block.dev.address_of_()).decode("utf-8", "backslashreplace"),
                       start, start + size - 1, block.nid.value_() if known else None, _state(block), section)


def _memory_blocks(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield the `struct memory_block *`s: those of their bus, or of sysfs where the list of buses is not known.

    That is so on kernels without CONFIG_KALLSYMS_ALL: an arm64 one of Debian's 6.1.

    Raises:
        LookupError: neither is known.
    """
    try:
        yield from for_each_memory_block(prog)
        return
    except LookupError:
        directory = sysfs_lookup_node(prog, "devices/system/memory")
        if not directory:
            raise
    block = prog.type("struct memory_block")
    found = [drgn.container_of(drgn.cast("struct kobject *", node.priv), block, "dev.kobj")
             for node in kernfs_children(directory) if _BLOCK.fullmatch(kernfs_name(node))]
    yield from sorted(found, key=lambda one: one.start_section_nr.value_())


def _state(block: drgn.Object) -> str:
    try:
        return decode_memory_block_state(block).removeprefix("MEM_")
    except KeyError:            # none that the kernel has
        return str(block.state.value_())


def render(found: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
    """Lay the nodes, sections and blocks out as crash does."""
    begun = ""
    for kind, members in groupby(found, key=lambda row: row.kind):
        if kind == "node":
            for number, node in enumerate(members):
                if number:
                    yield from ("", _LINE, "")
                yield from _node_lines(node)
        elif kind == "section":
            yield from ("", _LINE, "")
            yield "NR      SECTION        CODED_MEM_MAP        MEM_MAP       STATE PFN"
            for row in members:
                yield (f"{row.section:2}  {row.address:016x}  {row.coded_mem_map:016x}  {row.mem_map:016x}  "
                       f"{row.state:<5} {row.first_page}")
        else:
            if begun:
                yield ""
            yield from _block_lines(list(members))
        begun = kind


def _node_lines(node: NodeRow) -> Iterator[str]:
    # crash's column of BOOTMEM_DATA stays for those who cut columns; 355c45affca7 (4.20) removed the thing.
    yield "NODE    SIZE      PGLIST_DATA       BOOTMEM_DATA       NODE_ZONES"
    heads = [f"{zone.address:016x}" for zone in node.zones] or [""]
    yield f"{node.node:>3} {node.pages:>9}   {node.pglist_data:016x}  {'----':^16}  {heads[0]}"
    yield from (f"{'':52}{head}" for head in heads[1:])
    yield f"{'MEM_MAP':^16}    START_PADDR    START_MAPNR"
    yield f"{_address(node.mem_map):<16}  {node.physical:>10x}  {node.first_page:^16}".rstrip()
    yield ""
    yield "ZONE  NAME         SIZE       MEM_MAP      START_PADDR  START_MAPNR"
    for zone in node.zones:
        yield (f"{zone.zone:>3}   {zone.name:<9} {zone.pages:>7}  {_address(zone.mem_map):>16}  {zone.physical:>11x}  "
               f"{zone.first_page:>11}")


def _address(value: int | None) -> str:
    return "(not known)" if value is None else f"{value:x}"


def _block_lines(blocks: list[BlockRow]) -> Iterator[str]:
    width = max(len(f"{row.end:x}") for row in blocks)
    name = max(max(len(row.name) for row in blocks), 7)
    ranges = f"{'PHYSICAL RANGE':^{2 * width + 3}}"
    yield f"{'MEM_BLOCK':^18}{'NAME':^{name + 4}} {ranges}  NODE  STATE   START_SECTION_NO"
    for row in blocks:
        node = "" if row.node is None else row.node
        yield (f" {row.address:016x}   {row.name:<{name}}   {row.start:>{width}x} - {row.end:>{width}x}  {node:^4}  "
               f"{row.state:<7} {row.section}")
