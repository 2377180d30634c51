"""ORC, the kernel's own unwind tables, read by drgn out of the dump's memory; and the frame they lose.

drgn uses the tables in memory as soon as it knows the kernel's address range. One frame is lost
then: the panic CPU's registers are saved inside `__crash_kexec`, which objtool cannot follow and
marks as UNDEFINED, so that `panic` and its caller vanish. The frame's size is in the stack itself:
the first word above the stack pointer that is the return address of a call of this function.

Source: arch/x86/include/asm/orc_types.h, arch/x86/kernel/unwind_orc.c, tools/objtool.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import drgn
from drgn import Architecture

from kdumpy.debuginfo.reading import READ_ERRORS

_ENTRY = struct.Struct("<hhH")
"""struct orc_entry: sp_offset, bp_offset (bytes), flags (sp_reg:4, bp_reg:4, type)."""
_LONGEST_PROLOGUE = 64
_MOST_CPUS = 8192
_RENUMBERED = bytes.fromhex("137c36ad7627c4dd55932176bb0ecdbd5041fc82")


class _Encoding(NamedTuple):
    """How one version of the format writes "the caller's frame is at SP + offset, after a call"."""

    register_sp: int
    previous_sp: int
    call: int
    """ORC_TYPE_CALL, in place within flags."""


# 1735858caa4b "objtool/x86: Reorder ORC register numbering" (7.1), known by its .orc_header.
_ORC_7_1 = _Encoding(3, 8, 2 << 8)
# fb799447ae29 "x86,objtool: Split UNWIND_HINT_EMPTY in two" (6.4).
_ORC_6_4 = _Encoding(5, 1, 2 << 8)
_ORC_4_14 = _Encoding(5, 1, 0)


class Restart(NamedTuple):
    """The frame that was mended: an UNDEFINED entry of the table, written over in drgn's view."""

    function: str
    entry_address: int
    frame_bytes: int
    """From the stack pointer to the caller's."""


def attach(prog: drgn.Program, saved: Sequence[Mapping[str, int]] = ()) -> Restart | None:
    """Let drgn unwind the kernel with the tables in memory; return the frame that had to be mended.

    Args:
        prog: a program with symbols, and best with types.
        saved: the registers of each CPU, for a program without types.

    Raises:
        LookupError, drgn.FaultError: the kernel's symbols or tables are missing.
    """
    try:
        prog.create_loaded_modules()
        main = prog.main_module()
    except READ_ERRORS:
        # Without types the list of modules cannot be read; the kernel alone can be unwound all the same.
        main = prog.main_module("kernel", create=True)
    if main.address_ranges is not None:         # a vmlinux is loaded: drgn takes the tables from there
        return None
    restart = None
    if prog.platform and prog.platform.arch == Architecture.X86_64:
        restart = _mend_first_frame(prog, saved)
    start, end = prog.symbol("_stext").address, prog.symbol("_end").address
    main.address_ranges = [(start, end)]
    return restart


def crashing_cpu(prog: drgn.Program) -> int | None:
    """Return the CPU that panicked, by the symbol alone: it needs no types. None before a panic.

    Source: arch/x86/kernel/reboot.c, crashing_cpu; -1 until nmi_shootdown_cpus().
    """
    try:
        cpu: int = prog.read_u32(prog.symbol("crashing_cpu").address)
    except (LookupError, drgn.FaultError):
        return None
    return cpu if cpu < _MOST_CPUS else None


def _first_frame(prog: drgn.Program, saved: Sequence[Mapping[str, int]]) -> tuple[int, int]:
    """Return pc and sp of the panic CPU."""
    try:
        frame = prog.crashed_thread().stack_trace()[0]
        return frame.pc, frame.register("rsp")
    except READ_ERRORS:
        cpu = crashing_cpu(prog)
        if cpu is None:
            raise LookupError("no CPU panicked") from None
        return saved[cpu]["rip"], saved[cpu]["rsp"]


def _mend_first_frame(prog: drgn.Program, saved: Sequence[Mapping[str, int]]) -> Restart | None:
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
        pushed, at = _frame_above(prog, symbol, sp)
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
    return Restart(symbol.name, entry_address, frame_bytes)


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
    return (address, _encoding(prog)) if flags & 0xF == 0 else None


def _encoding(prog: drgn.Program) -> _Encoding:
    try:
        if prog.read(prog.symbol("__start_orc_header").address, len(_RENUMBERED)) == _RENUMBERED:
            return _ORC_7_1
    except (LookupError, drgn.FaultError):
        pass
    # ORC_TYPE_CALL is not zero since 6.4; the end of stack then has a type of its own.
    release = prog["UTS_RELEASE"].string_().decode("ascii", "replace")
    major, minor = (int(part) for part in re.findall(r"\d+", release + ".0")[:2])
    return _ORC_6_4 if (major, minor) >= (6, 4) else _ORC_4_14


def _frame_above(prog: drgn.Program, function: drgn.Symbol, sp: int) -> tuple[int | None, int]:
    """Return (how far below the caller's stack pointer RBP is saved or None, place of the return address)."""
    stack = _stack_above(prog, sp)
    for offset in range(0, len(stack) - 7, 8):
        (word,) = struct.unpack_from("<Q", stack, offset)
        if _calls(prog, word, function.address):
            return _saved_rbp(prog.read(function.address, _LONGEST_PROLOGUE)), sp + offset
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


def _saved_rbp(code: bytes) -> int | None:
    """Return how far below the caller's stack pointer a function's prologue saves RBP, or None.

    Follows the few instructions that compilers put before and between the pushes.
    """
    at, below = 0, 8                            # the return address lies at 8 below
    skipped = {b"\xf3\x0f\x1e\xfa": 4, b"\x0f\x1f\x44\x00": 5, b"\x48\x89\xe5": 3, b"\x48\x83\xe4": 4}
    while at < len(code) - 8:
        first = code[at]
        if first == 0x55:
            return below + 8
        if 0x50 <= first <= 0x57:
            below, at = below + 8, at + 1
        elif first == 0x41 and 0x50 <= code[at + 1] <= 0x57:
            below, at = below + 8, at + 2
        elif 0xB8 <= first <= 0xBF:             # mov r32, imm32
            at += 5
        elif first in (0x31, 0x33):             # xor r32, r32
            at += 2
        else:
            length = next((n for prefix, n in skipped.items() if code[at:].startswith(prefix)), None)
            if length is None:
                return None
            at += length
    return None
