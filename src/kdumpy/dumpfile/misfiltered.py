"""Were pages left out that no dump level leaves out? Then the program that wrote the dump did not know the kernel.

Three kinds of pages must be there whatever the level: those mapped for modules, the stacks that the CPUs were on,
and slab pages. makedumpfile before 1.7.6 takes slab pages of 6.10 and newer for user pages, since PG_slab became
a page type ("mm: free up PG_slab", 46df8e73a4a3) and the low bit of what was `mapping` is set in some of them;
where struct page has compound_info (seen in 7.2) their tail pages too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import KdumpyError, NotInDump

_X86_IMAGE, _X86_MODULES_END = 0xffffffff80000000, 0xffffffffff000000
"""__START_KERNEL_map and MODULES_END; arch/x86/include/asm/pgtable_64_types.h. The modules follow the image."""
_MOST_MODULE_PAGES = 16384
_MOST_TABLES = 512
_WINDOWS = 512
"""Pages of struct page that are looked at; each tells of 64 pages (4 KiB, 64 bytes each)."""
_TYPE_MASK = 0xff000000
"""The page type is the top byte. Source: "mm: support only one page_type per page", 4ffca5a96678 (6.12)."""
_UNTYPED = 0xffffffff


@dataclass(frozen=True, slots=True)
class Lacking:
    """Pages of one kind that the dump should have."""

    what: str
    lacking: int
    looked_at: int


def lacking_pages(dump: Dump, *, thorough: bool = False) -> Iterator[Lacking]:
    """Yield the kinds of pages of which the dump lacks some; what cannot be judged is left out."""
    try:
        memory = KernelMemory(dump)
    except KdumpyError:
        return
    for judge in (_modules, _stacks):
        try:
            found = judge(dump, memory)
        except KdumpyError:
            continue
        if found.lacking:
            yield found
    try:
        found = _slab(dump, memory, None if thorough else _WINDOWS)
    except KdumpyError:
        return
    if found.lacking:
        yield found


def _modules(dump: Dump, memory: KernelMemory) -> Lacking:
    info = dump.vmcoreinfo
    if dump.machine is Machine.X86_64:
        start, stop = _X86_IMAGE + info.number("KERNEL_IMAGE_SIZE"), _X86_MODULES_END
    else:
        start, stop = info.number("MODULES_VADDR"), info.number("MODULES_END")
    lacking = looked_at = 0
    for physical in memory.mapped(start, stop, most_tables=_MOST_TABLES):
        pfn = physical // dump.page_size
        if pfn >= dump.max_pfn or looked_at >= _MOST_MODULE_PAGES:
            continue
        looked_at += 1
        lacking += not dump.has_page(pfn)
    return Lacking("pages of modules", lacking, looked_at)


def _stacks(dump: Dump, memory: KernelMemory) -> Lacking:
    name = "rsp" if dump.machine is Machine.X86_64 else "sp"
    lacking = looked_at = 0
    for cpu in dump.prstatus:
        try:
            pfn = memory.translate(cpu.registers[name]) // dump.page_size
        except KdumpyError:
            continue  # it was in user space
        looked_at += 1
        lacking += not dump.has_page(pfn)
    return Lacking("stacks of CPUs", lacking, looked_at)


def _slab(dump: Dump, memory: KernelMemory, windows: int | None) -> Lacking:
    info = dump.vmcoreinfo
    base = info.symbol("vmemmap")
    size = info.size_of("page")
    slab = info.number("PAGE_SLAB_MAPCOUNT_VALUE") & _TYPE_MASK
    type_at = info.offset("page._mapcount") // 4
    try:
        head_at = info.offset("page.compound_head") // 4
    except NotInDump:
        head_at = info.offset("page.compound_info") // 4  # renamed with its new encoding; bit 0 still means tail
    if size % 8 or not 32 <= size <= 256 or max(type_at, head_at) * 4 > size - 4 or min(type_at, head_at) < 0:
        raise NotInDump("VMCOREINFO's offsets of struct page do not fit together")
    each = memory.page_size // size
    stride = size // 4
    total = -(-dump.max_pfn // each)
    chosen = range(total) if windows is None or total <= windows else range(0, total, -(-total // windows))
    lacking = looked_at = 0
    for window in chosen:
        first = window * each
        try:
            words = memoryview(memory.read(base + first * size, each * size)).cast("I")
        except KdumpyError:
            continue  # no memory there
        types, heads = words[type_at::stride].tolist(), words[head_at::stride].tolist()
        in_slab = False
        for number, (kind, head) in enumerate(zip(types, heads, strict=True)):
            if not head & 1:
                in_slab = kind != _UNTYPED and kind & _TYPE_MASK == slab
            if in_slab:
                looked_at += 1
                lacking += not dump.has_page(first + number)
    return Lacking("slab pages", lacking, looked_at)
