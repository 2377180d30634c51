"""The crash, read from registers, code and structures, and checked against what the log says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory, operands
from kdumpy.diagnosis.crashed import traps
from kdumpy.diagnosis.crashed.following import Follower
from kdumpy.diagnosis.crashed.moment import COMPARED
from kdumpy.diagnosis.crashed.naming import Named, Place
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.crashed.values import Argument, Constant, Loaded, Value, rooted
from kdumpy.diagnosis.facts.reading import BadPointer, Check, Pointee, Reading
from kdumpy.diagnosis.oops import Kind
from kdumpy.kernel.registers import saved_registers

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash
    from kdumpy.kernel import Kernel

_CODE = re.compile(r"\bCode: ([0-9a-f<>() ]+)")
_NO_CODE = (1 << 32) - 1
"""An exception without an error code leaves -1 in pt_regs.orig_ax; and so does a page fault's entry, on x86."""


@dataclass(frozen=True)
class Source:
    """Where the bad pointer came from."""

    value: Value | None
    named: Named | None
    place: Place | None
    """What was accessed through it."""
    loaded_by: str | None
    loaded_from: int | None
    """Address of the memory that it was loaded from."""
    still_there: bool | None


class Reader:
    """Reads one crash whose fault lies in the kernel's own code."""

    def __init__(self, crash: Crash, kernel: Kernel) -> None:
        self.crash = crash
        self.kernel = kernel

    @cached_property
    def nowhere(self) -> bool:
        """Whether the instruction pointer was where no code is."""
        fault = self.crash.fault
        return fault is not None and fault.symbol is None

    @cached_property
    def pc(self) -> int | None:
        """The instruction that is at fault: the faulting one, or the call that led nowhere."""
        if self.nowhere:
            return self.crash.call.address if self.crash.call else None
        return self.crash.fault.pc or None if self.crash.fault else None

    @cached_property
    def follower(self) -> Follower | None:
        """The data-flow up to that instruction."""
        if self.pc is None or self.crash.machine != "x86_64":
            return None
        frames = self.crash.below_fault[1:] if self.nowhere else self.crash.below_fault
        registers = dict(self.crash.fault_registers)
        if self.nowhere and "rsp" in registers:
            registers["rsp"] += 8               # the call that led nowhere pushed its return address
        return Follower(self.kernel, self.crash.read, frames, self.pc, registers)

    @cached_property
    def register(self) -> str | None:
        """The register that held the bad pointer."""
        if self.nowhere:
            return self.crash.call_register
        operand = self.crash.operand
        if operand is None or operand.base in (None, "rip"):
            return operand.index if operand else None
        return operand.index if operand.index and self.crash.pointer == operand.index_value else operand.base

    @cached_property
    def value(self) -> int | None:
        """What it held."""
        return self.crash.fault.pc if self.nowhere and self.crash.fault else self.crash.pointer

    @cached_property
    def offset(self) -> int | None:
        """Bytes from the pointer to what was accessed; None where there is none, or an index was added."""
        operand = self.crash.operand
        if self.nowhere or operand is None or self.value is None or operand.index:
            return None
        return operand.address - self.value

    @cached_property
    def root(self) -> int | None:
        """What the pointer was before bytes were added to it: NULL, where container_of() has taken some off it.

        None where none were added, and where its code does not tell.
        """
        found = self._rooted
        return (self.value - found[2]) % (1 << 64) if found is not None and self.value is not None else None

    @property
    def added(self) -> int:
        """Bytes that were added to the root; below zero where some were taken off it."""
        return self._rooted[2] if self._rooted is not None else 0

    @cached_property
    def root_named(self) -> Named | None:
        """The root as the source has it, or where it was read; None where it has no name."""
        if self._rooted is None:
            return None
        flow, value, _ = self._rooted
        try:
            return flow.names.named(value)
        except READ_ERRORS:
            return None

    @cached_property
    def _rooted(self) -> tuple[Follower, Value, int] | None:
        """The root as a value, the function that had it first, and the bytes that were added to it."""
        if self.follower is None or self.register is None or self.value is None or self.nowhere:
            return None
        flow: Follower | None = self.follower
        found: tuple[Follower, Value, int] | None = None
        value, added = self.follower.values.get(self.register), 0
        while flow is not None and value is not None:
            base, offset = rooted(value)
            if isinstance(base, Constant) or base == Argument("rsp"):
                return None
            added += offset
            found = (flow, base, added)
            if not isinstance(base, Argument):
                break
            flow = flow.caller
            value = flow.values.get(base.register) if flow is not None else None
        return found if added else None

    @cached_property
    def index(self) -> Named | None:
        """The index that led out of range, as the source has it; None where there is none, or it has no name."""
        indexed = self.crash.indexed
        if indexed is None or self.follower is None:
            return None
        try:
            return self.follower.names.named(self.follower.values.get(indexed.index_register))
        except READ_ERRORS:
            return None

    @cached_property
    def source(self) -> Source:
        """Where the pointer came from."""
        if self.follower is None or self.register is None:
            return Source(None, None, None, None, None, None)
        try:
            return self._source(self.follower, self.register)
        except READ_ERRORS:
            return Source(None, None, None, None, None, None)

    def _source(self, follower: Follower, register: str) -> Source:
        value = follower.values.get(register)
        named = follower.names.named(value)
        place = None
        if self.offset is not None and self.crash.operand is not None:
            place = follower.names.place(value, self.offset, self.crash.operand.size)
        origin = follower.origin(value)
        loaded_by, loaded_from, still = None, None, None
        if origin is not None and isinstance(origin.value, Loaded) and not origin.value.scale:
            flow, loaded = origin.flow, origin.value
            instruction = operands.decode(self.crash.read, loaded.pc, {})
            loaded_by = instruction.text if instruction else None
            base = flow.number(loaded.base)
            sure = base is not None
            if base is None:
                base = flow.number(loaded.base, ask_memory=True)
            if base is not None:
                loaded_from = (base + loaded.offset) % (1 << 64)
                still = self._holds(loaded_from, loaded.size)
            if not sure and not still:          # memory led there, and there is something else: it may have led astray
                loaded_from, still = None, None
        return Source(value, named, place, loaded_by, loaded_from, still)

    def _holds(self, address: int, size: int) -> bool | None:
        try:
            held = int.from_bytes(self.crash.read(address, size), "little")
        except (LookupError, ValueError):
            return None
        return held == self.value

    def reading(self) -> Reading | None:
        """Return what was read; None where there is no faulting instruction to read."""
        instruction = self.crash.call if self.nowhere else self.crash.instruction
        if instruction is None or not self.crash.faulted or not self.crash.fault_registers:
            return None
        operand = None if self.nowhere else self.crash.operand
        trap, code = self._trap(), self._error_code()
        words = (traps.trap_words(trap) if trap is not None else None,
                 traps.error_words(trap, code) if trap is not None and code is not None else None)
        if self.crash.machine == "aarch64":
            esr = self.crash.event.esr if self.crash.event else None
            words = traps.esr_words(esr) if esr is not None else (None, None)
        return Reading(
            instruction=instruction.text, address=instruction.address,
            access="execute" if self.nowhere else self.crash.access if operand else "",
            used=self.crash.address if operand or self.nowhere else None, size=operand.size if operand else None,
            operands=tuple(self._operands(instruction, operand)), pointer=self._pointer(),
            trap=words[0], error_code=words[1],
            checks=tuple(self._checks(code)))

    def _operands(self, instruction: operands.Instruction, bad: operands.Operand | None) -> Iterator[str]:
        found = sorted(instruction.operands, key=lambda item: item is not bad)
        for item in found:
            held = ((item.base, item.base_value), (item.index, item.index_value))
            parts = [f"{name} = {value:#x}" for name, value in held if name and value is not None]
            yield f"{item.text} = {item.address:#x}" + (f" ({', '.join(parts)})" if parts else "") + f", {item.access}"
        if self.crash.divisor and not self.nowhere and not found:
            yield f"{self.crash.divisor[0]} = {self.crash.divisor[1]:#x}, read"
        register = self.crash.call_register if self.nowhere else None
        if register and self.value is not None:
            yield f"{'*%' if self.crash.machine == 'x86_64' else ''}{register} = {self.value:#x}, execute"

    def _pointer(self) -> BadPointer | None:
        if self.value is None or (self.crash.operand is None and not self.nowhere):
            return None
        source = self.source
        named, place = source.named, source.place
        return BadPointer(
            register=self.register, value=self.value, words=memory.meaning(self.value, self.crash.page_levels).words,
            expression=named.text if named else None, function=named.function or None if named else None,
            type=str(named.type.type_name()) if named and named.type is not None else None,
            member=f"{place.structure}.{place.member}" if place else None,
            offset=self.offset, loaded_by=source.loaded_by,
            loaded_from=self.holder, still_there=source.still_there, target=pointee(self.kernel, self.value))

    @cached_property
    def holder(self) -> Pointee | None:
        """What lies where the pointer was loaded from."""
        address = self.source.loaded_from
        return pointee(self.kernel, address) if address is not None else None

    def _trap(self) -> int | None:
        instruction = self.crash.instruction
        if instruction is not None and instruction.text.startswith(("ud2", "ud1", "ud0")):
            return traps.INVALID_OPCODE
        return traps.trap_of(self.crash.event.kinds) if self.crash.event else None

    def _error_code(self) -> int | None:
        """The error code that the exception's entry saved, where the panic CPU noted the registers of the fault."""
        try:
            saved = saved_registers(self.kernel.prog)
        except READ_ERRORS:
            saved = None
        fault = self.crash.fault
        if saved and fault is not None and saved.get("rip") == fault.pc and self.crash.from_dump:
            code = saved.get("orig_rax", _NO_CODE) & _NO_CODE
            if code != _NO_CODE:
                return code
        return self.crash.event.error_code if self.crash.event else None

    def _checks(self, code: int | None) -> Iterator[Check]:
        event = self.crash.event
        if event is None or event.inferred or not self.crash.from_dump:
            return
        logged = {name: value for name, value in event.registers.items() if name in COMPARED}
        held = {name: value for name, value in self.crash.fault_registers.items() if name in logged}
        if held:
            differing = [name for name, value in held.items() if value != logged[name]]
            words = f"{len(held)} registers are the same in the log and in the dump" if not differing else \
                "; ".join(f"{name}: log {logged[name]:#x}, dump {held[name]:#x}" for name in differing[:4])
            yield Check("registers", not differing, words)
        operand = self.crash.operand
        if event.address is not None and operand is not None and not self.nowhere:
            # For a general protection fault the log's address is the kernel's own guess; 5.10 leaves out the offset.
            # Arm lets programs use the uppermost byte as they like, and the kernel prints the address without it.
            mask = (1 << 56) - 1 if self.crash.machine == "aarch64" else (1 << 64) - 1
            begin = operand.address & mask
            inside = begin <= event.address & mask < begin + max(operand.size, 1) \
                or (Kind.PROTECTION in event.kinds and event.address == self.value)
            yield Check("fault address", inside,
                        f"log {event.address:#x}, instruction and registers {operand.address:#x}")
        if event.error_code is not None and code is not None:
            yield Check("error code", event.error_code == code, f"log {event.error_code:#06x}, dump {code:#06x}")
        yield from self._code_check()
        yield from self._table_check(code)

    def _code_check(self) -> Iterator[Check]:
        event, fault = self.crash.event, self.crash.fault
        match = next((found for line in event.lines if (found := _CODE.search(line))), None) if event else None
        if match is None or fault is None or self.nowhere or not fault.pc:
            return
        words = match[1].split()
        at = next((number for number, word in enumerate(words) if word.startswith("<")), None)
        if at is None:
            return
        try:
            told = bytes(int(word.strip("<>()"), 16) for word in words)
            held = self.crash.read(fault.pc - at, len(told))
        except (LookupError, ValueError):
            return
        same = f"{len(told)} bytes around the instruction are the same in the log and in memory"
        yield Check("code", told == held, same if told == held else
                    "the code in memory differs from what the log shows: it was changed, or patched")

    def _table_check(self, code: int | None) -> Iterator[Check]:
        """Walk the kernel's page tables to the address: is there a page, as the error code says?"""
        address = self.crash.address
        if code is None or address is None or address < memory.KERNEL_BEGIN or self._trap() != traps.PAGE_FAULT:
            return
        from drgn.helpers.linux.mm import follow_phys

        there = True
        try:
            follow_phys(self.kernel.prog["init_mm"].address_of_(), address)
        except READ_ERRORS as error:
            if "not mapped" not in str(error):
                return                      # a page table is not in the dump
            there = False
        yield Check("page tables", there == bool(code & 1),
                    f"the error code says that {'a' if code & 1 else 'no'} page was there, the page tables have "
                    f"{'one' if there else 'none'} at {address:#x}")
