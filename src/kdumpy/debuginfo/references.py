"""Where AArch64 code refers to: the addresses that a function makes out of a page (ADRP) and an offset into it.

A variable that no symbol table lists is still named by the code that uses it. One function refers to many variables;
of two or three functions that are known to use the same one, mostly that one alone is common.

Compilers keep the address of one variable in a register and reach its neighbours from there (-fsection-anchors), so
what registers hold is followed through the function, in the order of its instructions. Branches are not followed: an
address too many does no harm where several functions have to agree.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C4.1 and C6.2.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_LOST_BY_CALL = range(19)
"""X0 to X18 belong to the function that is called (Procedure Call Standard, AAPCS64)."""


def targets(code: bytes, address: int) -> set[int]:
    """Return the addresses that a function's code refers to.

    Args:
        code: the function's instructions.
        address: of the first one.
    """
    held: dict[int, int] = {}
    found: set[int] = set()
    for index, word in enumerate(memoryview(code[: len(code) & ~3]).cast("I")):
        to, base = word & 31, word >> 5 & 31
        if word & 0x9F000000 == 0x90000000:                     # ADRP Xd, page
            offset = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
            offset -= (offset & 1 << 20) << 1
            held[to] = (address + 4 * index & ~0xFFF) + (offset << 12) & _MASK
            continue
        if word & 0xFC000000 == 0x94000000 or word & 0xFFFFFC1F == 0xD63F0000:     # BL, BLR
            for register in _LOST_BY_CALL:
                held.pop(register, None)
            continue
        start = held.get(base)
        if word & 0xFF800000 == 0x91000000 and start is not None:       # ADD Xd, Xn, #imm, LSL #0 or #12
            held[to] = start + ((word >> 10 & 0xFFF) << (12 if word & 1 << 22 else 0))
            found.add(held[to])
            continue
        if word & 0x0A000000 == 0x08000000:                     # loads and stores
            if start is not None:
                found.update(_accessed(word, start))
            if word & 1 << 22 and not word & 1 << 26:           # a load into a general register
                held.pop(to, None)
                if word & 0x3A000000 == 0x28000000:             # LDP
                    held.pop(word >> 10 & 31, None)
            continue
        if word & 0x1C000000 != 0x14000000:                     # neither a branch nor a system instruction
            held.pop(to, None)
    return found


def _accessed(word: int, start: int) -> list[int]:
    """Return the address that a load or store makes of its base register, where the offset is a constant."""
    vector = word & 1 << 26
    if word & 0x3B000000 == 0x39000000:                         # [Xn, #imm], scaled
        size = 4 if vector and word & 1 << 23 else word >> 30
        return [start + ((word >> 10 & 0xFFF) << size)]
    if word & 0x3B800000 == 0x29000000:                         # LDP, STP [Xn, #imm]
        size = 2 + (word >> 30) if vector else 2 + (word >> 31)
        offset = word >> 15 & 0x7F
        return [start + ((offset - ((offset & 0x40) << 1)) << size)]
    if word & 0x3F000000 == 0x08000000:                         # LDXR, LDAR, STLR …: [Xn]
        return [start]
    return []
