"""What the values of a crash were read out of: also a length, an index or a state that is no pointer by itself.

A number out of a freed object need not look like poison any more: it was shifted, added, cut to a byte, or it chose an
entry of a table. And who uses it is often code that serves everybody, to which a driver passed it. Followed is what the
values come from, in the faulting function and in the one to blame, at the call that led to the fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed.assembly import PARTS
from kdumpy.diagnosis.crashed.following import Follower
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.crashed.values import Loaded, Value, leaves, rooted
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.memory import is_kernels

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash
    from kdumpy.kernel import Kernel
    from kdumpy.kernel.values import Frame

_PASSED = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
"""System V ABI: integer arguments, in this order."""
_MOST_CALLERS = 8
_MOST_BYTES = 4096


class Read(NamedTuple):
    """A value that was read out of memory, and was used."""

    place: Pointee
    """Where it was read."""
    size: int
    """Bytes."""
    instruction: str
    function: str
    """Whose instruction it is."""


def freed_read(crash: Crash) -> Read | None:
    """Return the first value that was used and comes out of a freed slab object; None where none does."""
    if crash.kernel is None or crash.machine != "x86_64" or not crash.faulted or not crash.fault_registers:
        return None
    seen: set[int] = set()
    try:
        for flow, value in _used(crash, crash.kernel):
            for leaf in leaves(value):
                found = _read(crash.kernel, flow, leaf, seen)
                if found is not None and found.place.kind == "slab" and found.place.state == "freed":
                    return found
    except READ_ERRORS:
        return None
    return None


def never_set(crash: Crash) -> bool:
    """Tell whether a pointer is poison that lies in a living object: a member that nobody has set.

    What slub_debug=P fills a free object with is still there when the object is given out (mm/slub.c, init_object()).
    """
    reader = crash.reader
    return reader is not None and reader.holder is not None and reader.holder.kind == "slab" \
        and reader.holder.state == "allocated" and reader.source.still_there is True


def is_blank(crash: Crash) -> bool:
    """Tell whether the bad pointer was read out of an object of which every byte is 0: maybe one that is another's now.

    An object in use mostly has something set; one that was freed, and given out anew and cleared, has nothing yet.
    """
    place = crash.reader.holder if crash.reader else None
    if place is None or place.kind != "slab" or place.object is None or not place.object_size:
        return False
    try:
        return not any(crash.read(place.object, min(place.object_size, _MOST_BYTES)))
    except LookupError:
        return False


def is_cleared_entry(crash: Crash) -> bool:
    """Tell whether the bad pointer was read out of a blank object that was reached by a link in it, as a list's entry.

    What is on a list has had its link set; so it was cleared since, mostly as another one's: freed, and given out anew.
    """
    reader = crash.reader
    if reader is None or reader.follower is None or reader.register is None or not is_blank(crash):
        return False
    value = reader.follower.values.get(reader.register)
    return isinstance(value, Loaded) and rooted(value.base)[1] < 0      # container_of() took the link's offset off


def _used(crash: Crash, kernel: Kernel) -> Iterator[tuple[Follower, Value]]:
    """Yield what the faulting instruction used, and what the function to blame passed on."""
    flow = crash.reader.follower if crash.reader else None
    operand = crash.operand
    if flow is not None:
        used = [operand.base, operand.index] if operand else []
        for register in (*used, *_counts(crash)):
            value = flow.values.get(register or "")
            if value is not None:
                yield from _origins(flow, value)
    frame = crash.own_frame
    if frame is None or frame is crash.fault or frame.data or frame.offset is None:
        return
    calling = _calling(crash, kernel, frame, flow)
    if calling is not None:
        for register in _PASSED:
            value = calling.values.get(register)
            if value is not None:
                yield from _origins(calling, value)


def _counts(crash: Crash) -> tuple[str, ...]:
    """Return the registers that say how much or how far, beside an operand's: a length, and a bit's number."""
    text = crash.instruction.text if crash.instruction else ""
    if text.startswith("rep"):
        return ("rcx",)
    # bt, bts and the like reach any distance from their operand in memory, by the bit's number (Intel SDM volume 2).
    name, _, places = text.removeprefix("lock ").partition(" ")
    part = PARTS.get(places.split(",")[0].removeprefix("%")) if name.startswith("bt") else None
    return (part[0],) if part else ()


def _origins(flow: Follower, value: Value) -> Iterator[tuple[Follower, Value]]:
    """Yield a value's sources, each in the function that got it first."""
    for leaf in leaves(value):
        origin = flow.origin(leaf)
        if origin is not None:
            yield origin.flow, origin.value


def _calling(crash: Crash, kernel: Kernel, frame: Frame, flow: Follower | None) -> Follower | None:
    """Return the data-flow of a frame of the stack at the call that it made."""
    for _ in range(_MOST_CALLERS):
        if flow is None or flow.frames[0] == frame:
            break
        flow = flow.caller
    if flow is not None and flow.frames[0] == frame:
        return flow
    call = operands.decode_call(crash.read, frame.pc, {})
    panic = crash.panic
    if call is None or panic is None or panic.task is None or frame not in panic.stack.frames or crash.waits is None:
        return None
    place = panic.stack.frames.index(frame)
    known = crash.waits.holders.registers(panic.task, panic.stack.frames)
    return Follower(kernel, crash.read, panic.stack.frames[place:], call.address,
                    known[place] if place < len(known) else {})


def _read(kernel: Kernel, flow: Follower, value: Value, seen: set[int]) -> Read | None:
    if not isinstance(value, Loaded) or value.scale:
        return None
    base = flow.number(value.base, ask_memory=True)
    address = (base + value.offset) % (1 << 64) if base is not None else 0
    if not is_kernels(address) or address in seen:
        return None
    seen.add(address)
    made = operands.decode(flow.read, value.pc, {})
    function = flow.frames[0].function if flow.frames else None
    return Read(pointee(kernel, address), value.size, made.text if made else "", function or "")
