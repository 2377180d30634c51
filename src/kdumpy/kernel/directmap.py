"""Memory that the engine cannot reach because a page table is lost: its address says where it lies all the same.

The kernel maps all of memory once in a row, and its own image in another. A dump that was cut lacks what lies high,
which is where the page tables of both are. Source: Documentation/arch/x86/x86_64/mm.rst;
arch/x86/include/asm/page_64.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import KdumpyError

_IMAGE = 0xffff_ffff_8000_0000
"""__START_KERNEL_map. Source: arch/x86/include/asm/page_64_types.h."""
_LARGEST_IMAGE = 1 << 30
_PROBES = 16
"""Places at which it is looked whether memory can be reached."""

Reader = Callable[[int, int, int, bool], bytes]


def mend_image(prog: drgn.Program, dump: Dump) -> bool:
    """Let the engine read the kernel's image by arithmetic, where a page table of it is lost; return whether it is."""
    if dump.machine is not Machine.X86_64:      # the engine does it by itself there, as far as it can be done
        return False
    try:
        base = dump.vmcoreinfo.number("phys_base")
        size = dump.vmcoreinfo.number("KERNEL_IMAGE_SIZE", 512 << 20)
        known = [int(value, 16) for key, value in dump.vmcoreinfo.items() if key.startswith("SYMBOL(")]
    except (KdumpyError, ValueError):
        return False
    inside = [address for address in known if _IMAGE <= address < _IMAGE + size]
    if size > _LARGEST_IMAGE or not _lost(prog, dump, ((address, address - _IMAGE + base) for address in inside)):
        return False
    try:
        memory = KernelMemory(dump)
    except KdumpyError:
        return False
    prog.add_memory_segment(_IMAGE, size, _reader(memory.read))
    return True


def mend_direct_map(prog: drgn.Program, dump: Dump) -> bool:
    """Let the engine read the direct map by arithmetic, where a page table of it is lost; return whether it is."""
    if dump.machine is not Machine.X86_64:
        return False
    try:
        base = int(prog["page_offset_base"])
    except READ_ERRORS:
        return False
    page, end = dump.page_size, dump.max_pfn * dump.page_size
    probes = [pfn * page for pfn in range(0, dump.max_pfn, max(dump.max_pfn // _PROBES, 1))]
    if not base >> 63 or base + end >= 1 << 64 or not _lost(
            prog, dump, ((base + physical, physical) for physical in probes)):
        return False

    def read(address: int, size: int) -> bytes:
        return dump.read_physical(address - base, size)

    prog.add_memory_segment(base, end, _reader(read))
    return True


def _lost(prog: drgn.Program, dump: Dump, places: Iterable[tuple[int, int]]) -> bool:
    """Whether something that the dump holds cannot be reached by its address."""
    for address, physical in places:
        try:
            prog.read(address, 1)
        except drgn.FaultError as error:
            if "xcluded" in str(error):         # it was found, and filtered out
                continue
            try:
                dump.read_physical(physical, 1)
            except KdumpyError:
                continue
            return True
    return False


def _reader(read: Callable[[int, int], bytes]) -> Reader:
    def by_arithmetic(address: int, size: int, _offset: int, _physical: bool) -> bytes:
        try:
            return read(address, size)
        except KdumpyError as error:
            raise drgn.FaultError(error.why or str(error), address) from error

    return by_arithmetic
