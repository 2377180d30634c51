"""ORC, the kernel's own unwind tables, read by drgn out of the dump's memory; and the frame they lose.

drgn uses the tables in memory as soon as it knows the kernel's address range. One frame is lost
then: the panic CPU's registers are saved inside `__crash_kexec`, which objtool cannot follow and
marks as UNDEFINED, so that `panic` and its caller vanish. The frame's size is in the stack itself:
the first word above the stack pointer that is the return address of a call of this function.

Source: arch/x86/include/asm/orc_types.h, arch/x86/kernel/unwind_orc.c, tools/objtool.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import drgn
from drgn import Architecture

from kdumpy.debuginfo.reading import READ_ERRORS

_ENTRY = struct.Struct("<hhH")
"""struct orc_entry: sp_offset, bp_offset (bytes), flags (sp_reg:4, bp_reg:4, type)."""
_LONGEST_PROLOGUE = 64
_SAMPLE = 4096
_PREVIOUS_SP = {5: 1, 3: 8}
"""ORC_REG_PREV_SP by ORC_REG_SP: before the renumbering of 7.1, and since."""

_SKIPPED = {b"\xf3\x0f\x1e\xfa": 4, b"\x48\x89\xe5": 3, b"\x48\x83\xe4": 4}
"""endbr64; mov rbp, rsp; and rsp, imm8."""
_AFTER_PUSHES = {0x48, 0x49, 0x4C, 0x4D, 0x65, 0x80, 0x81, 0x83, 0x84, 0x85, 0x88, 0x89, 0x8A, 0x8B, 0x39, 0x3B, 0xF0}
"""First bytes of sub rsp, mov, cmp, test and lock: what a function does once it has pushed what it pushes."""

SavedRegisters = Callable[[drgn.Program], Mapping[str, int] | None]
"""Gives the panic CPU's registers, named as in a core's notes, without types; None where no CPU panicked."""


class _Encoding(NamedTuple):
    """How one version of the format writes "the caller's frame is at SP + offset, after a call"."""

    register_sp: int
    previous_sp: int
    call: int
    """ORC_TYPE_CALL, in place within flags."""


class Restart(NamedTuple):
    """The frame that was mended: an UNDEFINED entry of the table, written over in drgn's view."""

    function: str
    entry_address: int
    frame_bytes: int
    """From the stack pointer to the caller's."""
    caller: int
    """The return address."""


def attach(prog: drgn.Program, saved: SavedRegisters = lambda prog: None) -> Restart | None:
    """Let drgn unwind the kernel with the tables in memory; return the frame that had to be mended.

    Args:
        prog: a program with symbols, and best with types.
        saved: gives the panic CPU's registers where types are missing.

    Raises:
        LookupError, drgn.FaultError: the kernel's symbols or tables are missing.
    """
    try:
        prog.create_loaded_modules()
        main = prog.main_module()
    except (*READ_ERRORS, MemoryError):     # drgn takes the sizes of a module's notes on trust
        # Without types the list of modules cannot be read; the kernel alone can be unwound all the same.
        main = prog.main_module("kernel", create=True)
    if main.address_ranges is not None:         # a vmlinux is loaded: drgn takes the tables from there
        return None
    restart = None
    if prog.platform and prog.platform.arch == Architecture.X86_64:
        restart = _mend_first_frame(prog, saved)
    start, end = prog.symbol("_stext").address, _end(prog)
    main.address_ranges = [(start, end)]
    if restart is not None and not _was_mended(prog, restart):
        return None
    return restart


def _end(prog: drgn.Program) -> int:
    """Return where the kernel's image ends; of its text, where variables are not in its symbol table."""
    try:
        return int(prog.symbol("_end").address)
    except LookupError:
        return int(prog.symbol("_etext").address)


def _was_mended(prog: drgn.Program, restart: Restart) -> bool:
    """Whether drgn now finds the caller where the stack says it is."""
    try:
        return bool(prog.crashed_thread().stack_trace()[1].pc == restart.caller)
    except READ_ERRORS:
        return True                             # without types drgn cannot be asked


def _first_frame(prog: drgn.Program, saved: SavedRegisters) -> tuple[int, int]:
    """Return pc and sp of the panic CPU."""
    try:
        frame = prog.crashed_thread().stack_trace()[0]
        return frame.pc, frame.register("rsp")
    except READ_ERRORS:
        registers = saved(prog)
        if registers is None:
            raise LookupError("no CPU panicked") from None
        return registers["rip"], registers["rsp"]


def _mend_first_frame(prog: drgn.Program, saved: SavedRegisters) -> Restart | None:
    """Write over the UNDEFINED entry of the function that saved the panic CPU's registers.

    This must come before anything is unwound, because drgn keeps the table once it has read it.
    """
    try:
        pc, sp = _first_frame(prog, saved)
        symbol = prog.symbol(pc)
        if not prog.symbol("_stext").address <= pc < prog.symbol("_etext").address:
            return None                         # a module has a table of its own
        found = _undefined_entry(prog, pc)
        if found is None:
            return None
        pushed, at, caller = _frame_above(prog, symbol, sp)
    except READ_ERRORS:
        return None                             # no panic, or nothing to go by: nothing to mend
    entry_address, encoding = found
    flags = encoding.register_sp | encoding.call
    bp_offset = 0
    if pushed is not None:
        flags |= encoding.previous_sp << 4
        bp_offset = -pushed
    frame_bytes = at + 8 - sp
    entry = _ENTRY.pack(frame_bytes, bp_offset, flags)

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        return entry[offset : offset + count]

    prog.add_memory_segment(entry_address, _ENTRY.size, read)
    return Restart(symbol.name, entry_address, frame_bytes, caller)


