"""The freed object that a crash worked on, where no function of its user is on the stack: a timer, work, a callback.

What runs those is the kernel's own and innocent. The registers lead to the object, and where the allocator was told
to remember (slub_debug=U), the object tells who freed it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import drgn
from drgn.helpers.linux.kthread import kthread_data

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.culprit import Choice
from kdumpy.diagnosis.facts.reading import Pointee, Track
from kdumpy.diagnosis.waits.waiting import PF_WQ_WORKER
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_PASSING = frozenset({"rip", "pc", "rsp", "sp", "lr", "cs", "ss", "rflags"})
_TEXTS = ("kstrdup", "kstrndup", "kvasprintf", "kasprintf", "kmemdup_nul", "strndup_user", "memdup_user")
"""Beginnings of the names of what allocates a text, or what a process wrote: no structure with pointers."""


class FreedObject(NamedTuple):
    """A freed object, and the register that leads to it."""

    register: str
    object: Pointee
    times: int = 1
    """How many registers lead to it."""


def freed_object(kernel: Kernel, registers: Mapping[str, int]) -> FreedObject | None:
    """Return the freed slab object that the registers lead to; None where there is none, or none stands out.

    Of several it is the one that most registers lead to: others still hold what earlier code left in them.
    """
    found: dict[int, list[FreedObject]] = {}
    for register, value in registers.items():
        if register in _PASSING or value >> 56 != 0xFF:
            continue
        place = pointee(kernel, value)
        if place.kind == "slab" and place.state == "freed" and place.object is not None:
            found.setdefault(place.object, []).append(FreedObject(register, place))
    most = max(map(len, found.values()), default=0)
    often = [items for items in found.values() if len(items) == most]
    return often[0][0]._replace(times=most) if len(often) == 1 else None


def clears_freed(kernel: Kernel) -> bool:
    """Tell whether this kernel fills freed memory with zeroes (init_on_free=1), so that a pointer there is NULL.

    Source: include/linux/mm.h, want_init_on_free(); a struct static_key begins with `atomic_t enabled`, 4 bytes.
    """
    with contextlib.suppress(*READ_ERRORS):
        return bool(kernel.prog.read_u32(kernel.prog.symbol("init_on_free").address))
    return False


def lost_work(kernel: Kernel, task: int) -> Pointee | None:
    """Return the object in which the work that a worker runs lay, where it is no work any more; None where it still is.

    A work may be set up anew while it runs, for its next step; then its function is another one, but it has one.
    Source: kernel/workqueue_internal.h, struct worker.

    Args:
        kernel: the opened dump.
        task: address of the struct task_struct of what runs it.
    """
    with contextlib.suppress(*READ_ERRORS):
        found = kernel.task_object(task)
        if not found.flags.value_() & PF_WQ_WORKER:
            return None
        worker = drgn.cast(kernel.prog.type("struct worker *"), kthread_data(found))
        work = worker.current_work
        if not work or not worker.current_func or int(work.func.value_()) in (kernel.debuginfo.text or ()):
            return None
        if kernel.debuginfo.module_symbols and kernel.debuginfo.module_symbols.module_at(int(work.func.value_())):
            return None
        place = pointee(kernel, int(work.value_()))
        return place if place.kind == "slab" and place.object is not None else None
    return None


def given_out_anew(kernel: Kernel, place: Pointee, user: Frame | None) -> bool:
    """Tell whether an object is somebody else's now, who got its memory after it had been freed (slub_debug=U).

    What the allocator remembers of the last time that it was freed stays when it is given out anew.

    Args:
        kernel: the opened dump.
        place: the object.
        user: the function that takes it for its own; None, or one of the kernel's, where no driver's is known.
    """
    taken, freed = ({track.event: track for track in place.tracks}.get(event) for event in ("allocated", "freed"))
    if place.state != "allocated" or taken is None or freed is None:
        return False
    before = _chosen(kernel, freed).frame
    if before is None or not before.module or (user is not None and user.module not in (None, before.module)):
        return False
    if user is None or user.module is None:
        return True                         # the kernel still knew it, as it was before
    after = _chosen(kernel, taken).frame
    return after is None or after.module != user.module or any(name.startswith(_TEXTS) for name in taken.trace[:4])


def who_freed(kernel: Kernel, freed: FreedObject) -> Choice:
    """Choose the code that freed an object, by the stack that the allocator kept; none where it kept none."""
    track = next((item for item in freed.object.tracks if item.event == "freed"), None)
    if track is None:
        return Choice(None, ())
    chosen = _chosen(kernel, track)
    if chosen.frame is None:
        return chosen
    return Choice(chosen.frame, (f"chosen: {chosen.frame.function}, which freed the object that the register "
                                 f"{freed.register} leads to: no function of its user is on the stack",))


def who_freed_before(kernel: Kernel, places: Sequence[Pointee]) -> Choice:
    """Choose the code of a module that freed a living object before it was given out anew (slub_debug=U).

    Where the kernel's own code stumbles over such an object, it may have known it from before: a timer in it.
    """
    for place in places:
        if given_out_anew(kernel, place, None):
            frame = who_freed(kernel, FreedObject("", place)).frame
            name = frame.function if frame else ""
            return Choice(frame, (f"chosen: {name}, which had freed what the registers lead to, before it was given "
                                  "out anew: no function of a module is on the stack",))
    return Choice(None, ())


def owner_by_cache(kernel: Kernel, place: Pointee) -> Choice:
    """Choose the module that an object's cache is named after; none for the caches of kmalloc().

    Caches that are alike are made one, and have the first one's name (mm/slab_common.c, find_mergeable()).
    """
    return named_after(kernel, place.cache or "", "the object's cache")


def named_after(kernel: Kernel, name: str, what: str) -> Choice:
    """Choose the module after which something is named: a cache, a queue of works; none where no module is."""
    found = [module.name for module in kernel.modules if re.match(rf"{re.escape(module.name)}(?:[_/:-]|$)", name)]
    if not found:
        return Choice(None, ())
    module = max(found, key=len)
    return Choice(Frame(0, None, None, module), (f"chosen: the module {module}, after which {what} {name} is named: no "
                                                 "function of its user is on the stack",))


def _chosen(kernel: Kernel, track: Track) -> Choice:
    """Choose the code to name of a stack that the allocator kept."""
    return culprit.choose([frame for name in track.trace if (frame := _frame(kernel, name)) is not None])


def _frame(kernel: Kernel, name: str) -> Frame | None:
    symbols = kernel.debuginfo.module_symbols
    try:
        address = kernel.prog.symbol(name).address
    except READ_ERRORS:
        return None
    return Frame(address, name, 0, symbols.module_at(address) if symbols else None)
