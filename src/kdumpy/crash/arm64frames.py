"""Saved registers on the stacks of an arm64 kernel, where the entry code puts them, and a CPU's stacks.

Source: arch/arm64/include/asm/ptrace.h, struct pt_regs; arch/arm64/kernel/entry.S, kernel_entry: what it writes into
`stackframe` tells saved registers from other memory. Since "arm64: stacktrace: unwind exception boundaries"
(c2c6b27b5aa1, 6.13) that is a record with a type, before it the interrupted X29 and PC, or zeros from user space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import drgn
from drgn.helpers.linux.percpu import per_cpu

from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS

if TYPE_CHECKING:
    import numpy as np

REGISTERS = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate", "orig_x0", "syscallno")
_X29, _SP, _PC, _PSTATE = 29, 31, 32, 33
_USER_BITS = 52
_MODE = 0x1f
"""PSTATE.M: 0 user space, 0x10 and more a 32-bit program, 4, 5, 8 and 9 the kernel (EL1, or EL2 of a host)."""
_KERNEL_MODES = (4, 5, 8, 9)
_RESERVED = ~0xf3f03fdf & (1 << 64) - 1
"""Bits of SPSR_EL1 that no processor sets (with room for bits 20 to 25 and 32-bit programs)."""
_FINAL, _FROM_KERNEL = 1, 2
"""arch/arm64/include/asm/stacktrace/frame.h, FRAME_META_TYPE_FINAL and FRAME_META_TYPE_PT_REGS."""


def user_registers(session: Session, task: drgn.Object) -> tuple[int, dict[str, int]] | None:
    """Return where the registers lie with which a task left user space, and these; None if it did not.

    Source: arch/arm64/include/asm/processor.h, task_pt_regs: they end where the task's stack does.
    """
    kind = session.prog.type("struct pt_regs")
    address = task.stack.value_() + session.prog["THREAD_SIZE"].value_() - kind.size
    saved = drgn.Object(session.prog, kind, address=address).read_()
    if not task.mm or saved.pstate.value_() & _MODE & ~0x10 or saved.pc.value_() >> _USER_BITS:
        return None
    found = {f"x{number}": saved.regs[number].value_() for number in range(31)}
    for name in REGISTERS[_SP:]:
        found[name] = saved.member_(name).value_() & (0xffffffff if name == "syscallno" else (1 << 64) - 1)
    return address, found


def saved_registers(session: Session, words: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
                    ) -> list[tuple[int, bool, dict[str, int]]]:
    """Return (index of the word at which they begin, whether from user space, registers) for all in a stack.

    Those of user space stand at a task's stack's end and nowhere else.
    """
    import numpy as np

    kind = session.prog.type("struct pt_regs")
    frame = drgn.offsetof(kind, "stackframe") // 8
    typed = kind.member("stackframe").type.kind == drgn.TypeKind.STRUCT
    count = len(words) - kind.size // 8 + 1
    if count <= 0:
        return []
    pstate, pc, sp = (words[at:at + count] for at in (_PSTATE, _PC, _SP))
    first, second = (words[at:at + count] for at in (frame, frame + 1))
    mode = pstate & np.uint64(_MODE)
    plausible = (pstate & np.uint64(_RESERVED)) == 0
    user = plausible & ((mode & np.uint64(0xf)) == 0) & (first == 0) & (second == 0) & (pc > 0) \
        & (pc >> np.uint64(_USER_BITS) == 0) & (sp >> np.uint64(_USER_BITS) == 0) & (np.arange(count) == count - 1)
    kernel = plausible & np.isin(mode, np.array(_KERNEL_MODES, np.uint64)) & (pc >> np.uint64(63) == 1) \
        & (sp >> np.uint64(63) == 1) & (sp % np.uint64(16) == 0)
    if typed:
        meta = words[frame + 2:frame + 2 + count]
        user &= meta == np.uint64(_FINAL)
        kernel &= (first == 0) & (second == 0) & (meta == np.uint64(_FROM_KERNEL))
    else:
        kernel &= (first == words[_X29:_X29 + count]) & (second == pc)
    found = []
    for place in np.flatnonzero(user | kernel).tolist():
        names = REGISTERS if user[place] else REGISTERS[:_PSTATE + 1]       # the others are a system call's
        registers = dict(zip(names, (int(word) for word in words[place:place + len(names)]), strict=True))
        if user[place]:
            registers["syscallno"] &= 0xffffffff
        if user[place] or session.kernel.stacks.has_code(registers["pc"]):
            found.append((place, bool(user[place]), registers))
    return found


def cpu_areas(session: Session, cpu: int) -> list[tuple[str, int, int]]:
    """Return (name, lowest address, bytes) of a CPU's stacks.

    Source: arch/arm64/kernel/irq.c, irq_stack_ptr; arch/arm64/kernel/traps.c, overflow_stack.
    """
    prog = session.prog
    found = []
    try:
        base = per_cpu(prog["irq_stack_ptr"], cpu).value_()
        found.append(("IRQ", base, int(prog["THREAD_SIZE"])))
    except READ_ERRORS:
        pass
    try:
        area = per_cpu(prog["overflow_stack"], cpu)
        found.append(("OVERFLOW", area.address_of_().value_(), drgn.sizeof(area)))
    except READ_ERRORS:
        pass
    return found
