"""What took the kernel down: from drgn's crashed thread, or, without types, from the registers in the notes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import pairwise

import drgn
from drgn.helpers.linux.sched import cpu_curr

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.registers import crashing_cpu, saved_registers
from kdumpy.kernel.stacks import Stacks, registers_of
from kdumpy.kernel.tasks import task_value
from kdumpy.kernel.values import Frame, Panic, Stack

SAVERS = {"__crash_kexec", "crash_setup_regs", "crash_kexec", "panic", "vpanic"}
"""Functions in which the registers were saved, where no exception was the cause."""


_NOT_FAULTS = {"asm_exc_nmi", "asm_exc_machine_check", "asm_exc_debug", "asm_exc_int3"}
"""Entries that say nothing about the code that they interrupt."""
_OTHER_EXCEPTIONS = {"page_fault", "async_page_fault", "general_protection", "invalid_op", "divide_error",
                     "double_fault", "stack_segment", "segment_not_present", "bounds", "alignment_check",
                     "el1h_64_sync", "el1_sync", "el1h_64_sync_handler"}
"""x86-64 before 5.8 (9d4b4bd5f6a5 and its series named them asm_exc_), and arm64."""


def read_panic(prog: drgn.Program, stacks: Stacks, problems: dict[str, str]) -> Panic | None:
    """Return the panic, or None with the reason in `problems` where the kernel did not panic."""
    try:
        thread = prog.crashed_thread()
    except READ_ERRORS as error:
        found = _from_notes(prog, stacks)
        if found is None:
            problems["panic"] = f"no panicked CPU is named in the dump: {error}"
        return found
    task = None
    try:
        task = task_value(thread.object)
    except READ_ERRORS as error:
        problems["panic task"] = str(error)
    try:
        return replace(_panic(stacks, thread.stack_trace(), task.cpu if task else -1), task=task)
    except READ_ERRORS as error:
        problems["panic stack"] = str(error)
        return Panic(cpu=task.cpu if task else -1, task=task, stack=Stack((), str(error)))


def _from_notes(prog: drgn.Program, stacks: Stacks) -> Panic | None:
    """The symbol table names the CPU, its note in memory has its registers, and ORC needs no types to unwind."""
    cpu, registers = crashing_cpu(prog), saved_registers(prog)
    if cpu is None or registers is None:
        return None
    try:
        trace = stacks.from_registers(registers)
    except READ_ERRORS as error:
        return Panic(cpu, None, Stack((), str(error)), registers)
    task = None
    with contextlib.suppress(*READ_ERRORS):
        task = task_value(cpu_curr(prog, cpu))
    return replace(_panic(stacks, trace, cpu), task=task)


def _panic(stacks: Stacks, trace: drgn.StackTrace, cpu: int) -> Panic:
    stack = stacks.frames(trace)
    fault = _fault(stack)
    registers: dict[str, int] = {}
    with contextlib.suppress(*READ_ERRORS):
        registers = registers_of(trace[0])
        if fault is not None:
            # Walked past a jump to nowhere, the fault may lie in a part of the stack that `trace` does not have.
            registers = next((registers_of(frame) for frame in trace
                              if frame.interrupted and not frame.is_inline and frame.pc == fault.pc), registers)
    interrupted = fault or next((frame for frame in stack.frames[1:] if frame.interrupted and not frame.user), None)
    return Panic(cpu, None, stack, registers, fault, interrupted)


def _fault(stack: Stack) -> Frame | None:
    """The frame that an exception interrupted: the first one, or the one below the handler's frames."""
    first = stack.frames[0] if stack.frames else None
    if first is None:
        return None
    if first.interrupted and first.function not in SAVERS:
        return first
    return next((frame for handler, frame in pairwise(stack.frames)
                 if frame.interrupted and not frame.user and _is_exception(handler)), None)


def _is_exception(frame: Frame) -> bool:
    """Whether a frame is the entry of an exception, and not of an interrupt, which hits innocent code.

    Source: arch/x86/entry/entry_64.S, DECLARE_IDTENTRY; arch/arm64/kernel/entry.S.
    """
    name = frame.function or ""
    return (name.startswith("asm_exc_") and name not in _NOT_FAULTS) or name in _OTHER_EXCEPTIONS
