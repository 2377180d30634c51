"""The caller that AArch64's chain of frames leaves out: of a function that was interrupted and has no frame yet.

Every function that calls another one puts a frame record (the caller's frame pointer, the return address) on the
stack and points X29 at it. A function that is interrupted before it did so, or that calls nobody, has none: the chain
goes on with its caller's record, which holds the address that the *caller* returns to. The caller itself is named by
X30, the link register, alone. The kernel's own traces miss it too and print it as `lr`.

Source: Procedure Call Standard for the Arm 64-bit Architecture (AAPCS64), "The Frame Pointer".
"""

from __future__ import annotations

from collections.abc import Mapping

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS

_LONGEST_PROLOGUE = 0x400
"""Bytes from a function's beginning in which its frame is made; much more than any prologue."""
_PAC_BITS = 0xFFFF << 48


def unrecorded_caller(prog: drgn.Program, registers: Mapping[str, int], beyond: int) -> int | None:
    """Return where an interrupted function returns to, if the chain of frames leaves that out; else None.

    Args:
        prog: the dump's program.
        registers: those of the moment, with drgn's names.
        beyond: the address at which the chain goes on; 0 where it ends.
    """
    try:
        pc, link = registers["pc"], without_pac(registers["x30"])
        start = prog.symbol(pc).address
        if link in (0, beyond) or _has_frame(prog, start, pc):
            return None
        return link if _follows_a_call(prog, link) else None
    except READ_ERRORS:
        return None


def without_pac(address: int) -> int:
    """Return an address of the kernel without its authentication code (in its upper 16 bits, 48-bit addresses or not).

    VMCOREINFO's NUMBER(KERNELPACMASK) never has bit 55 in it, which tells the kernel's half: all bits above are equal.
    """
    return address | _PAC_BITS if address >> 55 & 1 else address & ~_PAC_BITS


def _has_frame(prog: drgn.Program, start: int, pc: int) -> bool:
    """Whether a function points X29 at a record of its own before `pc`, in the order of its instructions."""
    code = prog.read(start, min(pc - start, _LONGEST_PROLOGUE) & ~3)
    # ADD X29, SP, #imm; MOV X29, SP is the same with 0.
    return any(word & 0xFF8003FF == 0x910003FD for word in memoryview(code).cast("I"))


def _follows_a_call(prog: drgn.Program, address: int) -> bool:
    """Whether the instruction before an address is BL, BLR or a BLR with authentication."""
    word: int = prog.read_u32(address - 4)
    return word & 0xFC000000 == 0x94000000 or word & 0xFEFFF000 == 0xD63F0000
