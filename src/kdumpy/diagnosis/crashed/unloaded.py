"""Code and data of a module that is gone: its timer, work or callback was still set when it was unloaded.

Nothing of the module is in the dump, not even its name beside the address; the kernel remembers the one that was
unloaded last.

Sources: arch/x86/include/asm/pgtable_64_types.h (MODULES_VADDR, MODULES_END), kernel/module/main.c.
"""

from __future__ import annotations

import contextlib

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.culprit import Choice
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_BEGIN, _END = 0xFFFFFFFF_80000000, 0xFFFFFFFF_FF000000
"""Where x86-64 has its image and, behind that, its modules."""
_NAME_BYTES = 56
"""MODULE_NAME_LEN on 64 bits."""


def unloaded_module(kernel: Kernel, address: int | None) -> Choice:
    """Return the module that was unloaded last, where an address is one of modules and no loaded one has it."""
    name = _last_unloaded(kernel, address)
    if name is None or address is None:
        return Choice(None, ())
    return Choice(Frame(address, None, None, name), (
        f"chosen: the module {name}, which was unloaded last: {address:#x} is an address of modules, and no loaded one "
        "has it",))


def _last_unloaded(kernel: Kernel, address: int | None) -> str | None:
    prog = kernel.prog
    if address is None or not _BEGIN <= address < _END or (kernel.system.machine or "") != "x86_64":
        return None
    symbols = kernel.debuginfo.module_symbols
    with contextlib.suppress(*READ_ERRORS):
        if address < prog.symbol("_end").address or (symbols and symbols.module_at(address)):
            return None
        with contextlib.suppress(drgn.FaultError):
            prog.read(address, 1)
            return None                     # somebody's memory, as of a BPF program
        # A string, and since 6.1 a structure that begins with it: 6f1dae1d84b6 "module: Show the last unloaded
        # module's taint flag(s)".
        name = prog.read(prog.symbol("last_unloaded_module").address, _NAME_BYTES).partition(b"\0")[0]
        return name.decode("ascii", "backslashreplace") or None
    return None
