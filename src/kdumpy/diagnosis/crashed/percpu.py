"""A pointer to a per-CPU variable that was used as it is: an offset, to which the CPU's own base must be added.

Source: include/linux/percpu-defs.h (__percpu, this_cpu_ptr()); mm/percpu.c, __addr_to_pcpu_ptr().
"""

from __future__ import annotations

from itertools import islice

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.memory import LOWEST_USER
from kdumpy.kernel import Kernel

_MOST_CPUS = 64
_KERNEL_HALF = 1 << 63
_FAR = 1 << 40
"""Bytes: less than what lies between the linear map, where the first chunk is, and vmalloc's, where the others are
(x86-64: the linear map is at least 1 TB long, arch/x86/mm/kaslr.c)."""


def per_cpu_addresses(kernel: Kernel, value: int) -> tuple[int, ...]:
    """Return where each CPU has the variable that a value is the per-CPU pointer of; empty where it is none.

    The value itself is no address of the kernel, and for every CPU there must be memory where it leads to. That alone
    would hold for most small numbers, a process's addresses among them: the linear map goes on behind a CPU's unit. So
    the value is one within the unit, or leads to a chunk of vmalloc's (mm/percpu.c, pcpu_embed_first_chunk()). One
    within the unit may still be any small number: what rests on it is likely at most, see `is_small`.
    """
    from kdumpy.kernel.online import online_cpus

    if not LOWEST_USER <= value < _KERNEL_HALF:         # a smaller one is rather NULL and an offset
        return ()
    if _unit(kernel) <= value and is_small(value):
        return ()
    prog, found = kernel.prog, []
    try:
        offsets = prog.symbol("__per_cpu_offset").address
        for cpu in islice(online_cpus(prog), _MOST_CPUS):
            address = (value + prog.read_u64(offsets + 8 * cpu)) % (1 << 64)
            if address < _KERNEL_HALF:
                return ()
            prog.read(address, 1)
            found.append(address)
    except READ_ERRORS:
        return ()
    return tuple(found)


def is_small(value: int) -> bool:
    """Tell whether a value may as well be a number, a length or a flag: whether it leads to no chunk of vmalloc's."""
    return value < _FAR


def _unit(kernel: Kernel) -> int:
    """Return the bytes that each CPU has of the first chunk; 0 where that is not known."""
    try:
        return int(kernel.prog.read_u32(kernel.prog.symbol("pcpu_unit_size").address))
    except READ_ERRORS:
        return 0
