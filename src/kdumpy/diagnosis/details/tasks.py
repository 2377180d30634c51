"""Every task with its stack; equal stacks are kept once."""

from __future__ import annotations

import contextlib

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.details.model import TaskRow
from kdumpy.errors import KdumpyError
from kdumpy.kernel import Kernel, Task
from kdumpy.kernel.resident import resident_pages

MOST_TASKS = 20_000
"""Tasks that are listed."""
MOST_UNWOUND = 10_000
"""Tasks whose stacks are unwound, at about 0.13 ms each."""
MOST_FRAMES = 64
"""Frames of a stack that are kept, the outermost ones: they say what the task is for."""

Stacks = tuple[tuple[str, ...], ...]


def read(kernel: Kernel, now_ns: int | None, missing: dict[str, str]) -> tuple[tuple[TaskRow, ...], Stacks]:
    """Return the tasks and the different stacks. `now_ns`: the kernel's clock at the crash, None where unknown."""
    rows: list[TaskRow] = []
    stacks: dict[tuple[str, ...], int] = {}
    sizes: dict[int, int | None] = {}
    page = _page_size(kernel)
    try:
        for task in kernel.tasks():
            if len(rows) >= MOST_TASKS:
                missing["tasks"] = f"only the first {MOST_TASKS} are shown"
                break
            rows.append(_row(kernel, task, now_ns, page, stacks, sizes, unwind=len(rows) < MOST_UNWOUND))
    except (*READ_ERRORS, KdumpyError) as error:
        missing["tasks"] = f"the list cannot be followed to its end: {error}"
    if len(rows) > MOST_UNWOUND:
        missing["stacks"] = f"only the first {MOST_UNWOUND} tasks were unwound"
    return tuple(rows), tuple(stacks)


def _row(kernel: Kernel, task: Task, now_ns: int | None, page: int, stacks: dict[tuple[str, ...], int],
         sizes: dict[int, int | None], *, unwind: bool) -> TaskRow:
    made = kernel.task_object(task.address)
    stack = None
    if unwind:
        frames = tuple(_name(frame.symbol, frame.module, frame.pc) for frame in kernel.stack(task).frames
                       if not frame.user)[-MOST_FRAMES:]
        stack = stacks.setdefault(frames, len(stacks)) if frames else None
    rss = None if task.kernel_thread else _rss(made, page, sizes)
    return TaskRow(task.pid, task.tgid, task.parent, task.comm, task.state, task.cpu, task.on_cpu, task.kernel_thread,
                   rss, _idle(made, task, now_ns), stack)


def _name(symbol: str | None, module: str | None, pc: int) -> str:
    name = symbol.split(".", 1)[0] if symbol else f"{pc:#x}"
    return f"{name} [{module}]" if module else name


def _rss(task: drgn.Object, page: int, sizes: dict[int, int | None]) -> int | None:
    """Return the bytes of a process's memory; threads share theirs, which is counted once."""
    with contextlib.suppress(*READ_ERRORS):
        mm = task.mm.value_()
        if not mm:
            return None
        if mm not in sizes:
            sizes[mm] = None
            sizes[mm] = max(0, resident_pages(task)) * page
        return sizes[mm]
    return None


def _idle(task: drgn.Object, made: Task, now_ns: int | None) -> float | None:
    if now_ns is None or made.on_cpu:
        return None
    with contextlib.suppress(*READ_ERRORS):
        arrival: int = task.sched_info.last_arrival.value_()
        if 0 < arrival <= now_ns:
            return round((now_ns - arrival) / 1e9, 3)
    return None


def _page_size(kernel: Kernel) -> int:
    try:
        return int(kernel.prog["PAGE_SIZE"].value_())
    except READ_ERRORS:
        return 4096