def _undefined_entry(prog: drgn.Program, pc: int) -> tuple[int, _Encoding] | None:
    """Return the address of the entry for `pc`, if it is UNDEFINED, and how to write another."""
    start, stop, entries = (prog.symbol(name).address for name in (
        "__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind"))
    low, high = 0, (stop - start) // 4
    while high - low > 1:                       # the last entry that begins at or before pc
        middle = (low + high) // 2
        place = start + 4 * middle
        offset = prog.read_u32(place)
        if place + offset - ((offset >> 31) << 32) <= pc:
            low = middle
        else:
            high = middle
    address = entries + _ENTRY.size * low
    flags = _ENTRY.unpack(prog.read(address, _ENTRY.size))[2]
    # In every version sp_reg 0 is ORC_REG_UNDEFINED; a function's end of stack has it too, but
    # no function that ends the stack is called.
    if flags & 0xF:
        return None
    return address, _encoding(prog, address, entries, entries + _ENTRY.size * ((stop - start) // 4))


def _encoding(prog: drgn.Program, entry: int, first: int, last: int) -> _Encoding:
    """Tell the version of the format by what most entries say: SP plus an offset, after a call.

    Version and header do not tell it (RHEL 9 has the format of 6.4 in its 5.14): the registers were
    renumbered by 1735858caa4b "objtool/x86: Reorder ORC register numbering" (7.1), and CALL is not
    zero since fb799447ae29 "x86,objtool: Split UNWIND_HINT_EMPTY in two" (6.4).
    """
    half = _ENTRY.size * _SAMPLE // 2
    begin = max(first, entry - half)
    end = min(last, entry + half)
    flags = [item[2] for item in _ENTRY.iter_unpack(prog.read(begin, (end - begin) // _ENTRY.size * _ENTRY.size))]
    (register_sp, _), = Counter(item & 0xF for item in flags if item & 0xF).most_common(1)
    (kind, _), = Counter(item & 0x700 for item in flags if item & 0xF == register_sp).most_common(1)
    if register_sp not in _PREVIOUS_SP:
        raise LookupError(f"an unknown format of ORC: most frames are based on register {register_sp}")
    return _Encoding(register_sp, _PREVIOUS_SP[register_sp], kind)


def _frame_above(prog: drgn.Program, function: drgn.Symbol, sp: int) -> tuple[int | None, int, int]:
    """Return how far below the caller's stack pointer RBP is saved (or None), the return address's place, and it."""
    stack = _stack_above(prog, sp)
    for offset in range(0, len(stack) - 7, 8):
        (word,) = struct.unpack_from("<Q", stack, offset)
        if _calls(prog, word, function.address):
            return _saved_rbp(prog.read(function.address, _LONGEST_PROLOGUE)), sp + offset, word
    raise LookupError("no return address of a call of this function")


def _stack_above(prog: drgn.Program, sp: int) -> bytes:
    """Return at most two pages of stack from `sp` up; a stack may end with its page."""
    page = 0x1000
    stack: bytes = prog.read(sp, page - sp % page)
    try:
        above: bytes = prog.read(sp + len(stack), page)
        return stack + above
    except drgn.FaultError:
        return stack


def _calls(prog: drgn.Program, return_address: int, function: int) -> bool:
    if return_address >> 47 != 0x1FFFF:
        return False
    try:
        code: bytes = prog.read(return_address - 5, 5)
    except drgn.FaultError:
        return False
    relative: int = struct.unpack_from("<i", code, 1)[0]
    return code[0] == 0xE8 and (return_address + relative) % (1 << 64) == function


def _nop_length(code: bytes) -> int:
    """Return the length of the nop that `code` begins with, 0 if it is none.

    Nops stand where the kernel has patched endbr64 or a call of __fentry__ away.
    """
    at = 0
    while code[at] in (0x66, 0x2E):             # prefixes
        at += 1
    if code[at] == 0x90:
        return at + 1
    if code[at : at + 2] != b"\x0f\x1f":
        return 0
    mode, base = code[at + 2] >> 6, code[at + 2] & 7
    displacement = {0: 4 if base == 5 else 0, 1: 1, 2: 4, 3: 0}[mode]
    return at + 3 + (base == 4 and mode != 3) + displacement


def _saved_rbp(code: bytes) -> int | None:
    """Return how far below the caller's stack pointer a function's prologue saves RBP; None if it does not.

    Follows the few instructions that compilers put before and between the pushes.

    Raises:
        LookupError: an instruction is not understood before the prologue is at its end.
    """
    at, below = 0, 8                            # the return address lies at 8 below
    while at < len(code) - 16:
        nop, first = _nop_length(code[at : at + 8]), code[at]
        if nop:
            at += nop
        elif first == 0x55:                     # push rbp
            return below + 8
        elif 0x50 <= first <= 0x57:
            below, at = below + 8, at + 1
        elif first == 0x41 and 0x50 <= code[at + 1] <= 0x57:
            below, at = below + 8, at + 2
        elif 0xB8 <= first <= 0xBF:             # mov r32, imm32
            at += 5
        elif first in (0x31, 0x33):             # xor r32, r32
            at += 2
        elif first == 0xE8 and at <= 8:         # call __fentry__
            at += 5
        else:
            length = next((n for prefix, n in _SKIPPED.items() if code[at:].startswith(prefix)), None)
            if length is None:
                if first in _AFTER_PUSHES:
                    return None
                raise LookupError(f"the prologue holds {code[at : at + 4].hex()}, which is not understood")
            at += length
    return None
