"""Whether an address can be one of a process: whether any process has memory there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.tasks import task_objects

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash
    from kdumpy.kernel import Kernel

_MOST_TASKS = 4096


def a_process_has(crash: Crash, address: int) -> bool | None:
    """Tell whether a process has memory at an address; None where the dump does not tell.

    The process that ran is asked first, then all others: a thread of the kernel may have been given the address.
    """
    from drgn.helpers.linux.mm import vma_find

    if crash.kernel is None:
        return None
    try:
        seen: set[int] = set()
        for mm in _spaces(crash.kernel, crash.task.address if crash.task else 0):
            if mm.value_() not in seen:
                seen.add(mm.value_())
                if vma_find(mm, address):
                    return True
    except READ_ERRORS:
        return None
    return False if seen else None


def _spaces(kernel: Kernel, first: int) -> Iterator[drgn.Object]:
    """Yield the struct mm_struct * of the tasks, those of one task first."""
    if first and (mm := kernel.task_object(first).mm):
        yield mm
    for task in islice(task_objects(kernel.prog), _MOST_TASKS):
        if task.mm:
            yield task.mm
