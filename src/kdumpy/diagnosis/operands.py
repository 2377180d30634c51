"""The faulting instruction: what it reads and writes, where, and where its pointer came from.

The disassembler is loaded when a cause asks, because most causes do not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 15
"""Bytes of the longest x86 instruction."""
_WORD = (1 << 64) - 1
_CLOBBERED = frozenset({"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"})
"""Registers that a call does not preserve (x86-64 System V ABI)."""
_LONGEST_FUNCTION = 1 << 16

Read = Callable[[int, int], bytes]
"""Reads (address, size) of the kernel's memory; raises LookupError or ValueError where it is not there."""


@dataclass(frozen=True)
class Operand:
    """A place in memory that an instruction uses."""

    text: str
    """As in the disassembly: `qword ptr [rax + 0x10]`."""
    base: str | None
    """Register that holds the pointer."""
    base_value: int | None
    index: str | None
    index_value: int | None
    address: int
    """Where it points: base + index * scale + displacement."""
    size: int
    """Bytes."""
    access: str
    """`read`, `write` or `read and write`."""


@dataclass(frozen=True)
class Instruction:
    """One instruction with its operands, as the registers were."""

    address: int
    text: str
    size: int
    operands: tuple[Operand, ...]
    target: str | None = None
    """Register through which it calls or jumps."""


@dataclass(frozen=True)
class Origin:
    """Where a register's value was loaded from."""

    register: str
    text: str
    """The instruction that loaded it."""
    address: int
    """The place in memory, which still holds the value."""


def decode(read: Read, pc: int, registers: Mapping[str, int], machine: str = "x86_64") -> Instruction | None:
    """Return the instruction at `pc`; None where its bytes or the disassembler are not there."""
    code = _code(read, pc, LONGEST)
    found = next(_disassemble(code, pc, machine), None) if code else None
    if found is None:
        return None
    operands = tuple(_operands(found, registers)) if machine == "x86_64" else ()
    return Instruction(pc, f"{found.mnemonic} {found.op_str}".strip(), found.size, operands, _target(found))


def decode_call(read: Read, return_address: int, registers: Mapping[str, int]) -> Instruction | None:
    """Return the call that pushed a return address, or None where that is no call."""
    for length in (2, 3, 4, 5, 6, 7, 8):
        found = decode(read, return_address - length, registers)
        if found is not None and found.size == length and found.text.startswith(("call", "jmp")):
            return found
    return None


def origin(read: Read, begin: int, pc: int, register: str, registers: Mapping[str, int]) -> Origin | None:
    """Say where the value of a register was loaded from.

    Reads the function from its begin to `pc` in one line, so a branch could have led around the
    load; hence the answer is given only when memory still holds the very value.
    """
    if not 0 < pc - begin <= _LONGEST_FUNCTION:
        return None
    code = _code(read, begin, pc - begin)
    if len(code) != pc - begin:
        return None
    loaded: Any = None
    for found in _disassemble(code, begin, "x86_64"):
        _, written = found.regs_access()
        names = {_whole(found.reg_name(item)) for item in written}
        if found.mnemonic.startswith("call"):
            names |= _CLOBBERED
        if register in names:
            loaded = found if found.mnemonic.startswith("mov") else None
        elif loaded is not None and names & set(_address_registers(loaded)):
            loaded = None
    if loaded is None or _whole(loaded.op_str.split(",")[0].strip()) != register:
        return None
    places = list(_operands(loaded, registers))
    if register in _address_registers(loaded) or len(places) != 1:
        return None
    held = _code(read, places[0].address, 8)
    if len(held) != 8 or int.from_bytes(held, "little") != registers.get(register):
        return None
    return Origin(register, f"{loaded.mnemonic} {loaded.op_str}", places[0].address)


def _code(read: Read, address: int, size: int) -> bytes:
    """Read code; fewer bytes where the next page is missing."""
    for length in (size, min(size, 0x1000 - address % 0x1000)):
        try:
            return read(address, length)
        except (LookupError, ValueError):
            continue
    return b""


def _disassemble(code: bytes, address: int, machine: str) -> Any:
    try:
        import capstone  # type: ignore[import-untyped]
    except ImportError:
        return iter(())
    kind = {"x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
            "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)}.get(machine)
    if kind is None:
        return iter(())
    engine = capstone.Cs(*kind)
    engine.detail = True
    return engine.disasm(code, address)


def _operands(found: Any, registers: Mapping[str, int]) -> Any:
    from capstone import CS_AC_READ, CS_AC_WRITE
    from capstone.x86 import X86_OP_MEM, X86_REG_GS, X86_REG_RIP  # type: ignore[import-untyped]

    texts = _memory_texts(found.op_str)
    for operand in found.operands:
        if operand.type != X86_OP_MEM or found.mnemonic in ("lea", "nop"):
            continue
        text = texts.pop(0) if texts else found.op_str
        if operand.mem.segment == X86_REG_GS:       # this CPU's own data: its base is not in the registers
            continue
        base = found.reg_name(operand.mem.base) if operand.mem.base else None
        index = found.reg_name(operand.mem.index) if operand.mem.index else None
        base_value = found.address + found.size if operand.mem.base == X86_REG_RIP else registers.get(base or "")
        index_value = registers.get(index or "")
        if (base and base_value is None) or (index and index_value is None):
            continue
        address = ((base_value or 0) + (index_value or 0) * operand.mem.scale + operand.mem.disp) & _WORD
        access = {CS_AC_READ: "read", CS_AC_WRITE: "write"}.get(operand.access, "read and write")
        yield Operand(text, base, base_value, index, index_value, address, operand.size, access)


def _memory_texts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if "[" in part]


def _address_registers(found: Any) -> list[str]:
    from capstone.x86 import X86_OP_MEM

    numbers = [number for operand in found.operands if operand.type == X86_OP_MEM
               for number in (operand.mem.base, operand.mem.index) if number]
    return [found.reg_name(number) for number in numbers]


def _target(found: Any) -> str | None:
    """Return the register of `call rax`."""
    if found.mnemonic in ("call", "jmp") and found.op_str in _REGISTERS:
        return str(found.op_str)
    return None


_LEGACY = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
_REGISTERS = frozenset({f"r{name}" for name in _LEGACY} | {f"r{number}" for number in range(8, 16)})


def _whole(name: str) -> str:
    """Return the 64-bit register of which one is a part: `eax` -> `rax`, `r8d` -> `r8`."""
    if name in _REGISTERS:
        return name
    if name[:1] == "e" and name[1:] in _LEGACY:
        return f"r{name[1:]}"
    if name in _LEGACY:
        return f"r{name}"
    if name[:1] == "r" and name[-1:] in "dwb" and name[:-1] in _REGISTERS:
        return name[:-1]
    if len(name) == 2 and name[1] in "lh" and name[0] in "abcd":
        return f"r{name[0]}x"
    if len(name) == 3 and name[2] == "l" and name[:2] in _LEGACY:
        return f"r{name[:2]}"
    return name
