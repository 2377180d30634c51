"""The object that a check of the kernel complained of: what it was called with, and what that is.

Checks of lists, of reference counters and of the allocator serve everybody; the caller's object is their argument.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed.following import Follower
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.crashed.values import Argument
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.memory import is_kernels

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash
    from kdumpy.kernel import Kernel

# lib/refcount.c, lib/list_debug.c, mm/slub.c: a function -> the register of the argument that is checked.
_CHECKS = {"refcount_warn_saturate": "rdi", "__list_del_entry_valid": "rdi", "__list_del_entry_valid_or_report": "rdi",
           "__list_add_valid": "rdi", "__list_add_valid_or_report": "rdi", "kfree": "rdi", "kfree_sensitive": "rdi",
           "kvfree": "rdi", "kmem_cache_free": "rsi"}
_DEEPEST = 5
"""Frames from the fault outwards in which the check is looked for."""


def checked_object(crash: Crash) -> Pointee | None:
    """Return what the check that failed was called with; None where its code and its caller's do not tell."""
    if crash.kernel is None or crash.machine != "x86_64" or not crash.from_dump or not crash.fault_registers:
        return None
    try:
        address = _argument(crash, crash.kernel)
    except READ_ERRORS:
        return None
    return pointee(crash.kernel, address) if address else None


def freed_again(crash: Crash) -> Pointee | None:
    """Return the object that was freed when it was free: the allocator's argument, else what its code works with.

    The check compares the object with the head of the list of free ones (mm/slub.c, set_freepointer()): at that
    place two registers at least hold the object's own address.
    """
    found = checked_object(crash)
    if found is not None or crash.kernel is None:
        return found if found is None or found.kind == "slab" else None
    often = Counter(value for name, value in crash.fault_registers.items() if is_kernels(value) and name != "rip")
    places = [pointee(crash.kernel, value) for value, times in often.items() if times > 1]
    begins = [place for place in places if place.kind == "slab" and place.object == place.address
              and place.state != "allocated"]
    return begins[0] if len(begins) == 1 else None


def _argument(crash: Crash, kernel: Kernel) -> int:
    frames = crash.below_fault
    found = [number for number, frame in enumerate(frames[:_DEEPEST])
             if (frame.function or "").split(".")[0] in _CHECKS]
    if not found:
        return 0
    last = found[-1]                        # kfree() calls on to functions that are asked no better
    register = _CHECKS[(frames[last].function or "").split(".")[0]]
    flow: Follower | None = Follower(kernel, crash.read, frames, frames[0].pc, crash.fault_registers)
    for frame in frames[1:last + 1]:
        flow = flow.caller if flow is not None and not frame.inline else flow
    number = flow.number(Argument(register)) if flow is not None else None
    if number is None and last + 1 < len(frames) and not frames[last + 1].interrupted:
        # Its own code kept it nowhere: what its caller still has of it.
        call = operands.decode_call(crash.read, frames[last + 1].pc, {})
        caller = Follower(kernel, crash.read, frames[last + 1:], call.address, {}) if call is not None else None
        number = caller.number(caller.values.get(register), ask_memory=True) if caller is not None else None
    return number or 0


def of_freed(place: Pointee | None) -> bool:
    """Tell whether something lies in an object that the allocator has as a free one."""
    return place is not None and place.kind == "slab" and place.state == "freed"


def lies(place: Pointee | None) -> str:
    """Say where something lies: `lies at offset 0x8 of an object of kmalloc-64`; empty where that is not known."""
    if place is None or place.kind == "unknown":
        return ""
    return f"lies {'at' if place.words.startswith('offset') else 'in'} {place.words}"
