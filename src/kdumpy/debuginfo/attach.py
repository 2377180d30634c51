"""Give a `drgn.Program` of a kernel dump its symbols, types, objects and unwind tables, from the dump."""

from __future__ import annotations

from dataclasses import dataclass, field

import drgn
from drgn import ProgramFlags, TypeKind

from kdumpy.debuginfo import kallsyms, orc
from kdumpy.debuginfo.btf import Btf
from kdumpy.debuginfo.cache import load_index
from kdumpy.debuginfo.dwarf import how_to_get
from kdumpy.debuginfo.modules import ModuleSymbols, add_module_types
from kdumpy.debuginfo.objects import Objects
from kdumpy.debuginfo.reading import READ_ERRORS, is_damage
from kdumpy.debuginfo.text import Text
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.debuginfo.unlisted import Unlisted
from kdumpy.errors import DamagedDump, KdumpyError, NotInDump

_NAME = "kdumpy"
_LARGEST_BTF = 256 << 20
_OF_MODULES = {TypeKind.STRUCT, TypeKind.UNION, TypeKind.ENUM, TypeKind.TYPEDEF}
"""Kinds of types that a module may bring; the integers are the kernel's."""


@dataclass
class DebugInfo:
    """What a dump could tell of itself, and what it could not."""

    symbols: kallsyms.KernelSymbols | None = None
    module_symbols: ModuleSymbols | None = None
    types: BtfTypes | None = None
    objects: Objects | None = None
    panic_frame: orc.Restart | None = None
    text: Text | None = None
    """Which addresses hold code; None without symbols."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a part is not there, by part: symbols, types, module types, unwind tables, modules."""
    how_to_get: str = ""
    """Where this kernel's DWARF comes from: which package, which build id."""
    dwarf: list[str] = field(default_factory=list)
    """Files with DWARF that are in use."""

    @property
    def mend(self) -> str:
        """What would fill a gap in `missing`; empty where there is none to fill."""
        return f"its debug symbols fill the gap: {self.how_to_get}" if self.missing and not self.dwarf else ""


def attach(prog: drgn.Program, saved: orc.SavedRegisters = lambda prog: None) -> DebugInfo:
    """Attach what the dump knows of itself, behind DWARF where DWARF is already loaded.

    Args:
        prog: the program of a kernel dump.
        saved: gives the panic CPU's registers, by which a kernel without types can still be unwound.

    Never raises for what the dump lacks: that goes into `DebugInfo.missing`.
    """
    info = DebugInfo()
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        return info
    attached = prog.config.get(_NAME)
    if isinstance(attached, DebugInfo):         # the plugin has done it, or the caller twice
        return attached
    prog.config[_NAME] = info
    info.how_to_get = how_to_get(prog)
    _attach(prog, info, saved)
    return info


def _attach(prog: drgn.Program, info: DebugInfo, saved: orc.SavedRegisters) -> None:
    try:
        info.symbols = kallsyms.load(prog)
    except READ_ERRORS as error:
        info.missing["symbols"] = str(error)
        return
    if info.symbols.damage:
        info.missing["some symbols"] = info.symbols.damage
    prog.register_symbol_finder(_NAME, info.symbols, enable_index=-1)
    unlisted = _unlisted(prog)
    btf = None
    try:
        btf = _kernel_btf(prog, unlisted)
    except KdumpyError as error:
        info.missing["types"] = str(error)
    try:
        _list(info, unlisted, btf)
    except KdumpyError as error:
        info.missing["symbols of variables"] = str(error)
    if btf is not None:
        _make_types(prog, info, btf)
    info.text = Text(prog, info.module_symbols)
    info.objects = Objects(prog, info.types, info.symbols, info.text)
    prog.register_object_finder(_NAME, info.objects, enable_index=-1)
    if info.types is not None and info.module_symbols is not None:
        _attach_types(prog, info.missing, info.types, info.objects)
        prog.register_symbol_finder(f"{_NAME}-modules", info.module_symbols, enable_index=-1)
    try:
        info.panic_frame = orc.attach(prog, saved)
    except READ_ERRORS as error:
        info.missing["unwind tables"] = str(error)


