"""A value's name and type, as the source would have them: `dev->channel`, of type `struct flaky_channel *`.

Types come from the prototype of the function (BTF has those of the kernel and, since 5.11, of its
modules) and from the members that were loaded; the name of an argument from the prototype too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.crashed.members import bare, called, is_structure, member_at, pointed
from kdumpy.diagnosis.crashed.values import Argument, Constant, Loaded, Made, Met, PerCpu, Plus, Returned, Value
from kdumpy.kernel import Kernel

_IN_REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
"""System V ABI: integer arguments, in this order."""
_CURRENT = ("current_task", "const_current_task", "pcpu_hot")
"""Per-CPU variables that begin with the pointer to the running task (pcpu_hot: 6.2 to 6.14)."""
_MOST_TEXT = 120
_DEEPEST = 8
_SYMBOL_FAR = 0x10000


@dataclass(frozen=True)
class Named:
    """A value as the source would name it."""

    text: str
    type: drgn.Type | None
    """None where it is not known."""
    function: str = ""
    """The function whose source would name it so."""

    @property
    def is_source(self) -> bool:
        """Whether it is so in the source: what lies within a variable whose type is not known has a place only."""
        return "+0x" not in self.text

    @property
    def sentence(self) -> str:
        """Say what the source has, or where the value was read."""
        if not self.is_source:
            return f"The pointer was read from {self.text}."
        return f"In the source that is {self.text}."


@dataclass(frozen=True)
class Place:
    """A member of a structure."""

    structure: str
    """`struct flaky_channel`."""
    member: str
    offset: int
    """Bytes from the structure's begin."""


