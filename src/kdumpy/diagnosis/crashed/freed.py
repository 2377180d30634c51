"""The freed object that a crash worked on, where no function of its user is on the stack: a timer, work, a callback.

What runs those is the kernel's own and innocent. The registers lead to the object, and where the allocator was told
to remember (slub_debug=U), the object tells who freed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.culprit import Choice
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_PASSING = frozenset({"rip", "pc", "rsp", "sp", "lr", "cs", "ss", "rflags"})


class FreedObject(NamedTuple):
    """A freed object, and the register that leads to it."""

    register: str
    object: Pointee


def freed_object(kernel: Kernel, registers: Mapping[str, int]) -> FreedObject | None:
    """Return the one freed slab object that the registers lead to; None where there are several, or none."""
    found: dict[int, FreedObject] = {}
    for register, value in registers.items():
        if register in _PASSING or value >> 56 != 0xFF:
            continue
        place = pointee(kernel, value)
        if place.kind == "slab" and place.state == "freed" and place.object is not None:
            found.setdefault(place.object, FreedObject(register, place))
    return next(iter(found.values())) if len(found) == 1 else None


def who_freed(kernel: Kernel, freed: FreedObject) -> Choice:
    """Choose the code that freed an object, by the stack that the allocator kept; none where it kept none."""
    track = next((item for item in freed.object.tracks if item.event == "freed"), None)
    if track is None:
        return Choice(None, ())
    frames = [frame for name in track.trace if (frame := _frame(kernel, name)) is not None]
    chosen = culprit.choose(frames)
    if chosen.frame is None:
        return chosen
    return Choice(chosen.frame, (f"chosen: {chosen.frame.function}, which freed the object that the register "
                                 f"{freed.register} leads to: no function of its user is on the stack",))


def _frame(kernel: Kernel, name: str) -> Frame | None:
    symbols = kernel.debuginfo.module_symbols
    try:
        address = kernel.prog.symbol(name).address
    except READ_ERRORS:
        return None
    return Frame(address, name, 0, symbols.module_at(address) if symbols else None)
