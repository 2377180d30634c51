"""The faulting instruction: what it reads and writes, and where; in AT&T syntax, as the shell's `dis`.

The disassembler is loaded when a cause asks, because most causes do not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdumpy.diagnosis.crashed.assembly import COMMA, PARTS, REGISTERS, disassembler, in_hex

LONGEST = 15
"""Bytes of the longest x86 instruction."""
_WORD = (1 << 64) - 1
_DIRECT_CALL = b"\xe8"
"""call rel32 (Intel SDM volume 2)."""

Read = Callable[[int, int], bytes]
"""Reads (address, size) of the kernel's memory; raises LookupError or ValueError where it is not there."""


@dataclass(frozen=True)
class Operand:
    """A place in memory that an instruction uses."""

    text: str
    """As in the disassembly: `0x10(%rax)`."""
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
    per_cpu: tuple[int, ...] = ()
    """What the registers hold to which it adds the CPU's own base (`%gs:(%rax)`): per-CPU pointers."""


def decode(read: Read, pc: int, registers: Mapping[str, int], machine: str = "x86_64") -> Instruction | None:
    """Return the instruction at `pc`; None where its bytes or the disassembler are not there."""
    code = _code(read, pc, LONGEST)
    found = next(_disassemble(code, pc, machine), None) if code else None
    if found is None:
        return None
    ways = {"x86_64": _operands, "aarch64": _operands_arm64}
    operands = tuple(ways[machine](found, registers)) if machine in ways else ()
    return Instruction(pc, f"{found.mnemonic} {in_hex(found.op_str)}".strip(), found.size, operands, _target(found),
                       tuple(_per_cpu(found, registers)) if machine == "x86_64" else ())


def divisor(read: Read, instruction: Instruction, registers: Mapping[str, int]) -> tuple[str, int] | None:
    """Return (operand, value) of what an instruction of x86-64 divides by; None for another one, or where unknown."""
    name, _, operand = instruction.text.partition(" ")
    if not name.startswith(("div", "idiv")):
        return None
    part = PARTS.get(operand.removeprefix("%"))
    if part is not None and part[0] in registers:
        shift = 8 if operand.endswith("h") else 0
        return operand, registers[part[0]] >> shift & ((1 << 8 * part[1]) - 1)
    for place in instruction.operands:
        try:
            return place.text, int.from_bytes(read(place.address, place.size), "little")
        except (LookupError, ValueError):
            return None
    return None


def decode_call(read: Read, return_address: int, registers: Mapping[str, int],
                machine: str = "x86_64") -> Instruction | None:
    """Return the call that a return address comes from, or None where there is no call before it."""
    if machine == "aarch64":
        found = decode(read, return_address - 4, registers, machine)
        return found if found is not None and found.text.startswith("bl") else None
    # Nearly all calls are direct ones, of five bytes. The last bytes of how far they go may look like another
    # instruction (eb: a short jump), and where modules lie is chance: so these come first.
    for length in (5, 2, 3, 4, 6, 7, 8):
        if length == 5 and _code(read, return_address - 5, 5)[:1] != _DIRECT_CALL:
            continue
        found = decode(read, return_address - length, registers)
        if found is not None and found.size == length and found.text.startswith(("call", "jmp")):
            return found
    return None


def _code(read: Read, address: int, size: int) -> bytes:
    """Read code; fewer bytes where the next page is missing."""
    for length in (size, min(size, 0x1000 - address % 0x1000)):
        try:
            return read(address, length)
        except (LookupError, ValueError):
            continue
    return b""


def _disassemble(code: bytes, address: int, machine: str) -> Any:
    engine = disassembler(machine, detail=True)
    if engine is None:
        return iter(())
    return engine.disasm(code, address)


_EXCHANGES = ("xchg", "xadd")
"""Parts of the names of instructions that change memory and tell what it was, `cmpxchg` among them."""


