"""A small ELF file with the types of BTF blobs that are made by hand, as drgn reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drgn

from kdumpy.debuginfo.btf import Btf
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.dumpfile.sink import FileSink
from kdumpy.vmlinux.elf import ElfFile, Flag, Kind, Placed
from kdumpy.vmlinux.image import Image
from kdumpy.vmlinux.symbols import Symbols
from kdumpy.vmlinux.units import DebugSections
from kdumpy.vmlinux.variables import Variables

PLATFORM = drgn.Platform(drgn.Architecture.X86_64)
BASE = 0xffffffff81000000
ADDRESSES = {"_text": BASE, "_etext": BASE + 0x1000, "_sdata": BASE + 0x2000, "__init_begin": BASE + 0x3000}


def describe(path: Path, kernel: bytes, modules: dict[str, bytes] | None = None,
             symbols: dict[str, int] | None = None) -> tuple[drgn.Program, DebugSections]:
    """Write a file of the kernel's BTF, the modules' by name, and functions by address; open it."""
    prog = drgn.Program(PLATFORM)
    types = BtfTypes(prog, Btf(kernel))
    for name, data in (modules or {}).items():
        types.modules[name] = Btf(data, base=types.btf)
    every = ADDRESSES | (symbols or {})
    found = [drgn.Symbol(name, address, 16, drgn.SymbolBinding.GLOBAL, drgn.SymbolKind.FUNC)
             for name, address in every.items()]
    table = Symbols(found, Image(every, 0, 0), set())
    nothing: Any = None                 # no variables are looked for
    debug = DebugSections(types, table, Variables(prog, types, nothing))
    sections = debug.sections()
    text = Placed(".text", Kind.PROGBITS, Flag.ALLOC | Flag.CODE, BASE, 0x1000)
    file = ElfFile([[text]], [
        Placed(name, Kind.PROGBITS, Flag.NONE, 0, len(data)) for name, data in sections.items()], entry=0)
    with FileSink(path) as sink:
        for placed, content in zip(file.sections[1:], sections.values(), strict=True):
            file.write(sink, placed, content)
        file.write_headers(sink)
    opened = drgn.Program(PLATFORM)
    module = opened.extra_module(path.name, create=True)
    module.try_file(path, force=True)
    return opened, debug