def _unlisted(prog: drgn.Program) -> Unlisted | None:
    """Return what can be known of the symbols that kallsyms lacks; None where it lacks none."""
    if prog.symbols("init_task"):
        return None
    try:
        return Unlisted(prog, prog.symbol("_etext").address)
    except READ_ERRORS:
        return None


def _make_types(prog: drgn.Program, info: DebugInfo, btf: Btf) -> None:
    try:
        info.types = BtfTypes(prog, btf)
        info.module_symbols = ModuleSymbols(prog, info.missing)
    except KdumpyError as error:
        info.missing["types"] = str(error)


def _list(info: DebugInfo, unlisted: Unlisted | None, btf: Btf | None) -> None:
    if unlisted is None:
        return
    unlisted.complete(btf)
    assert info.symbols is not None
    info.symbols.add(unlisted.index())
    info.missing["symbols of variables"] = (
        f"kallsyms lists functions only (no CONFIG_KALLSYMS_ALL); of the variables are known: {unlisted.told()}")


def _attach_types(prog: drgn.Program, missing: dict[str, str], types: BtfTypes, objects: Objects) -> None:
    found: dict[tuple[drgn.TypeKindSet, str], drgn.Type | None] = {}
    pending = True

    def find(prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None) -> drgn.Type | None:
        if filename is not None:                # BTF knows no files
            return None
        key = (kinds, name)
        if key in found:
            return found[key]
        made = None
        try:
            made = types.find(kinds, name)
            if made is None and (objects.kernel_types_only or not _OF_MODULES & set(kinds)):
                return None             # asked for on every start: not worth to read the modules' types for
            if made is None and read_modules():
                made = types.find(kinds, name)
        except DamagedDump as error:
            missing[f"type {name}"] = str(error)
        found[key] = made
        return made

    def read_modules() -> bool:
        """Read the modules' BTF when a name is first missed in the kernel's; True once they are there."""
        nonlocal pending
        if pending:
            pending = False
            failures = add_module_types(types)
            if failures:
                missing["module types"] = "; ".join(f"{name}: {why}" for name, why in failures.items())
            objects.forget()
        return bool(types.modules)

    types.read_modules = read_modules
    prog.register_type_finder(_NAME, find, enable_index=-1)


def _kernel_btf(prog: drgn.Program, unlisted: Unlisted | None) -> Btf:
    """Read and index the kernel's own BTF.

    Raises:
        NotInDump: the kernel has none, or its pages are missing.
        DamagedDump: it breaks its own rules.
    """
    try:
        if unlisted is not None and unlisted.btf is not None:
            start, stop = unlisted.btf
        else:
            start, stop = (prog.symbol(name).address for name in ("__start_BTF", "__stop_BTF"))
        if not 0 < stop - start <= _LARGEST_BTF:
            raise NotInDump("the kernel's types (BTF) have an impossible size", where=f"address {start:#x}",
                            why=f"{stop - start} bytes")
        data = prog.read(start, stop - start)
    except LookupError:
        if not prog.symbols("init_task"):
            raise NotInDump("the kernel's types (BTF) were not found", why="its symbol table has functions only: "
                            "it was built without CONFIG_KALLSYMS_ALL") from None
        raise NotInDump("the kernel has no types (BTF)", why="it was built without CONFIG_DEBUG_INFO_BTF") from None
    except drgn.FaultError as error:
        if is_damage(error):
            raise DamagedDump("the kernel's types (BTF) cannot be read", where=f"address {error.address:#x}",
                              why="the file is damaged there") from error
        raise NotInDump("the kernel's types (BTF) are not in the dump", where=f"address {error.address:#x}",
                        why="the page is missing") from error
    return load_index(data)
