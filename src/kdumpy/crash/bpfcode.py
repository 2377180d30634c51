"""eBPF instructions as text, in the words of the kernel's own log and of crash.

Source: include/uapi/linux/bpf.h and bpf_common.h (encoding), Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_ARITHMETIC = {0x00: "+=", 0x10: "-=", 0x20: "*=", 0x30: "/=", 0x40: "|=", 0x50: "&=", 0x60: "<<=", 0x70: ">>=",
               0x90: "%=", 0xa0: "^=", 0xb0: "=", 0xc0: "s>>="}
_JUMPS = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&", 0x50: "!=", 0x60: "s>", 0x70: "s>=", 0xa0: "<", 0xb0: "<=",
          0xc0: "s<", 0xd0: "s<="}
_ATOMIC = {0x00: ("add", "+="), 0x40: ("or", "|="), 0x50: ("and", "&="), 0xa0: ("xor", "^=")}
_XCHG, _CMPXCHG, _FETCH = 0xe1, 0xf1, 0x01
_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_LD_IMM64, _EXIT, _CALL, _JA, _NEG, _END = 0x18, 0x95, 0x80, 0x00, 0x80, 0xd0
_BYTES = 8
_PSEUDO_CALL = 1
"""src_reg of a call within the program."""


@dataclass(frozen=True)
class BpfInstruction:
    """An instruction; one that loads 64 bits takes up two places."""

    number: int
    bytes: str
    text: str


def instructions(code: bytes, function: Callable[[int], str],
                 pointer: Callable[[int], str]) -> Iterator[BpfInstruction]:
    """Yield the instructions of a program: `function` names a call's target by its number, `pointer` 64-bit values."""
    number, count = 0, len(code) // _BYTES
    while number < count:
        raw = code[_BYTES * number:_BYTES * number + _BYTES]
        opcode, registers, offset, value = struct.unpack("<BBhi", raw)
        if opcode == _LD_IMM64 and number + 1 < count:
            raw += code[_BYTES * number + _BYTES:_BYTES * number + 2 * _BYTES]
            wide = (value & 0xFFFFFFFF) | struct.unpack_from("<I", raw, 12)[0] << 32
            yield BpfInstruction(number, raw.hex(), f"({opcode:02x}) r{registers & 15} = {pointer(wide)}")
            number += 2
            continue
        yield BpfInstruction(number, raw.hex(), f"({opcode:02x}) "
                             f"{_text(opcode, registers & 15, registers >> 4, offset, value, function)}")
        number += 1


def _text(opcode: int, to: int, by: int, offset: int, value: int, function: Callable[[int], str]) -> str:
    kind = opcode & 7
    if kind in (_ALU, _ALU64):
        return _calculation(opcode, to, by, offset, value)
    if kind in (_JMP, _JMP32):
        return _jump(opcode, to, by, offset, value, function)
    size, mode = _SIZES[opcode & 0x18], opcode & 0xe0
    if kind == _LD:         # of the packet, as the classic BPF does
        return f"r0 = *({size} *)skb[{value}]" if mode == 0x20 else f"r0 = *({size} *)skb[r{by} {value:+}]"
    if kind == _LDX:
        signed = size.replace("u", "s") if mode == 0x80 else size
        return f"r{to} = *({signed} *)(r{by} {offset:+})"
    place = f"*({size} *)(r{to} {offset:+})"
    if kind == _ST:
        return f"{place} = {value}"
    return _atomic(size, f"({size} *)(r{to} {offset:+})", by, value) if mode == 0xc0 else f"{place} = r{by}"


def _calculation(opcode: int, to: int, by: int, offset: int, value: int) -> str:
    short = "" if opcode & 7 == _ALU64 else "(u32) "
    operation = opcode & 0xf0
    if operation == _NEG:
        return f"r{to} = {short}-r{to}"
    if operation == _END:
        return f"r{to} = {'bswap' if opcode & 7 == _ALU64 else 'be' if opcode & 8 else 'le'}{value} r{to}"
    sign = _ARITHMETIC.get(operation)
    if sign is None:
        return "(no instruction)"
    operand = f"r{by}" if opcode & 8 else str(value)
    if offset and operation in (0x30, 0x90):        # signed division, since v6.6
        sign = f"s{sign}"
    return f"{short}r{to} {sign} {short}{operand}"


def _jump(opcode: int, to: int, by: int, offset: int, value: int, function: Callable[[int], str]) -> str:
    operation = opcode & 0xf0
    if opcode == _EXIT:
        return "exit"
    if operation == _CALL:
        return f"call pc{value:+}" if by == _PSEUDO_CALL else f"call {function(value)}"
    if operation == _JA:
        return f"goto pc{value if opcode & 7 == _JMP32 else offset:+}"
    sign = _JUMPS.get(operation)
    if sign is None:
        return "(no instruction)"
    short = "(u32) " if opcode & 7 == _JMP32 else ""
    operand = f"{short}r{by}" if opcode & 8 else f"{value & 0xFFFFFFFF:#x}"
    return f"if {short}r{to} {sign} {operand} goto pc{offset:+}"


def _atomic(size: str, place: str, by: int, value: int) -> str:
    bits = size[1:]
    if value == _XCHG:
        return f"r{by} = atomic{bits}_xchg({place}, r{by})"
    if value == _CMPXCHG:
        return f"r0 = atomic{bits}_cmpxchg({place}, r0, r{by})"
    known = _ATOMIC.get(value & ~_FETCH)
    if known is None:
        return "(no instruction)"
    name, sign = known
    return f"r{by} = atomic{bits}_fetch_{name}({place}, r{by})" if value & _FETCH else f"lock *{place} {sign} r{by}"
