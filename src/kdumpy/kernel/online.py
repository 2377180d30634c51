"""The CPUs that were at work when the kernel crashed."""

from __future__ import annotations

from collections.abc import Iterator

import drgn
from drgn.helpers.linux.cpumask import for_each_cpu, for_each_online_cpu


def online_cpus(prog: drgn.Program) -> Iterator[int]:
    """Yield the numbers of the CPUs that were online, in order.

    arm64 takes the CPUs that a panic stops off the mask of those online (arch/arm64/kernel/smp.c, local_cpu_stop());
    the mask of those active, which only hotplug changes, has them still.

    Raises:
        LookupError, drgn.FaultError: the masks are not known.
    """
    found = set(for_each_online_cpu(prog))
    if prog.platform is not None and prog.platform.arch == drgn.Architecture.AARCH64:
        found.update(for_each_cpu(prog["__cpu_active_mask"]))
    yield from sorted(found)
