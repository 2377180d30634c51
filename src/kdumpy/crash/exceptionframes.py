"""Saved registers found on a stack by their looks: what `bt -e` and `bt -E` search for.

Source: arch/x86/include/asm/ptrace.h, struct pt_regs; crash, x86_64.c, x86_64_eframe_verify(). A copy that a function
made of the registers looks the same: unlike the frames of `bt`, what is found here is a guess. Those of arm64 are in
`arm64frames.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import drgn
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.crash import arm64frames
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump

if TYPE_CHECKING:
    import numpy as np

REGISTERS = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
             "orig_rax", "rip", "cs", "rflags", "rsp", "ss")
_KERNEL_CS, _USER_CS, _USER32_CS = 0x10, 0x33, 0x23
_USER_SS = (0x2b, 0)
_FLAGS = 0x3f7fd7
"""The bits of rflags that exist."""
_PAGE = 4096
_LARGEST = 1 << 20
"""Bytes of a stack."""


@dataclass(frozen=True)
class ExceptionFrame:
    """A struct pt_regs."""

    address: int
    user: bool
    """The exception came from user space."""
    registers: dict[str, int]


@dataclass(frozen=True)
class CpuStack:
    """A stack that belongs to a CPU and not to a task."""

    cpu: int
    name: str
    """IRQ, or NMI, DF, DB, MCE as struct cea_exception_stacks calls them; on arm64 IRQ and OVERFLOW."""
    base: int
    size: int


def exception_frames(session: Session, base: int, size: int) -> Iterator[ExceptionFrame]:
    """Yield what looks like saved registers in a stack; pages that are missing are passed over.

    Raises:
        NotInDump: the looks of this machine's registers are not known.
    """
    machine = session.kernel.system.machine
    if machine not in ("x86_64", "aarch64", None):
        raise NotInDump("saved registers are found by their looks on x86-64 and arm64 only",
                        mend="'bt' shows those of the exceptions that the stack leads to")
    import numpy as np  # `bt` and all that show a task like it come here, and seldom search a stack: 70 ms of the start

    words = _words(session, base, size)
    if machine == "aarch64":
        for place, user_mode, found in arm64frames.saved_registers(session, words):
            yield ExceptionFrame(base + 8 * place, user_mode, found)
        return
    count = len(REGISTERS)
    if len(words) < count:
        return
    rip, cs, flags, rsp, ss = (words[place:len(words) - count + place + 1] for place in range(16, 21))
    plausible = ((flags & np.uint64(~_FLAGS & (1 << 64) - 1)) == 0) & ((flags & np.uint64(2)) != 0)
    kernel = plausible & (cs == np.uint64(_KERNEL_CS)) & ((ss == np.uint64(0x18)) | (ss == np.uint64(0))) \
        & (rip >> np.uint64(63) == 1) & (rsp >> np.uint64(63) == 1)
    user = plausible & ((cs == np.uint64(_USER_CS)) | (cs == np.uint64(_USER32_CS))) \
        & ((ss == np.uint64(_USER_SS[0])) | (ss == np.uint64(_USER_SS[1]))) \
        & (rip < np.uint64(1 << 47)) & (rsp < np.uint64(1 << 47)) & (rip > 0)
    for place in np.flatnonzero(kernel | user).tolist():
        values = [int(word) for word in words[place:place + count]]
        found = dict(zip(REGISTERS, values, strict=True))
        if user[place] or session.kernel.stacks.has_code(found["rip"]):
            yield ExceptionFrame(base + 8 * place, bool(user[place]), found)


def _words(session: Session, base: int, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    import numpy as np

    data = bytearray(size)
    for start in range(0, size, _PAGE):
        try:
            data[start:start + _PAGE] = session.prog.read(base + start, min(_PAGE, size - start))
        except drgn.FaultError:
            continue
    return np.frombuffer(bytes(data), "<u8")


def cpu_stacks(session: Session, cpus: list[int]) -> Iterator[CpuStack]:
    """Yield the interrupt's stack and the exceptions' stacks of CPUs.

    Raises:
        NotInDump: no symbol tells where they are.
    """
    found = False
    readers = (_arm64_stacks,) if session.kernel.system.machine == "aarch64" else (_irq_stack, _exception_stacks)
    for cpu in cpus:
        for read in readers:
            try:
                stacks = list(read(session, cpu))
            except READ_ERRORS:
                continue
            found = found or bool(stacks)
            yield from stacks
    if not found:
        raise NotInDump("the stacks of the CPUs are not known")


def _arm64_stacks(session: Session, cpu: int) -> Iterator[CpuStack]:
    yield from (CpuStack(cpu, *area) for area in arm64frames.cpu_areas(session, cpu))


def _irq_stack(session: Session, cpu: int) -> Iterator[CpuStack]:
    """Source: arch/x86/include/asm/processor.h, hardirq_stack_ptr: the top, less a word since 5.9."""
    size = 4 * int(session.prog["PAGE_SIZE"])       # IRQ_STACK_SIZE without KASAN
    for name in ("hardirq_stack_ptr", "pcpu_hot"):
        try:
            value = per_cpu(session.prog[name], cpu)
        except LookupError:
            continue
        top = int(value.hardirq_stack_ptr if name == "pcpu_hot" else value)
        yield CpuStack(cpu, "IRQ", (top + 15 & -16) - size, size)
        return


def _exception_stacks(session: Session, cpu: int) -> Iterator[CpuStack]:
    """Source: arch/x86/include/asm/cpu_entry_area.h, struct cea_exception_stacks."""
    try:
        variable = session.prog["cea_exception_stacks"]
    except LookupError:         # the kernel's types leave the variable out
        variable = drgn.Object(session.prog, "struct cea_exception_stacks *",
                               address=session.prog.symbol("cea_exception_stacks").address)
    area = per_cpu(variable, cpu)
    base = area.value_()
    for member in area.type_.type.members or ():
        if member.name and member.name.endswith("_stack") and not member.name.endswith("_guard"):
            size = drgn.sizeof(member.type)
            if 0 < size <= _LARGEST:
                yield CpuStack(cpu, member.name.removesuffix("_stack"), base + member.bit_offset // 8, size)
