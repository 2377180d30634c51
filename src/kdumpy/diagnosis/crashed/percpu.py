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


def per_cpu_addresses(kernel: Kernel, value: int) -> tuple[int, ...]:
    """Return where each CPU has the variable that a value is the per-CPU pointer of; empty where it is none.

    The value itself is no address of the kernel, and for every CPU there must be memory where it leads to: for a
    value that came by chance there is not.
    """
    from kdumpy.kernel.online import online_cpus

    if not LOWEST_USER <= value < _KERNEL_HALF:         # a smaller one is rather NULL and an offset
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
