"""Who took the kernel's memory: the callers of vmalloc(), and the tasks that are asking for pages.

Source: mm/vmalloc.c, struct vm_struct, whose `caller` is the return address into who asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import culprit, memory
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame, Task

_MOST_AREAS = 1_000_000
_MOST_TASKS = 4096
_ASKING = ("__alloc_pages", "__alloc_frozen_pages", "alloc_pages", "__folio_alloc", "out_of_memory")
"""Beginnings of the names of the page allocator's functions."""


def vmalloc_callers(kernel: Kernel) -> list[tuple[Frame, int]]:
    """Return (caller, bytes of pages) of the vmalloc areas, most first; empty where they cannot be read."""
    page = 4096
    held: Counter[int] = Counter()
    try:
        from drgn.helpers.linux.mm import for_each_vmap_area

        page = int(kernel.prog["PAGE_SIZE"].value_())
        for number, area in enumerate(for_each_vmap_area(kernel.prog)):
            if number >= _MOST_AREAS:
                break
            if area.vm:
                held[int(area.vm.caller.value_())] += int(area.vm.nr_pages.value_())
    except READ_ERRORS as error:
        kernel.problems["vmalloc areas"] = str(error)
    return [(frame_at(kernel, pc), pages * page) for pc, pages in held.most_common() if pages]


def frame_at(kernel: Kernel, pc: int) -> Frame:
    """Return the code at an address as a frame."""
    name, _, offset = memory.symbol_at(kernel.prog, pc).partition("+")
    symbols = kernel.debuginfo.module_symbols
    return Frame(pc, name or None, int(offset or "0", 0) if name else None, symbols.module_at(pc) if symbols else None)


def asking_modules(kernel: Kernel) -> list[tuple[Frame, Task]]:
    """Return the frames of modules, each with its task, that are asking for pages; those that most tasks show first.

    Whoever ran out last may be innocent: a process that forks. Who takes memory without end is likely to be found
    in the allocator, too: it waits there for memory to be given back.
    """
    found = list(_asking(kernel))
    often = Counter(culprit.plain_name(frame) for frame, _ in found)
    return sorted(found, key=lambda pair: -often[culprit.plain_name(pair[0])])


def _asking(kernel: Kernel) -> Iterator[tuple[Frame, Task]]:
    for number, task in enumerate(kernel.tasks()):
        if number >= _MOST_TASKS:
            return
        if task.state not in ("R", "D"):
            continue
        frames = kernel.stack(task).frames
        if any((frame.function or "").startswith(_ASKING) for frame in frames):
            frame = culprit.choose(frames).frame
            if frame is not None and frame.module:
                yield frame, task
