"""Which module knows a freed object: by the pointers to it in the module's variables, and in what these lead to.

A driver mostly keeps a pointer to what it has made, also when it has freed that while a timer, work or a callback in it
was set. So an object that nothing else tells the owner of leads to its module.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kdumpy.debuginfo.modules import ranges_of
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.culprit import Choice
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_MOST_BYTES = 2 << 20
"""Of one module that are looked through."""
_MOST_OBJECTS = 64
"""Of a module that are looked through."""
_LARGEST = 4096


def module_that_knows(kernel: Kernel, place: Pointee) -> Choice:
    """Choose the module from elsewhere that has a pointer to an object; none where several have one, or none.

    For freed objects only: to a living one of the kernel's own, as a queue of works, many modules have a pointer.
    """
    if place.object is None or not place.object_size or kernel.debuginfo.module_symbols is None:
        return Choice(None, ())
    begin, end = place.object, place.object + place.object_size
    foreign = [module.name for module in kernel.modules if "O" in module.taints]
    for look in (_in_variables, _in_objects):
        found = [frame for name in foreign if (frame := look(kernel, name, begin, end)) is not None]
        if len(found) == 1:
            frame = found[0]
            how = "points at the object" if look is _in_variables else "leads to an object that points at it"
            name = frame.symbol or "of no name"
            return Choice(frame, (f"chosen: the variable {name} [{frame.module}], which {how}: no function of its user "
                                  "is on the stack",))
        if found:
            break
    return Choice(None, ())


def _in_variables(kernel: Kernel, module: str, begin: int, end: int) -> Frame | None:
    for start, words in _memory(kernel, module):
        for number, word in enumerate(words):
            if begin <= word < end:
                return _variable(kernel, module, start + 8 * number)
    return None


def _in_objects(kernel: Kernel, module: str, begin: int, end: int) -> Frame | None:
    seen: set[int] = set()
    for start, words in _memory(kernel, module):
        for number, word in enumerate(words):
            if not memory.is_kernels(word) or word & ~0xFFF in seen or _of_an_image(kernel, word):
                continue
            if len(seen) >= _MOST_OBJECTS:
                return None
            seen.add(word & ~0xFFF)
            held = pointee(kernel, word)
            if held.kind != "slab" or held.state != "allocated" or not 0 < (held.object_size or 0) <= _LARGEST:
                continue
            try:
                inside = _words(kernel, held.object or 0, held.object_size or 0)
            except READ_ERRORS:
                continue
            if any(begin <= other < end for other in inside):
                return _variable(kernel, module, start + 8 * number)
    return None


def _words(kernel: Kernel, address: int, size: int) -> tuple[int, ...]:
    return struct.unpack(f"<{size // 8}Q", kernel.prog.read(address, size & ~7))


def _of_an_image(kernel: Kernel, value: int) -> bool:
    """Whether an address is of the kernel's or of a module's own memory, and not of an object."""
    symbols = kernel.debuginfo.module_symbols
    return value >> 31 == (1 << 33) - 1 or bool(symbols and symbols.module_at(value))


def _memory(kernel: Kernel, module: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (address, words) of a module's memory."""
    symbols = kernel.debuginfo.module_symbols
    if symbols is None:
        return
    try:
        ranges = ranges_of(symbols.module_named(module))
    except READ_ERRORS:
        return
    for start, end in ranges:
        first = -(-start // 8) * 8
        size = min(end - first, _MOST_BYTES) & ~7
        for at in range(first, first + size, 4096):     # pages of it may be left out of the dump
            try:
                yield at, _words(kernel, at, min(4096, first + size - at))
            except READ_ERRORS:
                continue


def _variable(kernel: Kernel, module: str, address: int) -> Frame:
    name, _, offset = memory.symbol_at(kernel.prog, address).partition("+")
    return Frame(address, name or None, int(offset or "0", 0) if name else None, module, data=True)
