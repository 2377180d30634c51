"""Which addresses hold code: told by where they lie, because kallsyms' letters do not always say it.

7.2's kallsyms calls every global a `T`, so that a symbol's kind says nothing about data there.
"""

from __future__ import annotations

import drgn

from kdumpy.debuginfo.modules import ModuleSymbols
from kdumpy.debuginfo.reading import READ_ERRORS

_SECTIONS = (("_stext", "_etext"), ("_sinittext", "_einittext"))
"""The kernel's own code; the second part is free memory once the kernel has booted."""


class Text:
    """The code of a kernel and its modules: `address in text`."""

    def __init__(self, prog: drgn.Program, modules: ModuleSymbols | None) -> None:
        self._modules = modules
        self._ranges: list[tuple[int, int]] = []
        for start, end in _SECTIONS:
            try:
                self._ranges.append((prog.symbol(start).address, prog.symbol(end).address))
            except READ_ERRORS:
                continue

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, int):
            return False
        if any(start <= address < end for start, end in self._ranges):
            return True
        return self._modules is not None and self._modules.is_text(address)
