"""Whether the dump's last moment is another one than the event that the log tells of."""

from __future__ import annotations

from kdumpy.diagnosis.oops import Event
from kdumpy.kernel.values import Panic

COMPARED = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
"""The registers that the log of x86-64 shows as the dump has them."""


def is_another(event: Event, panic: Panic) -> bool:
    """Tell whether the panic's stack, in which the event does not show by name, shows that the kernel died elsewhere.

    A dump that has lost its types names neither the task nor a module's function: there the registers tell, and where
    they do not, a stack that can be named throughout.
    """
    if panic.task is not None:
        return True
    logged = {name: value for name, value in event.registers.items() if name in COMPARED and name in panic.registers}
    if panic.fault is not None and logged:
        return any(panic.registers[name] != value for name, value in logged.items())
    return all(frame.symbol or frame.user for frame in panic.stack.frames)
