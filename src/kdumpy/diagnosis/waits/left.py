"""Locks that their taker left locked: it has ended, or lives on and runs other code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.crashed.held import FAMILIES, Family
from kdumpy.diagnosis.crashed.waysout import place_of
from kdumpy.diagnosis.waits.locks import LockWait, Waits
from kdumpy.kernel import Task
from kdumpy.kernel.values import Frame


class Left(NamedTuple):
    """A lock that was left locked."""

    module: str
    """Whose lock it is."""
    frame: Frame | None
    """The function that can return with it; None where none, or more than one, is found."""
    others: int
    """How many further functions can."""


def left_by(waits: Waits, lock: LockWait, waiting: Sequence[Frame], owner: Task | None,
            held_by: Sequence[Frame]) -> Left | None:
    """Return whose code left a lock locked; None where its owner can be in the middle of using it.

    Args:
        waits: the kernel's waits.
        lock: what is waited for.
        waiting: the stack of who waits.
        owner: the task that the lock names; None where it has ended or is not known.
        held_by: that one's stack.
    """
    family = FAMILIES.get(lock.kind)
    module = module_of(waits, lock, waiting) if family is not None else None
    if module is None or family is None:
        return None
    if any(frame.module == module for frame in held_by):
        # Its code runs, but is not where it has a lock of that kind: then only who can return with it is to blame.
        own = left_within(waits, held_by, family)
        found = leaver(waits, module, lock.kind, lock.address, waiting) if own else None
        return found if found and found.frame else None
    if owner is not None and waits.holders.taken_in(owner, held_by, lock.address, family) is not None:
        return None
    symbols = waits.kernel.debuginfo.module_symbols
    if (symbols is None or symbols.module_at(lock.address) is None) and not left_within(waits, held_by, family):
        return None             # the kernel's own code has a lock of the kind, and it may be this one (device_lock())
    return leaver(waits, module, lock.kind, lock.address, waiting)


def left_within(waits: Waits, frames: Sequence[Frame], family: Family) -> bool:
    """Tell whether no function of a stack is where it has taken a lock of a kind, as far as their code can be read."""
    return waits.kernel.system.machine == "x86_64" and waits.holders.within(frames, family) is None


def leaver(waits: Waits, module: str, kind: str, address: int, waiting: Sequence[Frame]) -> Left:
    """Return which function of a module can return with one of its locks, held against how a waiter's code has it."""
    family = FAMILIES[kind]
    ways = waits.holders.ways_out
    place = None
    call = next((number for number, frame in enumerate(waiting) if frame.module == module and not frame.inline), None)
    try:
        if call is not None and waits.kernel.system.machine == "x86_64":
            place = place_of(waits.holders.passed(waiting[call]))
        found = ways.of(module, family, address, place) if waits.kernel.system.machine == "x86_64" else []
    except READ_ERRORS:
        found = []
    known = [item for item in found if address in item.locks] or [item for item in found if not item.locks]
    sure = [item for item in known if item.gives] or [item for item in known if item.direct] or known
    return Left(module, sure[0].frame if len(sure) == 1 else None, max(0, len(sure) - 1))


def giver_twice(waits: Waits, lock: LockWait, waiting: Sequence[Frame]) -> Frame | None:
    """Return the one function that can give a lock back twice, which has been given back too often; None if none is."""
    family = FAMILIES.get(lock.kind)
    module = module_of(waits, lock, waiting) if family is not None else None
    if module is None or family is None or waits.kernel.system.machine != "x86_64":
        return None
    try:
        found = waits.holders.ways_out.twice(module, family, lock.address)
    except READ_ERRORS:
        return None
    return found[0] if len(found) == 1 else None


def module_of(waits: Waits, lock: LockWait, waiting: Sequence[Frame]) -> str | None:
    """Return the module whose lock it is: it lies in its data, or its code takes it without going by the kernel's."""
    symbols = waits.kernel.debuginfo.module_symbols
    if not lock.address:
        return None
    module = symbols.module_at(lock.address) if symbols else None
    if module is not None:
        return module
    if waits.io_waits.things.of_lock(lock.kind, lock.address):
        return None                             # a file's, or an address space's: others take it, too
    # Beyond the functions that wait there is the one that wants it.
    family = FAMILIES[lock.kind]
    caller = next((number for number, frame in enumerate(waiting)
                   if frame.symbol and not family.takes(frame.function or "") and not frame.inline and number
                   and (family.takes(waiting[number - 1].function or "") or frame.module)), None)
    return waiting[caller].module if caller is not None else None
