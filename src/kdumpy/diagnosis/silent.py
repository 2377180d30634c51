"""What happened, by the dump alone: for a log that was overwritten, lost, or cut before the crash.

The functions on the stack between the fault and the end name the exception's kind; where kdump took
over with the registers of the fault itself, the faulting instruction does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from kdumpy.diagnosis.memory import Meaning, meaning
from kdumpy.diagnosis.oops import Event, Kind
from kdumpy.diagnosis.operands import Instruction, Operand
from kdumpy.kernel.values import Frame, Panic

# A function of the kernel -> what its being on the panic's stack means; the first that is there decides.
_ON_STACK: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("sysrq_handle_crash", (Kind.SYSRQ,)),
    ("mce_panic", (Kind.MACHINE_CHECK,)),
    ("__stack_chk_fail", (Kind.STACK_SMASHED,)),
    ("refcount_warn_saturate", (Kind.REFCOUNT, Kind.WARN)),
    ("__list_del_entry_valid", (Kind.LIST,)),
    ("__list_del_entry_valid_or_report", (Kind.LIST,)),
    ("__list_add_valid", (Kind.LIST,)),
    ("__list_add_valid_or_report", (Kind.LIST,)),
    ("watchdog_hardlockup_check", (Kind.HARD_LOCKUP,)),         # by the soft lockups' timer, where CPUs look at others
    ("watchdog_overflow_callback", (Kind.HARD_LOCKUP,)),
    ("watchdog_timer_fn", (Kind.SOFT_LOCKUP,)),
    ("panic_on_rcu_stall", (Kind.RCU,)),
    ("rcu_sched_clock_irq", (Kind.RCU,)),
    ("unknown_nmi_error", (Kind.NMI,)),
    ("io_check_error", (Kind.NMI,)),
    ("pci_serr_error", (Kind.NMI,)),
    ("out_of_memory", (Kind.OOM, Kind.OOM_PANIC)),
    ("mount_root_generic", (Kind.ROOT,)),         # mount_block_root until 6.4: e3102722ffe7
    ("mount_block_root", (Kind.ROOT,)),
    ("handle_stack_overflow", (Kind.STACK_GUARD,)),
    ("__warn", (Kind.WARN,)),
)
_DEEPEST = 16
"""Frames of the end, of interrupts and of exceptions that can lie above what happened."""
_GUARD = 0x4000
"""Bytes below a stack: a page is left free there, and a function's locals can reach beyond it."""
_FAULTS = {
    Meaning.NULL: Kind.NULL, Meaning.SMALL: Kind.PAGE_FAULT, Meaning.ERROR: Kind.PAGE_FAULT,
    Meaning.USER: Kind.PAGE_FAULT, Meaning.KERNEL: Kind.PAGE_FAULT, Meaning.FREED: Kind.PROTECTION,
    Meaning.LIST_POISON: Kind.PROTECTION, Meaning.UNINITIALISED: Kind.PROTECTION, Meaning.TEXT: Kind.PROTECTION,
    Meaning.NON_CANONICAL: Kind.PROTECTION, Meaning.STRAY: Kind.PAGE_FAULT,
}


def event_of(panic: Panic, instruction: Instruction | None, operand: Operand | None, *,
             unknown_instruction: bool = False, stack_begin: int = 0, jumped_to_page: bool = True,
             levels: int | None = None) -> Event | None:
    """Return what the dump shows to have happened; None where it does not show it.

    Args:
        panic: the end.
        instruction: the faulting instruction, where it is one.
        operand: its operand that points nowhere.
        unknown_instruction: its bytes are there, but they are no instruction.
        stack_begin: the lowest address of the task's stack; 0 where unknown.
        jumped_to_page: whether a page is there, where the instruction pointer leads to no code.
        levels: of page tables, 4 or 5, on which it depends which addresses are canonical; None where unknown.
    """
    names = [frame.function for frame in panic.stack.frames[:_DEEPEST]]
    if panic.fault is not None and panic.stack.frames[0] == panic.fault:
        kinds, address = _by_fault(panic.fault, instruction, operand, jumped_to_page, levels)
        if unknown_instruction and panic.fault.symbol:
            kinds = (Kind.OPCODE,)
        if address is not None and stack_begin and 0 < stack_begin - address <= _GUARD:
            kinds = (Kind.STACK_GUARD,)
        # A check that fails says BUG; one that falls over a pointer of the list, such as poison, has found nothing.
        listed = next((found for name, found in _ON_STACK if name == panic.fault.function and Kind.LIST in found), ()) \
            if Kind.BUG in kinds else ()
        return _event((*kinds, *listed), panic, address, operand, "fault") if kinds else None
    for name, kinds in _ON_STACK:
        if name in names:
            return _event(kinds, panic, None, None, "stack")
    if panic.task and panic.task.pid == 1 and _ends_in(names, "panic", "kernel_init"):
        return _event((Kind.ROOT,), panic, None, None, "stack")
    if panic.task and panic.task.comm == "khungtaskd":
        return _event((Kind.HUNG,), panic, None, None, "stack")
    if panic.task and panic.task.pid == 1 and "do_exit" in names:
        return _event((Kind.INIT,), panic, None, None, "stack")
    return None


def _ends_in(names: Sequence[str | None], called: str, caller: str) -> bool:
    """Whether one function was called by the other."""
    return any(pair == (called, caller) for pair in pairwise(names))


def _by_fault(fault: Frame, instruction: Instruction | None, operand: Operand | None,
              jumped_to_page: bool, levels: int | None) -> tuple[tuple[Kind, ...], int | None]:
    if fault.symbol is None:                    # a jump to where no code is
        meant = meaning(fault.pc, levels).meaning
        found = _FAULTS[meant]
        data = found == Kind.PAGE_FAULT and meant == Meaning.KERNEL and jumped_to_page
        return ((found, Kind.NX) if data else (found,)), fault.pc
    if instruction is None:
        return (), None
    if instruction.text.startswith("ud2"):
        return (Kind.BUG,), None
    if instruction.text.startswith(("div", "idiv")) and not instruction.operands:
        return (Kind.DIVIDE,), None
    if operand is None:
        return (), None
    return (_FAULTS[meaning(operand.address, levels).meaning],), operand.address


def _event(kinds: tuple[Kind, ...], panic: Panic, address: int | None, operand: Operand | None,
           inferred: str) -> Event:
    words = ", ".join(dict.fromkeys(kind.value for kind in kinds))
    event = Event(frozenset(kinds), f"the log says nothing; registers and stack show: {words}", (), 0, None,
                  inferred=inferred)
    nowhere = panic.fault.pc if panic.fault and panic.fault.symbol is None and address is not None else None
    access = "execute" if nowhere is not None else operand.access.split()[0] if operand else None
    # The log's facts are cached properties; what the dump shows takes their place.
    vars(event).update(address=address, access=access, nowhere=nowhere, cpu=panic.cpu,
                       task=(panic.task.pid, panic.task.comm) if panic.task else None)
    return event
