"""Symbols and types of loaded modules, out of the dump.

Every module keeps its ELF symbol table in memory (`struct mod_kallsyms`), whether it was built
with BTF or not; modules built with BTF are on the list `btf_modules` (kernel/bpf/btf.c).
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import drgn
from drgn import Symbol, SymbolBinding, SymbolIndex, SymbolKind

from kdumpy.debuginfo.btf import Btf
from kdumpy.debuginfo.lists import list_entries
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.errors import DamagedDump

MOST_MODULES = 10_000
"""A list longer than this is a loop."""
_MOST_SYMBOLS = 1_000_000
_LARGEST_BTF = 64 << 20
_ELF_SYMBOL = struct.Struct("<IBBHQQ")
"""Elf64_Sym: st_name, st_info, st_other, st_shndx, st_value, st_size."""
_UNDEFINED, _FIRST_RESERVED = 0, 0xFF00
_BINDINGS = {0: SymbolBinding.LOCAL, 1: SymbolBinding.GLOBAL, 2: SymbolBinding.WEAK}
_TYPES = {1: SymbolKind.OBJECT, 2: SymbolKind.FUNC}
_BOUNDS = ("__start_", "__stop_")
"""The linker's bounds of a section lie at the address of its first variable, or of the next section's: left out."""

_MAPPING = re.compile(r"\$[adtx](\.|$)")
"""What AArch64's and Arm's assemblers mark code and data by; none is a name. Source: ELF for the Arm 64-bit
Architecture, "Mapping symbols"; is_mapping_symbol() in include/linux/module_symbol.h."""


class ModuleRange(NamedTuple):
    """Where a part of a module lies."""

    start: int
    end: int
    name: str


def module_list(prog: drgn.Program) -> Iterator[drgn.Object]:
    """Yield each `struct module *` on the kernel's list.

    Raises:
        DamagedDump: behind all that can be read, where the list breaks off or runs in a circle.
    """
    offset = drgn.offsetof(prog.type("struct module"), "list")
    made = prog.pointer_type(prog.type("struct module"))
    for entry in list_entries(prog, prog["modules"].address_):
        yield drgn.Object(prog, made, value=entry - offset)


def text_of(module: drgn.Object) -> list[tuple[int, int]]:
    """Return the (start, end) addresses of a module's code."""
    prog = module.prog_
    try:
        parts = [module.mem[prog.constant(name)] for name in ("MOD_TEXT", "MOD_INIT_TEXT")]
        found = [(part.base.value_(), part.size.value_()) for part in parts]
    except (AttributeError, LookupError):
        layouts = [module.core_layout, module.init_layout]
        found = [(layout.base.value_(), layout.text_size.value_()) for layout in layouts]
    return [(base, base + size) for base, size in found if base and size]


def ranges_of(module: drgn.Object) -> list[tuple[int, int]]:
    """Return the (start, end) addresses of a module's memory.

    One `mem` array since 6.4 (ac3b43283923 "module: replace module_layout with module_memory");
    `core_layout` and `init_layout` before.
    """
    try:
        parts = [(part.base.value_(), part.size.value_()) for part in module.mem]
    except AttributeError:
        layouts = [module.core_layout, module.init_layout]
        # data_layout: 01dc0386efb7 "module: Add CONFIG_ARCH_WANTS_MODULES_DATA_IN_VMALLOC" (5.18).
        if module.type_.type.has_member("data_layout"):
            layouts.append(module.data_layout)
        parts = [(layout.base.value_(), layout.size.value_()) for layout in layouts]
    return [(base, base + size) for base, size in parts if base and size]


def symbols_of(module: drgn.Object) -> list[Symbol]:
    """Return the symbols of a module, sorted as in its ELF symbol table.

    Raises:
        drgn.FaultError: the table is not in the dump.
        DamagedDump: the table makes no sense.
    """
    prog = module.prog_
    tables = module.kallsyms
    count = tables.num_symtab.value_()
    if count > _MOST_SYMBOLS:
        raise DamagedDump("a module's symbol table makes no sense", where=f"address {tables.value_():#x}",
                          why=f"it claims {count} symbols")
    entries = list(_ELF_SYMBOL.iter_unpack(prog.read(tables.symtab.value_(), count * _ELF_SYMBOL.size)))
    last = max((entry[0] for entry in entries), default=0)
    if last > _LARGEST_BTF:
        raise DamagedDump("a module's symbol table makes no sense", where=f"address {tables.symtab.value_():#x}",
                          why=f"it names a string at {last}")
    strings_at = tables.strtab.value_()
    strings = prog.read(strings_at, last) + prog.read_c_string(strings_at + last, max_size=4096)
    found = []
    for name_at, info, _, section, value, size in entries:
        if section == _UNDEFINED or section >= _FIRST_RESERVED:
            continue
        end = strings.find(b"\0", name_at)
        name = strings[name_at : end if end >= 0 else len(strings)].decode("ascii", "replace")
        if name and value and not name.startswith(_BOUNDS) and not _MAPPING.match(name):
            found.append(Symbol(name, value, size, _BINDINGS.get(info >> 4, SymbolBinding.UNKNOWN),
                                _TYPES.get(info & 0xF, SymbolKind.UNKNOWN)))
    return _sized(found, ranges_of(module))


