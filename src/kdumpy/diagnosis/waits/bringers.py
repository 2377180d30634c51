"""Who is to bring about what a task waits for, where nothing names him: found by what the code of the stacks does next.

A completion, a wait queue, the lock of a page or of a bit belong to nobody: whoever calls complete(), wake_up(),
unlock_page() or wake_up_bit() ends the wait. A task in the middle of a function that will call that, for this very
thing, is who is waited for.

Sources: kernel/sched/completion.c, kernel/sched/wait.c, wait_bit.c, mm/filemap.c, kernel/locking/percpu-rwsem.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import drgn

from kdumpy.diagnosis.crashed.held import BIT, COMPLETION, FREEZE, PAGE, PERCPU_RWSEM, QUEUE, Family
from kdumpy.diagnosis.waits.holders import Holders
from kdumpy.kernel import Task
from kdumpy.kernel.values import Frame

Asked = Sequence[tuple[Task, Sequence[Frame]]]

_GIVEN: dict[str, tuple[Family, ...]] = {
    "completion": (COMPLETION,), "wait queue": (QUEUE,), "page lock": (PAGE,), "bit lock": (BIT,),
    "buffer lock": (BIT,), "variable": (BIT,)}
_SERVES = ("completion", "wait queue")
"""What a thread that waits for work brings about, too, but not before it is asked to. Of those that could be woken only
who does so once, and not in a loop, is in the middle of it."""


PERCPU_WRITERS = ("percpu_down_write",)


class Bringer(NamedTuple):
    """Who is to bring something about."""

    task: Task
    frame: Frame
    """The function that would."""
    taken: bool
    """He has it: it is not only that his code would give it."""
    alone: bool
    """No other task that was asked would, too."""
    stuck: bool
    """He is not one who could be woken, for whom it may be that he waits for something else first."""


def bringer(holders: Holders, kind: str, address: int, waiter: Task, frames: Sequence[Frame],
            asked: Callable[[], Asked]) -> Bringer | None:
    """Return who is to bring about what a task waits for; None where no stack shows him.

    Args:
        holders: asks the stacks.
        kind: of the wait.
        address: of what is waited for.
        waiter: who waits.
        frames: his stack, which names the module whose tasks are asked as well.
        asked: returns the tasks that are asked in any case, and their stacks.
    """
    if not address or (kind not in _GIVEN and kind != "percpu rwsem"):
        return None
    if kind == "percpu rwsem":
        made = holders.kernel.prog.type("struct percpu_rw_semaphore")
        # A reader is in its wait queue; a writer, who waits for the readers to go, is in none.
        address -= drgn.offsetof(made, "waiters") if not waits_for_readers(frames) else 0
    found: dict[int, Bringer] = {}
    for task, stack in _tasks(holders, frames, asked()):
        if task.address == waiter.address or task.address in found:
            continue
        if kind == "percpu rwsem":
            # Who froze a file system has its writers' semaphores by that, and not by taking them.
            frame = holders.taken_in(task, stack, address, PERCPU_RWSEM) or holders.within(stack, FREEZE)
        else:
            once = kind in _SERVES and not (task.on_cpu or task.state == "D")
            frame = next((item for family in _GIVEN[kind]
                          if (item := holders.gives_in(task, stack, address, family, once=once)) is not None), None)
        if frame is not None:
            stuck = kind not in _SERVES or task.on_cpu or task.state == "D"
            found[task.address] = Bringer(task, frame, kind == "percpu rwsem", True, stuck)
    first = next(iter(found.values()), None)
    return first._replace(alone=len(found) == 1) if first else None


def waits_for_readers(frames: Sequence[Frame]) -> bool:
    """Tell whether a task that waits for a per-CPU semaphore is a writer, which has it but for those who are in it."""
    return any((frame.function or "").startswith(PERCPU_WRITERS) for frame in frames)


def _tasks(holders: Holders, frames: Sequence[Frame], asked: Asked) -> Iterator[tuple[Task, Sequence[Frame]]]:
    module = next((frame.module for frame in frames if frame.module), None)
    yield from asked
    yield from holders.of_module(module)
