"""ELF notes of a dump: the registers of each CPU, and VMCOREINFO.

Source: the ELF specification, "Note Section"; include/linux/elfcore.h, struct elf_prstatus;
arch/*/include/asm/elf.h for the register set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from kdumpy.errors import DumpFormatError

NT_PRSTATUS = 1
LARGEST = 64 << 20
"""Bytes of all notes; 8,192 CPUs need 3 MB."""

_NOTE = struct.Struct("<III")
"""namesz, descsz, type."""
_PRSTATUS = struct.Struct("<3iHxxQQiiii64x")
"""si_signo, si_code, si_errno, pr_cursig, pr_sigpend, pr_sighold, pr_pid, pr_ppid, pr_pgrp, pr_sid,
four timevals; pr_reg follows."""
assert _PRSTATUS.size == 112


class Machine(Enum):
    """The architectures whose dumps are read."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @classmethod
    def named(cls, name: str, *, where: str) -> Machine:
        """Return the machine that a dump names (as uname -m), or refuse it by name."""
        try:
            return cls({"arm64": "aarch64", "amd64": "x86_64"}.get(name, name))
        except ValueError:
            shown = name if name.isprintable() and name else repr(name)
            raise DumpFormatError(f"dumps of machine {shown[:65]} are not supported", where=where,
                                  why="x86_64 and aarch64 are", mend="open it with crash") from None


REGISTERS: dict[Machine, tuple[str, ...]] = {
    # arch/x86/include/asm/user_64.h, struct user_regs_struct
    Machine.X86_64: ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
                     "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base",
                     "ds", "es", "fs", "gs"),
    # arch/arm64/include/uapi/asm/ptrace.h, struct user_pt_regs
    Machine.AARCH64: (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate"),
}


@dataclass(frozen=True, slots=True)
class Note:
    """One note as it lies in the file."""

    name: str
    """`CORE`, `VMCOREINFO`, `QEMU`, …"""
    kind: int
    """The note's type; its meaning depends on the name."""
    data: bytes


@dataclass(frozen=True, slots=True)
class PrStatus:
    """What one CPU saved when the kernel crashed."""

    index: int
    """Position among the notes. It is the CPU's number only while every CPU answered the crash's NMI."""
    pid: int
    """The task that ran, 0 for the idle task."""
    signal: int
    registers: dict[str, int]
    """Named as in the kernel's user register set."""


def parse_notes(data: bytes) -> Iterator[Note]:
    """Yield the notes of a buffer; stop where one says it is longer than what is left."""
    offset = 0
    while offset + _NOTE.size <= len(data):
        name_size, data_size, kind = _NOTE.unpack_from(data, offset)
        start = offset + _NOTE.size
        body = start + (name_size + 3 & ~3)
        end = body + data_size
        if name_size > 256 or end > len(data):
            return
        if name_size or data_size:
            name = data[start:start + name_size].rstrip(b"\0").decode("ascii", "replace")
            yield Note(name, kind, data[body:end])
        offset = body + (data_size + 3 & ~3)


def pack_notes(notes: Iterable[Note]) -> tuple[bytes, int, int]:
    """Return the bytes that `parse_notes` reads, and offset and size in them of VMCOREINFO's text (0, 0: none)."""
    data = bytearray()
    found = (0, 0)
    for note in notes:
        name = note.name.encode("ascii", "replace") + b"\0"
        data += _NOTE.pack(len(name), len(note.data), note.kind)
        data += name.ljust(len(name) + 3 & ~3, b"\0")
        if note.name == "VMCOREINFO" and note.kind == 0 and note.data and not found[1]:
            found = (len(data), len(note.data))
        data += note.data.ljust(len(note.data) + 3 & ~3, b"\0")
    return bytes(data), *found


def parse_prstatus(notes: tuple[Note, ...], machine: Machine) -> tuple[PrStatus, ...]:
    """Return each CPU's registers, in the order of the notes; notes that are too short are left out."""
    names = REGISTERS[machine]
    words = struct.Struct(f"<{len(names)}Q")
    found: list[PrStatus] = []
    for note in notes:
        if note.kind != NT_PRSTATUS or note.name != "CORE" or len(note.data) < _PRSTATUS.size + words.size:
            continue
        fields = _PRSTATUS.unpack_from(note.data)
        values = words.unpack_from(note.data, _PRSTATUS.size)
        found.append(PrStatus(index=len(found), pid=fields[6], signal=fields[3],
                              registers=dict(zip(names, values, strict=True))))
    return tuple(found)


def machine_of(notes: tuple[Note, ...]) -> Machine | None:
    """Tell the machine by the size of its CPUs' register notes."""
    for note in notes:
        if note.kind == NT_PRSTATUS and note.name == "CORE":
            for machine, names in REGISTERS.items():
                # pr_fpvalid and its padding follow the registers.
                if len(note.data) == _PRSTATUS.size + len(names) * 8 + 8:
                    return machine
    return None