def _sized(symbols: list[Symbol], ranges: list[tuple[int, int]]) -> list[Symbol]:
    """Give symbols without a size (from assembly) the room up to the next one in their range."""
    addresses = sorted({symbol.address for symbol in symbols} | {end for _, end in ranges})
    sized = []
    for symbol in symbols:
        if symbol.size == 0:
            after = bisect_right(addresses, symbol.address)
            room = addresses[after] - symbol.address if after < len(addresses) else 0
            symbol = Symbol(symbol.name, symbol.address, min(room, 0x10000), symbol.binding, symbol.kind)
        sized.append(symbol)
    return sized


class ModuleSymbols:
    """A drgn symbol finder over all modules; each module's table is read when it is first needed."""

    def __init__(self, prog: drgn.Program, missing: dict[str, str]) -> None:
        """`missing` is told which module's symbols cannot be had, and why."""
        self.prog = prog
        self._missing = missing
        self._text: list[tuple[int, int]] = []
        self._modules: dict[str, drgn.Object] | None = None
        self._ranges: list[ModuleRange] = []
        self._indexes: dict[str, SymbolIndex] = {}

    def _load(self) -> dict[str, drgn.Object]:
        if self._modules is None:
            # Set first: reading the list asks for symbols ("modules"), and so comes back here.
            self._modules = {}
            found = {}
            try:
                for module in module_list(self.prog):
                    try:
                        name = module.name.string_().decode("ascii", "replace")
                        self._ranges += [ModuleRange(start, end, name) for start, end in ranges_of(module)]
                        self._text += text_of(module)
                        found[name] = module
                    except READ_ERRORS as error:
                        self._missing[f"the module at {module.value_():#x}"] = str(error)
            except READ_ERRORS as error:
                self._missing["modules"] = str(error)
            self._modules = found
            self._ranges.sort()
        return self._modules

    def _index(self, name: str) -> SymbolIndex:
        if name not in self._indexes:
            try:
                symbols = symbols_of(self._load()[name])
            except READ_ERRORS as error:
                self._missing[f"symbols of module {name}"] = str(error)
                symbols = []
            self._indexes[name] = SymbolIndex(symbols)
        return self._indexes[name]

    def is_text(self, address: int) -> bool:
        """Whether an address lies in the code of a module."""
        self._load()
        return any(start <= address < end for start, end in self._text)

    def module_at(self, address: int) -> str | None:
        """Return the name of the module that holds an address."""
        self._load()
        position = bisect_right(self._ranges, (address, 1 << 64, "")) - 1
        if position >= 0 and self._ranges[position].start <= address < self._ranges[position].end:
            return self._ranges[position].name
        return None

    def module_named(self, name: str) -> drgn.Object:
        """Return the `struct module *` of a name.

        Raises:
            LookupError: there is none.
        """
        return self._load()[name]

    def of_module(self, name: str) -> Sequence[Symbol]:
        """Return all symbols of a module; none where they cannot be read."""
        return self._index(name)(self.prog, None, None, False) if name in self._load() else []

    def __call__(self, prog: drgn.Program, name: str | None, address: int | None, one: bool) -> Sequence[Symbol]:
        """Find symbols by name, by address, or all: drgn's protocol of symbol finders."""
        if address is not None:
            module = self.module_at(address)
            return self._index(module)(prog, name, address, one) if module else []
        if name is not None and name.startswith(_BOUNDS):
            return []                           # drgn asks for the kernel's own, which an older one may lack
        found: list[Symbol] = []
        for module in self._load():
            found += self._index(module)(prog, name, address, one)
            if one and found:
                return found[:1]
        return found


def add_module_types(types: BtfTypes) -> dict[str, str]:
    """Add the split BTF of every module that has one; return why, for those whose BTF is unusable.

    The blobs are found on `btf_modules`; `module.btf_data` is freed memory or NULL after loading.
    """
    prog = types.prog
    failures: dict[str, str] = {}
    try:
        head = prog["btf_modules"]
        made = prog.type("struct btf_module")
        entry, end, offset = head.next.value_(), head.address_, drgn.offsetof(made, "list")
    except READ_ERRORS:
        return failures                     # no split BTF before 5.11 (36e68442d1af)
    seen: set[int] = set()
    while entry != end and entry not in seen and len(seen) < MOST_MODULES:
        seen.add(entry)
        holder = drgn.Object(prog, made, address=entry - offset)
        name = f"the one at {entry - offset:#x}"
        try:
            entry = holder.list.next.value_()
            name = holder.module.name.string_().decode("ascii", "replace")
            size = holder.btf.data_size.value_()
            if size > _LARGEST_BTF:
                raise DamagedDump("a module's BTF makes no sense", why=f"it claims {size} bytes")
            types.modules[name] = Btf(prog.read(holder.btf.data.value_(), size), base=types.btf)
        except READ_ERRORS as error:
            failures[name] = str(error)
            if isinstance(error, drgn.FaultError) and name.startswith("the one"):
                break
    else:
        if entry != end:
            failures["the list"] = f"it runs in a circle at {entry - offset:#x}"
    return failures
