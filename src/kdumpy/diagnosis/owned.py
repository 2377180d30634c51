"""Whose data a crash worked on: for code that serves everybody, with no function of its user on the stack.

A timer, a tasklet or a work item whose function is missing is run by the kernel alone. Which driver it
belongs to is told by the registers: they lead to the driver's own variables.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.culprit import Choice
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_PASSING = frozenset({"rip", "pc", "rsp", "sp", "lr"})
"""Registers that say where the code is, and not what it works on."""


def variable_of_a_module(kernel: Kernel, registers: Mapping[str, int]) -> Choice:
    """Return the variable of a module that the registers lead to; none where they lead to several modules' or to none.

    Args:
        kernel: the opened dump.
        registers: those at the fault, by name.
    """
    symbols, text = kernel.debuginfo.module_symbols, kernel.debuginfo.text
    found: list[Frame] = []
    for register, value in registers.items():
        module = symbols.module_at(value) if symbols and register not in _PASSING else None
        if module is None or (text is not None and value in text):
            continue
        try:
            name, _, offset = memory.symbol_at(kernel.prog, value).partition("+")
        except READ_ERRORS:
            continue
        if name:
            found.append(Frame(value, name, int(offset or "0", 0), module, data=True))
    if len({frame.module for frame in found}) != 1:
        return Choice(None, ())
    frame = min(found, key=lambda item: item.offset or 0)
    return Choice(frame, (f"chosen: the variable {frame.symbol} [{frame.module}], which the registers lead to: no "
                          "function of its module is on the stack",))
