"""Who holds a process's mmap_lock for reading: the task of it that is in the middle of a page fault.

A rwsem names the last reader that came, who may be gone while others stay. What takes an mmap_lock most often is a page
fault, inline and without a call that could be seen in the code: but the task's mm tells whose it takes.
Sources: arch/x86/mm/fault.c, do_user_addr_fault(); mm/memory.c, handle_mm_fault(); include/linux/mmap_lock.h.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel import Kernel
from kdumpy.kernel.tasks import task_value
from kdumpy.kernel.values import Task

_FAULT = "handle_mm_fault"
"""What a page fault does with the lock held for reading, on every architecture."""
_WAITS = "rwsem_down_"
"""It waits for a rwsem, perhaps this one, and so does not have it."""


class Faulting:
    """The tasks of one kernel that are in a page fault, by whose memory it is of."""

    def __init__(self, kernel: Kernel, tasks: Iterable[drgn.Object]) -> None:
        """`tasks`: struct task_struct * of those that may be; read when first asked for."""
        self.kernel = kernel
        self.tasks = tasks

    def reader_of(self, address: int) -> Task | None:
        """Return the task in a page fault that holds a rwsem for reading; None where it is no mmap_lock, or not told.

        Args:
            address: of the rwsem.
        """
        with contextlib.suppress(*READ_ERRORS):
            space = address - drgn.offsetof(self.kernel.prog.type("struct mm_struct"), "mmap_lock")
            for task in self._of_space.get(space, ()):
                names = [frame.function or "" for frame in self.kernel.stack(task.value_()).frames]
                if _FAULT in names and not any(name.startswith(_WAITS) for name in names):
                    return task_value(task)
        return None

    @property
    def by_parts(self) -> bool:
        """Whether a fault may do with the lock of a part of the memory, and leave the mmap_lock alone.

        5e31275cc997 "mm: add per-VMA lock and helper functions to control it" (6.4)
        """
        return bool(self.kernel.prog.type("struct vm_area_struct").has_member("vm_lock_seq"))

    @cached_property
    def _of_space(self) -> dict[int, list[drgn.Object]]:
        found: dict[int, list[drgn.Object]] = defaultdict(list)
        for task in self.tasks:
            with contextlib.suppress(drgn.FaultError):
                found[int(task.mm.value_())].append(task)
        return found
