"""x86-64 instructions as the disassembler writes them (AT&T), taken apart.

Text and not the disassembler's own details: for a whole function those cost twenty times as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

_MEMORY = re.compile(r"^\*?(?:%(?P<segment>[c-gs]s):)?(?P<sign>-?)(?P<displacement>0x[0-9a-f]+|\d+)?"
                     r"(?:\((?:%(?P<base>\w+))?(?:, ?%(?P<index>\w+)(?:, ?(?P<scale>[1248]))?)?\))?$")
COMMA = re.compile(r", ?(?![^(]*\))")
"""What stands between two operands, and not inside of one's parentheses."""
_LEGACY = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
REGISTERS = frozenset({f"r{name}" for name in _LEGACY} | {f"r{number}" for number in range(8, 16)})
"""The general registers, by their 64-bit names."""
_PREFIXES = ("lock", "rep", "repe", "repne", "repz", "repnz", "notrack", "bnd", "data16", "ds", "cs", "es", "xacquire",
             "xrelease")
_WORD = 1 << 64
_LONG = re.compile(r"\$(\d{4,})\b")


def _parts() -> dict[str, tuple[str, int]]:
    """Return (64-bit register, bytes) of every name of a register."""
    found = {}
    for name in _LEGACY:
        found.update({f"r{name}": (f"r{name}", 8), f"e{name}": (f"r{name}", 4), name: (f"r{name}", 2)})
        low = name[0] if name.endswith("x") else name
        found[f"{low}l"] = (f"r{name}", 1)
        if name.endswith("x"):
            found[f"{low}h"] = (f"r{name}", 1)
    for number in range(8, 16):
        found.update({f"r{number}": (f"r{number}", 8), f"r{number}d": (f"r{number}", 4),
                      f"r{number}w": (f"r{number}", 2), f"r{number}b": (f"r{number}", 1)})
    found["rip"] = ("rip", 8)
    return found


PARTS = _parts()


@dataclass(frozen=True, slots=True)
class Register:
    """A register as an operand."""

    name: str
    """Its 64-bit name."""
    size: int
    """Bytes of it that are meant."""


@dataclass(frozen=True, slots=True)
class Immediate:
    """A number as an operand."""

    number: int


@dataclass(frozen=True, slots=True)
class Memory:
    """A place in memory as an operand."""

    segment: str
    base: str
    index: str
    scale: int
    displacement: int
    """With `rip` as the base it is not yet added."""


Operand = Register | Immediate | Memory | None
"""None: an operand that is none of these (a vector register, ...)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction."""

    address: int
    size: int
    name: str
    """The mnemonic, without prefixes."""
    prefix: str
    operands: tuple[Operand, ...]
    """Source first, destination last, as AT&T has it."""
    target: int | None
    """Where a direct call or jump goes."""
    indirect: bool
    """It calls or jumps through its operand."""


@cache
def disassembler(machine: str = "x86_64", *, detail: bool = False) -> Any:
    """Return capstone's engine, writing as the crash shell's `dis` does; None where it is not installed.

    Made once: it takes longer to make than to ask, and stacks of many tasks ask for each of their frames.
    """
    try:
        import capstone  # type: ignore[import-untyped]
    except ImportError:
        return None
    kind = {"x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
            "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)}.get(machine)
    if kind is None:
        return None
    engine = capstone.Cs(*kind)
    if machine == "x86_64":
        engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    engine.detail = detail
    return engine


def in_hex(operands: str) -> str:
    """Return operands with long numbers in hexadecimal: capstone writes negative ones of 64 bits as decimal."""
    return _LONG.sub(lambda match: f"${int(match[1]):#x}", operands)


def lines(code: bytes, address: int) -> Iterator[Line]:
    """Yield the instructions of code up to one that cannot be decoded."""
    engine = disassembler()
    if engine is None:
        return
    for at, size, mnemonic, text in engine.disasm_lite(code, address):
        yield line(at, size, mnemonic, text)


def line(address: int, size: int, mnemonic: str, text: str) -> Line:
    """Take an instruction apart."""
    words = mnemonic.split()
    prefix = " ".join(word for word in words[:-1] if word in _PREFIXES)
    name = words[-1]
    jumps = name[0] == "j" or name.startswith(("call", "loop"))
    if jumps and not text.startswith("*"):
        bare = text.split(",")[-1].strip()
        return Line(address, size, name, prefix, (), int(bare, 0) if bare.startswith("0x") else None, False)
    operands = tuple(map(operand, COMMA.split(text))) if text else ()
    return Line(address, size, name, prefix, operands, None, jumps)


def operand(text: str) -> Operand:
    """Take an operand apart."""
    if text.startswith("$"):
        return Immediate(int(text[1:], 0) % _WORD)
    bare = text.removeprefix("*")
    if bare.startswith("%") and ":" not in bare:
        part = PARTS.get(bare[1:])
        return Register(*part) if part else None
    match = _MEMORY.match(text)
    if match is None:
        return None
    number = int(match["displacement"] or "0", 0)
    base, index = match["base"] or "", match["index"] or ""
    if (base and base not in PARTS) or (index and index not in PARTS and index != "riz"):
        return None
    return Memory(match["segment"] or "", base, "" if index == "riz" else index, int(match["scale"] or "1"),
                  -number if match["sign"] else number)
