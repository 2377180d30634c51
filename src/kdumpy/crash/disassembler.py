"""Machine code out of the dump, by capstone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import drgn

from kdumpy.errors import KdumpyError, NotInDump

_LONGEST = 16
"""Bytes; an instruction of x86 has 15."""
_LARGEST = 1 << 20
"""Bytes of a function."""
_PADDING = re.compile(r"^(int3|nop[wl]?\b.*|data16\b.*|xchg\s+%ax,%ax|udf\s+#0)$")


_SUFFIXED = frozenset((
    "mov", "add", "sub", "xor", "and", "or", "cmp", "test", "lea", "push", "pop", "inc", "dec", "shl", "shr", "sar",
    "rol", "ror", "neg", "not", "imul", "mul", "div", "idiv", "xchg", "adc", "sbb", "bt", "bts", "btr", "btc",
    "cmpxchg", "xadd", "shrd", "shld", "bsf", "bsr", "bswap", "call", "ret", "jmp", "leave"))
"""Mnemonics behind which the GNU disassembler writes the operands' size only where no register tells it."""
_SHIFTS = frozenset(("shl", "shr", "sar", "rol", "ror", "rcl", "rcr"))


def assembler_text(mnemonic: str, operands: str) -> str:
    """Return an instruction of x86-64 as the GNU disassembler, and so crash, writes it."""
    words = mnemonic.split()
    name = words[-1]
    direct = re.sub(r"\([^)]*\)|%[c-gs]s:", "", operands)      # without what only addresses
    bare = name[:-1]
    if name[-1] in "bwlq" and bare in _SUFFIXED and ("%" in direct or bare in ("call", "ret", "jmp", "leave")):
        name = bare
    if name == "movabsq" or (name.startswith("cmov") and name[-1] in "wlq") or (name == "pushq" and operands[0] == "$"):
        name = bare
    if bare in ("stos", "movs") and "(%rdi)" in operands:       # of strings: the segments are written out
        name = bare if bare == "stos" else name
        operands = operands.replace("(%rdi)", "%es:(%rdi)").replace("(%rsi)", "%ds:(%rsi)")
    shown = " ".join((*words[:-1], name))
    if name in _SHIFTS and operands.startswith("$1, "):         # by one is an instruction of its own
        operands = operands.removeprefix("$1, ")
    # capstone writes numbers below 10 in decimal, and leaves a scale of 1 away.
    operands = re.sub(r"(?<![\w$%x])(-?)(\d)(?=\()", r"\g<1>0x\2", operands)
    operands = re.sub(r"\$(-?)(\d)(?!\w)", r"$\g<1>0x\2", operands)
    operands = re.sub(r"\$(-?\d{2,})\b", lambda found: f"${int(found[1]):#x}", operands)
    operands = re.sub(r"\$-(0x[0-9a-f]+)", lambda found: f"${-int(found[1], 16) & _mask(direct):#x}", operands)
    operands = re.sub(r"\((%\w+)?, ?(%\w+)\)", lambda found: f"({found[1] or ''},{found[2]},1)", operands)
    return f"{shown:<6} {operands.replace(', ', ',')}".rstrip()


def _mask(operands: str) -> int:
    """Return the bits of a negative number that the GNU disassembler writes: those of the register beside it."""
    register = (re.findall(r"%(\w+)", operands) or [""])[-1]
    if register.startswith("e") or re.fullmatch(r"r\d+d", register):
        return 0xFFFFFFFF
    if re.fullmatch(r"[abcd]x|[sd]i|[sb]p|r\d+w", register):
        return 0xFFFF
    return 0xFF if re.fullmatch(r"[abcd][lh]|[sd]il|[sb]pl|r\d+b", register) else 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction."""

    address: int
    data: bytes
    text: str
    target: int | None
    """Where a direct call or jump goes, or what an operand beside the instruction pointer is."""


class Disassembler:
    """Disassembles what lies in the memory of one program.

    Raises:
        KdumpyError: capstone is not installed, or does not know the machine.
    """

    def __init__(self, prog: drgn.Program, read: Callable[[int, int], bytes] | None = None) -> None:
        self.prog = prog
        self._memory = read or prog.read
        try:
            import capstone  # type: ignore[import-untyped]
        except ImportError:
            raise KdumpyError("no disassembler is installed", mend="pip install 'kdumpy[analyze]'") from None
        machine = prog.platform.arch if prog.platform else None
        self._is_x86 = machine == drgn.Architecture.X86_64
        if machine == drgn.Architecture.X86_64:
            self._engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
            self._engine.syntax = capstone.CS_OPT_SYNTAX_ATT
        elif machine == drgn.Architecture.AARCH64:
            self._engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        else:
            raise KdumpyError("code of this machine cannot be disassembled", why=str(machine))
        self._engine.skipdata = True

    def range(self, start: int, end: int, last: int | None = None) -> Iterator[Instruction]:
        """Yield the instructions from `start` to `end`, or until `last` was given.

        Raises:
            drgn.FaultError: the code is not in the dump.
        """
        if end - start > _LARGEST:
            raise NotInDump("a function of this size is not one", where=f"{start:016x}", why=f"{end - start} bytes")
        for instruction in self._decode(self._memory(start, end - start), start):
            if last is not None and instruction.address > last:
                return
            yield instruction

    def some(self, address: int, count: int) -> Iterator[Instruction]:
        """Yield `count` instructions; fewer when the memory ends."""
        while count > 0:
            wanted = min(count * _LONGEST, 4096)
            data = self._read(address, wanted)
            found = 0
            for instruction in self._decode(data, address):
                if instruction.address + _LONGEST > address + len(data) and len(data) == wanted and found:
                    break               # it may be cut: read on from here
                yield instruction
                found += 1
                count -= 1
                if not count:
                    return
                following = instruction.address + len(instruction.data)
            if not found or len(data) < wanted:
                return
            address = following

    @staticmethod
    def without_padding(instructions: Iterator[Instruction]) -> list[Instruction]:
        """Return instructions without the filling between one function and the next."""
        found = list(instructions)
        while len(found) > 1 and _PADDING.match(found[-1].text.replace("\t", " ")):
            found.pop()
        return found

    def _read(self, address: int, size: int) -> bytes:
        """Read up to `size` bytes; what lies on the next page may be missing."""
        room = 4096 - address % 4096
        data: bytes = self._memory(address, min(size, room))
        try:
            return data + self._memory(address + room, size - room) if room < size else data
        except drgn.FaultError:
            return data

    def _decode(self, data: bytes, address: int) -> Iterator[Instruction]:
        for at, size, mnemonic, operands in self._engine.disasm_lite(data, address):
            if self._is_x86 and (mnemonic, size) == ("nop", 2):
                mnemonic, operands = "xchg", "%ax, %ax"         # what 66 90 is to the GNU disassembler
            text = assembler_text(mnemonic, operands) if self._is_x86 else f"{mnemonic}\t{operands}".rstrip()
            direct = re.fullmatch(r"#?(0x[0-9a-f]+)", operands)
            jumps = mnemonic.startswith(("call", "j", "b", "loop", "cb", "tb"))
            target = int(direct[1], 16) if direct and jumps else None
            relative = re.search(r"(?<!\w)(-?0x[0-9a-f]+|-?\d+)\(%rip\)", operands) if self._is_x86 else None
            if relative:        # as the GNU disassembler, which says what that is
                address_meant = (int(relative[1], 0) + at + size) % (1 << 64)
                text += f"        # {address_meant:#x}"
                target = address_meant
            yield Instruction(at, data[at - address:at - address + size], text, target)