class Names:
    """Names the values of one function."""

    def __init__(self, kernel: Kernel, symbol: str | None, module: str | None,
                 passed: Callable[[str], Named | None] = lambda register: None) -> None:
        """`passed`: what its caller shows a register to be that it passed, where no prototype tells."""
        self.kernel = kernel
        self.prog = kernel.prog
        self.arguments: dict[str, Named] = {}
        self.function = (symbol or "").split(".")[0]
        made = prototype(kernel, symbol, module) if symbol else None
        self.typed = made is not None
        """Whether its prototype is known."""
        self._passed = passed
        if made is not None:
            self.arguments.update(_arguments(made, self.function))

    def named(self, value: Value | None, depth: int = 0) -> Named | None:
        """Return a value's name and type; None where it has none."""
        if value is None or isinstance(value, Met | Made) or depth > _DEEPEST:
            return None
        if isinstance(value, Argument):
            return self.arguments.get(value.register) if self.typed else self._passed(value.register)
        if isinstance(value, PerCpu):
            return self._per_cpu(value)
        if isinstance(value, Constant):
            return self._constant(value.number)
        if isinstance(value, Returned):
            return self._returned(value.target)
        inner = self.named(value.base, depth + 1)
        if inner is None or len(inner.text) > _MOST_TEXT:
            return None
        if isinstance(value, Plus):
            return self._behind(inner, value.offset)
        return self._loaded(value, inner)

    def place(self, value: Value | None, offset: int, size: int) -> Place | None:
        """Return the member that lies `offset` bytes behind a pointer; None where that is not known."""
        if isinstance(value, Plus):
            return self.place(value.base, offset + value.offset, size)
        named = self.named(value)
        target = pointed(named.type) if named else None
        if target is None or offset < 0:
            return None
        with contextlib.suppress(*READ_ERRORS):
            member = member_at(target, offset, size)
            if member is not None and member.path:
                return Place(called(target), member.path, offset)
        return None

    def _loaded(self, value: Loaded, inner: Named) -> Named | None:
        if isinstance(value.base, Constant):        # a variable itself
            if inner.type is not None and bare(inner.type).kind == drgn.TypeKind.POINTER and not value.scale:
                return Named(inner.text.removeprefix("&"), bare(inner.type).type, inner.function)
            index = "[…]" if value.scale else ""
            return Named(f"{inner.text.removeprefix('&')}{index}", None, inner.function)
        target = pointed(inner.type)
        if target is not None and value.offset >= 0:
            with contextlib.suppress(*READ_ERRORS):
                member = member_at(target, value.offset, value.size)
                if member is not None and member.path:
                    path = member.path
                    if value.scale and "[0]" not in path:
                        return None             # an index, and no array
                    if value.scale:
                        path = path.rpartition("[0]")[0] + "[…]"
                    return Named(f"{_grouped(inner.text)}->{path}", member.type, inner.function)
            return None
        made = bare(inner.type) if inner.type is not None else None
        if made is not None and made.kind == drgn.TypeKind.POINTER and bare(made.type).kind != drgn.TypeKind.VOID:
            with contextlib.suppress(*READ_ERRORS):
                width = drgn.sizeof(made.type)
                if width == value.size and value.offset % width == 0:
                    index = "…" if value.scale else str(value.offset // width)
                    text = f"*{_grouped(inner.text)}" if index == "0" else f"{_grouped(inner.text)}[{index}]"
                    return Named(text, made.type, inner.function)
        return None

    def _behind(self, inner: Named, offset: int) -> Named | None:
        target = pointed(inner.type)
        if target is not None and offset > 0:
            with contextlib.suppress(*READ_ERRORS):
                member = member_at(target, offset)
                if member is not None and member.path:
                    made = self.prog.pointer_type(member.type) if member.type is not None else None
                    return Named(f"&{_grouped(inner.text)}->{member.path}", made, inner.function)
        return None

    def _constant(self, number: int) -> Named | None:
        if number < memory.LOWEST_USER or number >> 63 == 0:
            return Named("NULL", None, self.function) if number == 0 else None
        symbol = memory.symbol_at(self.prog, number)
        if not symbol:
            return None
        symbols = self.kernel.debuginfo.module_symbols
        module = symbols.module_at(number) if symbols else None
        name, _, offset = symbol.partition("+")
        made = None
        with contextlib.suppress(*READ_ERRORS):
            variable = self.prog[name]
            if not module and variable.address_ is not None:
                made = self._member_pointer(variable.type_, int(offset or "0", 16))
        return Named(f"&{symbol}" + (f" [{module}]" if module else ""), made, self.function)

    def _member_pointer(self, made: drgn.Type, offset: int) -> drgn.Type | None:
        member = member_at(made, offset)
        if offset == 0 and is_structure(bare(made)):
            return self.prog.pointer_type(made)
        return self.prog.pointer_type(member.type) if member and member.type is not None else None

    def _returned(self, target: int) -> Named | None:
        symbol = memory.symbol_at(self.prog, target) if target else ""
        if not symbol or "+" in symbol:
            return None
        symbols = self.kernel.debuginfo.module_symbols
        made = prototype(self.kernel, symbol, symbols.module_at(target) if symbols else None)
        return Named(f"{symbol.split('.')[0]}()", made.type if made is not None else None, self.function)

    def _per_cpu(self, value: PerCpu) -> Named | None:
        if value.size != 8:
            return None
        for name in _CURRENT:
            with contextlib.suppress(*READ_ERRORS):
                begin = self.prog.symbol(name).address
                if value.offset % (1 << 64) == begin:
                    return Named("current", self.prog.type("struct task_struct *"), self.function)
        return None


def _grouped(text: str) -> str:
    return f"({text})" if text.startswith(("*", "&")) else text


def prototype(kernel: Kernel, symbol: str, module: str | None) -> drgn.Type | None:
    """Return the type of a function; None where it is not known, or where it may be another one's.

    The compiler passes other arguments to a clone (`.isra.0`, `.constprop.0`, `.part.0`); and of several
    functions of one name BTF does not say whose prototype it has.
    """
    if "." in symbol and not symbol.endswith(".cold"):
        return None
    symbol = symbol.removesuffix(".cold")
    info = kernel.debuginfo
    if info.dwarf:
        with contextlib.suppress(*READ_ERRORS):
            return kernel.prog.function(symbol).type_
    if info.types is None:
        return None
    with contextlib.suppress(*READ_ERRORS):
        if module is None:
            if info.symbols is None or len(info.symbols(kernel.prog, symbol, None, False)) != 1:
                return None
            blob = info.types.btf
        else:
            info.types.read_modules()
            blob = info.types.modules[module]
            made = info.module_symbols
            own = [item for item in made(kernel.prog, symbol, None, False)
                   if made.module_at(item.address) == module] if made else []
            if len(own) != 1:
                return None
        type_id = blob.function(symbol)
        if type_id is not None:
            return info.types.type(blob, blob.type(type_id).size_or_type)
    return None


def _arguments(made: drgn.Type, function: str) -> dict[str, Named]:
    """Return what the registers of a function's arguments hold."""
    found: dict[str, Named] = {}
    if made.kind != drgn.TypeKind.FUNCTION:
        return found
    registers = iter(_IN_REGISTERS)
    for number, parameter in enumerate(made.parameters):
        kind = bare(parameter.type)
        if is_structure(kind) or kind.kind == drgn.TypeKind.FLOAT:
            break                           # takes none, two or other registers
        register = next(registers, None)
        if register is None:
            break
        found[register] = Named(parameter.name or f"argument {number + 1}", parameter.type, function)
    return found