def _operands(found: Any, registers: Mapping[str, int]) -> Any:
    from capstone import CS_AC_READ, CS_AC_WRITE  # type: ignore[import-untyped]
    from capstone.x86 import X86_OP_MEM, X86_REG_GS, X86_REG_RIP  # type: ignore[import-untyped]

    texts = _memory_texts(found.op_str)
    for operand in found.operands:
        if operand.type != X86_OP_MEM or found.mnemonic.startswith(("lea", "nop")):
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
        # capstone has `stos` read what it writes.
        known = {CS_AC_READ: "read", CS_AC_WRITE: "write"}
        access = "write" if "stos" in found.mnemonic else known.get(operand.access, "read and write")
        # And it has what compares and exchanges only read; the processor always writes, if only what was there
        # (Intel SDM, CMPXCHG), and so faults as one that writes.
        if found.mnemonic.startswith("lock ") or any(name in found.mnemonic for name in _EXCHANGES):
            access = "read and write"
        yield Operand(text, base, base_value, index, index_value, address, operand.size, access)


def _per_cpu(found: Any, registers: Mapping[str, int]) -> Iterator[int]:
    from capstone.x86 import X86_OP_MEM, X86_REG_GS

    for operand in found.operands:
        if operand.type == X86_OP_MEM and operand.mem.segment == X86_REG_GS and operand.mem.base:
            value = registers.get(found.reg_name(operand.mem.base))
            if value is not None:
                yield (value + operand.mem.disp) & _WORD


def _operands_arm64(found: Any, registers: Mapping[str, int]) -> Any:
    """Yield the place in memory of a load or store of AArch64; it has one, but a pair is of two registers.

    Source: Arm Architecture Reference Manual (DDI 0487), C4.1, "Loads and stores".
    """
    from capstone.arm64 import ARM64_OP_MEM, ARM64_OP_REG  # type: ignore[import-untyped]

    name = found.mnemonic
    if not name.startswith(("ld", "st", "cas", "swp")):
        return
    for operand in found.operands:
        if operand.type != ARM64_OP_MEM:
            continue
        base, index = (_ARM64_ALIASES.get(register, register) if register else None for register in
                       (found.reg_name(number) if number else None for number in (operand.mem.base, operand.mem.index)))
        # An index of 32 bits (w3) is a part of x3; its extension and shift are the operand's.
        wide = index.replace("w", "x", 1) if index else None
        base_value, index_value = registers.get(base or ""), registers.get(wide or "")
        if base_value is None or (index and index_value is None):
            continue
        text = found.op_str[found.op_str.find("["):]
        moved = base_value if "], #" in text else base_value + operand.mem.disp     # post-indexed: added afterwards
        if index and index_value is not None:
            moved += _extended(index_value, operand) << operand.shift.value
        first = next((found.reg_name(other.reg) for other in found.operands if other.type == ARM64_OP_REG), "x0")
        size = 1 if name.endswith("b") else 2 if name.endswith("h") else _ARM64_BYTES.get(first[0], 8)
        pair = 2 if name.startswith(("ldp", "stp", "ldnp", "stnp", "ldxp", "stxp", "ldaxp", "stlxp")) else 1
        atomic = name.startswith(("cas", "swp", *(f"{kind}{what}" for kind in ("ld", "st") for what in _ATOMIC)))
        access = "read and write" if atomic else "read" if name.startswith("ld") else "write"
        yield Operand(text, base, base_value, wide, index_value, moved & _WORD, size * pair, access)


_ARM64_ALIASES = {"fp": "x29", "lr": "x30"}
_ARM64_BYTES = {"w": 4, "x": 8, "s": 4, "d": 8, "q": 16}
_ATOMIC = ("add", "clr", "eor", "set", "smax", "smin", "umax", "umin")
"""LDADD, STADD and so on (FEAT_LSE); what they end in tells their size and order."""


def _extended(value: int, operand: Any) -> int:
    """Return an index register's value as the operand's extension (UXTW, SXTW) takes it."""
    from capstone.arm64 import ARM64_EXT_SXTW, ARM64_EXT_UXTW

    if operand.ext == ARM64_EXT_UXTW:
        return value & 0xFFFFFFFF
    if operand.ext == ARM64_EXT_SXTW:
        return (value & 0xFFFFFFFF) - ((value & 1 << 31) << 1)
    return value


def _memory_texts(text: str) -> list[str]:
    return [part for part in COMMA.split(text) if "(" in part or not part.lstrip("*").startswith(("%", "$"))]


def _target(found: Any) -> str | None:
    """Return the register of `callq *%rax`, and of `blr x0`."""
    if found.mnemonic in ("blr", "br"):
        return str(found.op_str)
    register = found.op_str.removeprefix("*%")
    return str(register) if found.mnemonic.startswith(("call", "jmp")) and register in REGISTERS else None
