"""Who is to blame where no function of a module is on the stack: by what the kernel's own code worked on.

All that is told here is told by data, and may be another one's fault: no verdict that rests on it is certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdumpy.diagnosis.crashed.freed import named_after, who_freed_before
from kdumpy.diagnosis.crashed.unloaded import unloaded_module
from kdumpy.diagnosis.culprit import Choice
from kdumpy.diagnosis.oops import Kind
from kdumpy.diagnosis.owned import living_objects, owner_of, variable_of_a_module

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash

_CHECKS = (Kind.BUG, Kind.WARN, Kind.LIST, Kind.REFCOUNT)


def by_data(crash: Crash, chosen: Choice) -> Choice:
    """Choose whom the data of a fault belongs to; none where that is not told.

    Args:
        crash: the crash, whose fault is an exception or a check in the kernel's own code.
        chosen: what the stack alone tells: a function of the kernel, or none.
    """
    if crash.kernel is None:
        return Choice(None, ())
    found = unloaded_module(crash.kernel, crash.address)
    if found.frame is None:
        found = _of_nobody(crash) if chosen.frame is None else _of_the_kernel(crash, chosen)
    return found if found.frame else queue_owner(crash)


def _of_nobody(crash: Crash) -> Choice:
    """Ask the registers where all code on the stack is everybody's: what runs works, timers, tasklets."""
    if crash.kernel is None:
        return Choice(None, ())
    called = bool(crash.event and crash.event.nowhere is not None)
    found = variable_of_a_module(crash.kernel, crash.fault_registers, called=called)
    if found.frame is None:
        found = who_freed_before(crash.kernel, living_objects(crash.kernel, crash.fault_registers))
    return found


def _of_the_kernel(crash: Crash, chosen: Choice) -> Choice:
    """Ask where the bad pointer was read; and the registers, where the function that was chosen is not at fault itself.

    Then it is a check of the kernel's, or what serves many, and what somebody gave it: rather a module from elsewhere.
    """
    if crash.kernel is None:
        return Choice(None, ())
    found = owner_of(crash.kernel, crash.reader.holder if crash.reader else None)
    if found.frame is None and (crash.told(*_CHECKS) or chosen.frame is not crash.fault):
        data = variable_of_a_module(crash.kernel, crash.fault_registers)
        if data.frame and data.frame.module and crash.is_foreign(data.frame.module):
            return data
    return found


def queue_owner(crash: Crash) -> Choice:
    """Choose the module after which the queue is named whose work ran; none where it is everybody's queue.

    Source: kernel/workqueue.c, print_worker_info(): the queue's name, the function, and in parentheses what was set as
    the worker's description, which is the queue's name to begin with.
    """
    told = (crash.event.work or "") if crash.event else ""
    names = [told.split(" ")[0], told.rpartition(" (")[2].rstrip(")")]
    found = (named_after(crash.kernel, name, "the queue of works") for name in names if crash.kernel)
    return next((choice for choice in found if choice.frame), Choice(None, ()))
