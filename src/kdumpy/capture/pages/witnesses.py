"""Pages that every level must keep: a layout that says otherwise of one of them is not this kernel's.

A filter that misreads a kernel throws away what the dump is taken for (makedumpfile before 1.7.6 on Linux 6.10: slab
pages), and nobody sees it until the dump is wanted. So before anything is left out, what is known to be the kernel's
by its address alone is looked up among the struct pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.errors import KdumpyError

_SYMBOLS = ("_stext", "swapper_pg_dir", "init_uts_ns", "mem_section", "prb", "node_data")
_X86_IMAGE, _X86_MODULES_END = 0xffffffff80000000, 0xffffffffff000000
"""__START_KERNEL_map and MODULES_END; arch/x86/include/asm/pgtable_64_types.h. The modules follow the image."""
_MODULE_PAGES = 16
_TABLES = 16


def kernel_pages(memory: KernelMemory) -> Iterator[tuple[str, int]]:
    """Yield (what it is, physical address) of pages that are the kernel's; what cannot be found is left out."""
    info = memory.dump.vmcoreinfo
    for name in _SYMBOLS:
        try:
            yield name, memory.translate(info.symbol(name))
        except KdumpyError:
            continue
    try:
        if memory.dump.machine is Machine.X86_64:
            start, stop = _X86_IMAGE + info.number("KERNEL_IMAGE_SIZE"), _X86_MODULES_END
        else:
            start, stop = info.number("MODULES_VADDR"), info.number("MODULES_END")
    except KdumpyError:
        return
    for physical in islice(memory.mapped(start, stop, most_tables=_TABLES), _MODULE_PAGES):
        yield "a module", physical
