"""Whose data a crash worked on: for code that serves everybody, with no function of its user on the stack.

A timer, a tasklet or a work item whose function is missing is run by the kernel alone. Which driver it
belongs to is told by the registers: they lead to the driver's own variables, or to an object that points at them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.culprit import Choice
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_PASSING = frozenset({"rip", "pc", "rsp", "sp", "lr"})
"""Registers that say where the code is, and not what it works on."""
_LARGEST = 2048
"""Bytes of an object that is looked through: a larger one (a task, a socket) is rather everybody's."""
_LARGEST_NEXT = 512
_MOST_OBJECTS, _MOST_WORDS = 6, 32
"""Objects, and words of each, that are followed to the next object."""


def variable_of_a_module(kernel: Kernel, registers: Mapping[str, int], *, called: bool = False) -> Choice:
    """Return the variable of a module that the registers lead to; none where they lead to several modules' or to none.

    Where none leads to a variable, the objects of the allocator that they lead to are asked what they point at.

    Args:
        kernel: the opened dump.
        registers: those at the fault, by name.
        called: it was the call of a function that is not there; what it was to be called for is its first argument.
    """
    held = {register: value for register, value in registers.items() if register not in _PASSING}
    frame = _chosen(found for value in held.values() if (found := _data_of_a_module(kernel, value)) is not None)
    if frame is not None:
        return Choice(frame, (f"chosen: the variable {frame.symbol} [{frame.module}], which the registers lead to: no "
                              "function of its module is on the stack",))
    frame = _chosen(_pointed_at(kernel, held, "rdi" if called else ""))
    if frame is not None:
        return Choice(frame, (f"chosen: {frame.symbol or 'data'} [{frame.module}], which the object points at that the "
                              "registers lead to: no function of its module is on the stack",))
    return Choice(None, ())


def owner_of(kernel: Kernel, place: Pointee | None) -> Choice:
    """Return the module's variable that a bad pointer was read from, or what the object points at where it was read.

    None where the object points at several modules, or at none.
    """
    if place is not None and place.kind == "module data" and place.module:
        name, _, offset = (place.symbol or "").partition("+")
        found = Frame(place.address, name or None, int(offset or "0", 0) if name else None, place.module, data=True)
        return Choice(found, (f"chosen: {name or 'data'} [{place.module}], which the bad pointer was read from: no "
                              "function of its module is on the stack",))
    if place is None or place.kind != "slab" or place.state != "allocated" or place.object is None:
        return Choice(None, ())
    frame = _chosen(_in_modules(kernel, place)) if 0 < (place.object_size or 0) <= _LARGEST else None
    if frame is None:
        return Choice(None, ())
    return Choice(frame, (f"chosen: {frame.symbol or 'data'} [{frame.module}], which the object points at that the bad "
                          "pointer was read from: no function of its module is on the stack",))


def _chosen(found: Iterator[Frame]) -> Frame | None:
    frames = list(found)
    if len({frame.module for frame in frames}) != 1:
        return None
    return min(frames, key=lambda item: (not item.symbol, item.offset or 0))


def _data_of_a_module(kernel: Kernel, value: int, *, code_too: bool = False) -> Frame | None:
    """Return the variable of a module that lies at an address.

    Args:
        kernel: the opened dump.
        value: the address.
        code_too: take its functions, and constants without a name, as well.
    """
    symbols, text = kernel.debuginfo.module_symbols, kernel.debuginfo.text
    module = symbols.module_at(value) if symbols else None
    if module is None or (text is not None and value in text and not code_too):
        return None
    try:
        name, _, offset = memory.symbol_at(kernel.prog, value).partition("+")
    except READ_ERRORS:
        return None
    if not name and not code_too:
        return None
    return Frame(value, name or None, int(offset or "0", 0) if name else None, module, data=True)


def living_objects(kernel: Kernel, registers: Mapping[str, int], first: str = "") -> list[Pointee]:
    """Return the living objects of the allocator that registers lead to, those first to which most registers lead.

    Other registers hold what came before.

    Args:
        kernel: the opened dump.
        registers: by name.
        first: the register whose object comes before all others.
    """
    found: dict[int, list[Pointee]] = {}
    for register, value in registers.items():
        place = pointee(kernel, value) if memory.is_kernels(value) and register not in _PASSING else None
        if place is not None and place.kind == "slab" and place.state == "allocated" and place.object is not None \
                and 0 < (place.object_size or 0) <= _LARGEST:
            found.setdefault(place.object, []).extend([place] * (len(registers) if register == first else 1))
    return [places[0] for places in sorted(found.values(), key=len, reverse=True)]


def _pointed_at(kernel: Kernel, registers: Mapping[str, int], first: str) -> Iterator[Frame]:
    """Yield what the first living object that points at modules points at there; else what the next objects point at.

    The file that a process reads leads by one more object to whose it is. Functions count only in what one was called
    for: what runs everybody's works and timers remembers the last one's.
    """
    places = living_objects(kernel, registers, first)
    for number, place in enumerate(places):
        frames = list(_in_modules(kernel, place, code_too=bool(first) and not number))
        if frames:
            yield from frames
            return
    seen = {place.object for place in places}
    for place in places[:_MOST_OBJECTS]:
        for word in filter(memory.is_kernels, _words(kernel, place)[:_MOST_WORDS]):
            following = pointee(kernel, word)
            if following.kind != "slab" or following.state != "allocated" or following.object in seen \
                    or not 0 < (following.object_size or 0) <= _LARGEST_NEXT:
                continue
            seen.add(following.object)
            yield from _in_modules(kernel, following, code_too=False)


def _words(kernel: Kernel, place: Pointee) -> tuple[int, ...]:
    size = (place.object_size or 0) & ~7
    try:
        return struct.unpack(f"<{size // 8}Q", kernel.prog.read(place.object or 0, size))
    except READ_ERRORS:
        return ()


def _in_modules(kernel: Kernel, place: Pointee, *, code_too: bool = True) -> Iterator[Frame]:
    for word in _words(kernel, place):
        frame = _data_of_a_module(kernel, word, code_too=code_too) if memory.is_kernels(word) else None
        if frame is not None:
            yield frame
