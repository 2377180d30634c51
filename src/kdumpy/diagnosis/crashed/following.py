"""The data-flow of each frame of a stack, and what its callers passed to it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import drgn

from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed import dataflow
from kdumpy.diagnosis.crashed.naming import Named, Names
from kdumpy.diagnosis.crashed.values import Argument, Constant, Loaded, Made, Value, apart
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_MOST_CALLERS = 4
"""Frames upwards in which the origin of an argument is looked for."""
_COLD = ".cold"
_WORD = 1 << 64
_NEAR = 1 << 28
"""Bytes between the parts of a function, at most."""


@dataclass(frozen=True)
class Function:
    """A function's code."""

    symbol: str
    begin: int
    end: int
    beside: dict[int, int]
    """Its `.cold` part, where the address lies in that: begin and end."""


def function_at(prog: drgn.Program, pc: int) -> Function | None:
    """Return the function that holds an address."""
    try:
        symbol = prog.symbol(pc)
    except LookupError:
        return None
    hot = symbol.name.removesuffix(_COLD)
    begin, end = symbol.address, symbol.address + symbol.size
    if hot == symbol.name:
        return Function(hot, begin, end, {})
    # The function begins in its hot part.
    near = [item for item in prog.symbols(hot) if abs(item.address - begin) < _NEAR]
    return Function(hot, near[0].address, near[0].address + near[0].size, {begin: end}) if len(near) == 1 else None


@dataclass(frozen=True)
class Origin:
    """Where a value came from, in the function that got it first."""

    flow: Follower
    value: Value


class Follower:
    """Follows the values of a frame's function up to an instruction, and those that its callers passed."""

    def __init__(self, kernel: Kernel, read: operands.Read, frames: Sequence[Frame], pc: int,
                 registers: Mapping[str, int], depth: int = _MOST_CALLERS) -> None:
        """Follow the innermost of `frames`.

        Args:
            kernel: whose code it is.
            read: reads its memory.
            frames: the frame and its callers.
            pc: the instruction at which the values are wanted.
            registers: what the registers held there, as far as that is known.
            depth: how many callers may be asked.
        """
        self.kernel = kernel
        self.read = read
        self.frames = [frame for frame in frames if not frame.inline]
        self.pc = pc
        self.registers = registers
        self.depth = depth

    @cached_property
    def function(self) -> Function | None:
        """The frame's function."""
        return function_at(self.kernel.prog, self.pc)

    @cached_property
    def state(self) -> dataflow.State:
        """What is known before the instruction; nothing is where that cannot be told."""
        function = self.function
        if function is None:
            return dataflow.State()
        return dataflow.trace(self.read, function.begin, function.end, self.pc, self._name_of, function.beside,
                              lambda address: self._cold_part(function, address))

    def _cold_part(self, function: Function, address: int) -> tuple[int, int] | None:
        """Return (begin, end) of the function's `.cold` part where an address lies in it."""
        try:
            symbol = self.kernel.prog.symbol(address)
        except LookupError:
            return None
        own = symbol.name == f"{function.symbol}{_COLD}"
        return (symbol.address, symbol.address + symbol.size) if own else None

    @property
    def values(self) -> dict[str, Value]:
        """What its registers hold before the instruction."""
        return self.state.registers

    @cached_property
    def names(self) -> Names:
        """Names for these values; where the function has no prototype, by what its caller passed."""
        module = self.frames[0].module if self.frames else None
        symbol = self.function.symbol if self.function else None
        return Names(self.kernel, symbol, module, self._passed)

    def _passed(self, register: str) -> Named | None:
        """Name what the caller passed in a register."""
        caller = self.caller
        return caller.names.named(caller.values.get(register)) if caller is not None else None

    @cached_property
    def caller(self) -> Follower | None:
        """The caller, at its call; None where it was no direct call of this very function."""
        if not self.depth or self.function is None or len(self.frames) < 2:
            return None
        frame = self.frames[1]
        if frame.interrupted or frame.offset is None or frame.user:
            return None
        call = operands.decode_call(self.read, frame.pc, {})
        # A jump (tail call), or a call through a register, may have passed on something else.
        if call is None or call.text.split()[-1] != f"{self.function.begin:#x}":
            return None
        return Follower(self.kernel, self.read, self.frames[1:], call.address, self.at_entry, self.depth - 1)

    @cached_property
    def at_entry(self) -> dict[str, int]:
        """What the registers held at the call of this function, as far as a register or its stack has kept it."""
        found: dict[str, int] = {}
        for register, held in self.values.items():
            base, offset = apart(held)
            if isinstance(base, Argument) and register in self.registers:
                found.setdefault(base.register, (self.registers[register] - offset) % _WORD)
        top = found.get("rsp")
        if top is None:
            return found
        for place, held in self.state.stack.items():
            if isinstance(held, Argument) and held.register not in found:
                with contextlib.suppress(LookupError, ValueError):
                    found[held.register] = int.from_bytes(self.read((top + place) % _WORD, 8), "little")
        found["rsp"] = (top + 8) % _WORD        # the return address lay on top
        return found

    def _name_of(self, address: int) -> str:
        try:
            symbol = self.kernel.prog.symbol(address)
        except LookupError:
            return ""
        return symbol.name if symbol.address == address else ""

    def origin(self, value: Value | None) -> Origin | None:
        """Return where a value came from, going to the callers as long as it is an argument."""
        if isinstance(value, Argument) and self.caller is not None:
            found = self.caller.origin(self.caller.values.get(value.register))
            if found is not None:
                return found
        return Origin(self, value) if value is not None else None

    def number(self, value: Value | None, *, ask_memory: bool = False) -> int | None:
        """Return what a value was, from the registers that still hold it; None where none does.

        Args:
            value: a value of this function.
            ask_memory: take what memory holds now for what was loaded from there; it may have changed.
        """
        if value is None:
            return None
        base, offset = apart(value)
        if isinstance(base, Constant):
            return (base.number + offset) % _WORD
        if isinstance(base, Made):
            return None
        for register, held in self.values.items():
            held_base, held_offset = apart(held)
            if held_base == base and register in self.registers:
                return (self.registers[register] - held_offset + offset) % _WORD
        found = None
        if isinstance(base, Argument) and base.register in self.at_entry:
            found = self.at_entry[base.register]
        elif isinstance(base, Argument) and base.register != "rsp" and self.caller is not None:
            found = self.caller.number(self.caller.values.get(base.register), ask_memory=ask_memory)
        elif isinstance(base, Loaded) and ask_memory and not base.scale and base.size == 8:
            place = self.number(base.base, ask_memory=True)
            if place is not None:
                with contextlib.suppress(LookupError, ValueError):
                    found = int.from_bytes(self.read((place + base.offset) % _WORD, 8), "little")
        return (found + offset) % _WORD if found is not None else None
