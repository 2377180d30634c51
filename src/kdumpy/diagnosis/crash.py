"""What the causes judge: the crash as the log tells it and as the dump shows it.

The dump's registers and frames are the stronger evidence; the log is the second. What is costly
(disassembly, blocked tasks, looking up an address) is done when a cause asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import drgn

from kdumpy.diagnosis import culprit, memory, onnostack, operands, silent, tailcalls
from kdumpy.diagnosis.beginning import closing_of, first_event
from kdumpy.diagnosis.crashed.freed import FreedObject, freed_object
from kdumpy.diagnosis.crashed.indexed import Indexed, indexed
from kdumpy.diagnosis.crashed.moment import is_another
from kdumpy.diagnosis.crashed.percpu import per_cpu_addresses
from kdumpy.diagnosis.crashed.reading import Reader
from kdumpy.diagnosis.crashed.tickless import Tickless, tickless_cpus
from kdumpy.diagnosis.evidence import CrashEvidence
from kdumpy.diagnosis.memory import Meaning, Meant
from kdumpy.diagnosis.oops import Event, Kind, Place, read_events
from kdumpy.diagnosis.waits.locks import Waits
from kdumpy.dumpfile.logrecord import LogRecord
from kdumpy.kernel.kernel import Kernel
from kdumpy.kernel.values import Frame, Module, Panic, Task

SAVERS = frozenset({"__crash_kexec", "crash_kexec", "panic", "vpanic", "nmi_panic", "crash_setup_regs"})
"""Functions of the end itself."""

_KEPT = frozenset({Meaning.NULL, Meaning.ERROR, Meaning.FREED, Meaning.LIST_POISON})
"""What a pointer still is when an offset was added, though its value looks like something else: container_of(NULL) is
a small negative number, as an error code is."""


class Crash:
    """One crash, for the causes to look at."""

    def __init__(self, path: Path, kernel: Kernel | None, log: Sequence[LogRecord]) -> None:
        self.path = path
        self.kernel = kernel
        """None when only the log could be read."""
        self.lines, self.seconds = _kernel_lines(log)
        """The log, one line each, without times."""
        self.events = read_events(self.lines, self.seconds)
        self.closing = closing_of(self.events)
        """The panic's own event; None where the dump was taken before it was printed."""
        self.logged = first_event(self.events, self.closing)
        """The event that the log says it all began with."""

    @cached_property
    def evidence(self) -> CrashEvidence:
        """What a verdict can rest on, each with the command that shows it."""
        return CrashEvidence(self)

    # What happened

    @cached_property
    def event(self) -> Event | None:
        """The event that it all began with: as the log tells it, else as the dump shows it."""
        if self.logged is not None or self.panic is None:
            return self.logged
        fault = self.panic.fault
        found = operands.decode(self.read, fault.pc, self.panic.registers, self.machine) if fault else None
        there = fault is not None and self.is_there(fault.pc)
        return silent.event_of(self.panic, found, _odd_operand(found, self.page_levels),
                               unknown_instruction=found is None and there, stack_begin=self._stack_begin(),
                               jumped_to_page=there, levels=self.page_levels)

    @cached_property
    def page_levels(self) -> int | None:
        """Levels of page tables, 4 or 5; None where the kernel is not x86-64 or does not say."""
        return memory.page_levels(self.kernel) if self.kernel else None

    def _stack_begin(self) -> int:
        """Lowest address of the panicked task's stack; 0 where unknown."""
        if self.kernel is None or self.panic is None or self.panic.task is None:
            return 0
        try:
            return int(self.kernel.task_object(self.panic.task.address).stack.value_())
        except (LookupError, AttributeError, drgn.FaultError):
            return 0

    def ended_as(self, kind: Kind) -> bool:
        """Whether the event or the closing panic is of a kind."""
        return self.told(kind) or bool(self.closing and kind in self.closing.kinds)

    def is_there(self, address: int | None) -> bool:
        """Whether the dump holds the memory at an address."""
        try:
            return address is not None and bool(self.read(address, 1))
        except LookupError:
            return False

    @cached_property
    def panic(self) -> Panic | None:
        """What the dump says took the kernel down."""
        return self.kernel.panic if self.kernel else None

    @property
    def happened(self) -> bool:
        """Whether the kernel crashed at all."""
        return self.panic is not None or (self.event is not None and (self.event.fatal or self.closing is not None))

    def told(self, *kinds: Kind) -> bool:
        """Whether the event is of one of these kinds, by its lines."""
        return bool(self.event and self.event.kinds & set(kinds))

    def in_stack(self, *functions: str) -> bool:
        """Whether the dump's stack has one of these functions."""
        return any(frame.function in functions for frame in self.panic.stack.frames) if self.panic else False

    @cached_property
    def message(self) -> str | None:
        """The line that tells of the crash."""
        return event.text if (event := self.event or self.closing) else None

    @cached_property
    def closing_words(self) -> str:
        """What the closing panic says, without the kernel's preamble; empty where there is none."""
        return self.closing.text.partition("not syncing: ")[2] if self.closing else ""

    @cached_property
    def ended_later(self) -> bool:
        """Whether the kernel survived the event for a while, and died of something else."""
        if self.event is None or not self.event.fatal or self.panic is None or not self.panic.stack.frames:
            return False
        return not self.from_dump and is_another(self.event, self.panic)

    # The stack

    @cached_property
    def from_dump(self) -> bool:
        """Whether the dump's own stack is the stack of the event: the death may have come later, elsewhere."""
        if self.panic is None or not self.panic.stack.frames:
            return False
        if self.event is None or not self.event.fatal:
            return True
        if self.event.task and self.panic.task and self.event.task[0] == self.panic.task.pid:
            return True
        return bool(self.event.place and any(frame.symbol == self.event.place.symbol
                                             for frame in self.panic.stack.frames))

    @cached_property
    def stack(self) -> tuple[Frame, ...]:
        """The whole stack, innermost first: the dump's, else the log's."""
        if self.from_dump and self.panic:
            return self.with_tail_calls(self.panic.stack.frames)
        return self.log_stack

    @cached_property
    def log_stack(self) -> tuple[Frame, ...]:
        """The stack as the event's lines tell it."""
        event = self.event
        if event is None:
            return ()
        # The scheduler's report has no trace of its own: the panic that follows has it.
        places = list(event.trace or (self.closing.trace if self.closing and self.told(Kind.ATOMIC) else ()))
        if event.place and event.place not in places:
            places.insert(0, event.place)
        if event.nowhere is not None:
            return (Frame(event.nowhere, None, None, None), *map(_frame, places))
        return tuple(map(_frame, places))

    @cached_property
    def fault(self) -> Frame | None:
        """The frame that an exception hit, or a watchdog found; None when the kernel gave up by itself."""
        event = self.event
        if self.from_dump and self.panic and self.panic.fault:
            return self.panic.fault
        if self.from_dump and self.panic and event and event.kinds & {Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP}:
            return self.panic.interrupted
        if event is None or not (event.place or event.nowhere is not None):
            return None
        return self.log_stack[0]

    @cached_property
    def below_fault(self) -> tuple[Frame, ...]:
        """The frames from the faulting one outwards."""
        return self.stack[self.stack.index(self.fault):] if self.fault in self.stack else self.stack

    @cached_property
    def below_panic(self) -> tuple[Frame, ...]:
        """The frames from the caller of panic() outwards."""
        names = [frame.function for frame in self.stack]
        last = max((number for number, name in enumerate(names[:12]) if name in SAVERS), default=-1)
        return self.stack[last + 1:]

    @cached_property
    def own(self) -> culprit.Choice:
        """The frame to blame: of the faulting code, or of the code that called panic()."""
        frames = self.below_fault if self.faulted else self.below_panic
        chosen = culprit.choose(frames)
        if chosen.frame is not None and chosen.frame.module:
            return chosen
        found = onnostack.by_data(self, chosen) if self.faulted else culprit.Choice(None, ())
        if found.frame is None:
            found = culprit.beside_soft(frames)
        return culprit.Choice(found.frame or chosen.frame, (*chosen.decisions, *found.decisions),
                              doubtful=found.frame is not None)

    @property
    def own_frame(self) -> Frame | None:
        """That frame."""
        return self.own.frame

    @cached_property
    def faulted(self) -> bool:
        """Whether an exception in the kernel's own code is what began it."""
        if self.fault is None:
            return False
        if self.event is not None:
            return self.event.fatal or bool(self.event.kinds & {Kind.WARN, Kind.REFCOUNT, Kind.LIST, Kind.SOFT_LOCKUP,
                                                               Kind.HARD_LOCKUP, Kind.SANITIZER})
        return bool(self.panic and self.panic.stack.frames and self.panic.stack.frames[0] is self.fault)

    @cached_property
    def context(self) -> str | None:
        """What the code was run by, in words."""
        return culprit.context_of(self.told_stack)

    @property
    def told_stack(self) -> tuple[Frame, ...]:
        """The frames from the faulting one, or from the caller of panic(), outwards."""
        return self.below_fault if self.faulted else self.below_panic

    @cached_property
    def task(self) -> Task | None:
        """The task in which it happened, from the dump."""
        return self.panic.task if self.panic and self.from_dump else None

    @cached_property
    def task_words(self) -> str:
        """The task, in words; empty where unknown."""
        if self.task:
            return words_of(self.task)
        if self.event and self.event.task:
            return f"task {self.event.task[1]} (pid {self.event.task[0]})"
        return ""

    @cached_property
    def registers(self) -> dict[str, int]:
        """The registers at the fault: the dump's, else the log's."""
        if self.from_dump and self.panic and self.panic.registers:
            return self.panic.registers
        return self.event.registers if self.event else {}

    @cached_property
    def fault_registers(self) -> dict[str, int]:
        """The registers of the faulting instruction; empty where they are another place's.

        A watchdog panics in its own interrupt: what it saved says nothing of the code that it found.
        """
        pc = self.registers.get("rip", self.registers.get("pc"))
        known = pc is None or self.fault is None or self.fault.pc in (0, pc)
        return self.registers if known and not self.told(Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP) else {}

    # The faulting instruction

    @cached_property
    def instruction(self) -> operands.Instruction | None:
        """The faulting instruction; None where it cannot be read."""
        if self.kernel is None or self.fault is None or self.fault.pc == 0:
            return None
        return operands.decode(self.read, self.fault.pc, self.fault_registers, self.machine)

    @cached_property
    def operand(self) -> operands.Operand | None:
        """The operand that faulted: the one that points to the fault's address, or that points nowhere."""
        told = self.event.address if self.event else None
        for operand in self.instruction.operands if self.instruction else ():
            if told is not None and operand.address <= told < operand.address + max(operand.size, 8):
                return operand
        return _odd_operand(self.instruction, self.page_levels)

    @cached_property
    def divisor(self) -> tuple[str, int] | None:
        """(operand, value) of what the faulting instruction divides by."""
        return operands.divisor(self.read, self.instruction, self.fault_registers) if self.instruction else None

    @cached_property
    def address(self) -> int | None:
        """The address that could not be used."""
        if self.event and self.event.address is not None:
            return self.event.address
        return self.operand.address if self.operand else None

    @cached_property
    def indexed(self) -> Indexed | None:
        """How the address was made of a good pointer and an index; None where it was not."""
        return indexed(self.kernel, self.operand, self.page_levels) if self.kernel else None

    @cached_property
    def pointer(self) -> int | None:
        """The value that was used as a pointer: the base register's, else the address."""
        if self.indexed is not None:
            return self.indexed.pointer
        if self.operand and self.operand.base_value is not None and self.operand.base != "rip":
            values = [value for value in (self.operand.base_value, self.operand.index_value) if value is not None]
            odd = [value for value in values
                   if memory.meaning(value, self.page_levels).meaning not in (Meaning.KERNEL, Meaning.NULL)]
            return odd[0] if odd else self.operand.base_value
        return self.address

    @cached_property
    def pointer_meaning(self) -> Meant | None:
        """What that value is; where bytes were added to one that has a meaning of its own, that one's."""
        root = self.reader.root if self.reader and self.pointer is not None else None
        meant = memory.meaning(root, self.page_levels) if root is not None else None
        if meant is not None and meant.meaning in _KEPT:
            return meant
        return memory.meaning(self.pointer, self.page_levels) if self.pointer is not None else None

    @cached_property
    def per_cpu(self) -> tuple[int, ...]:
        """Where the CPUs have the variable that the pointer is the bare per-CPU pointer of; empty where it is none."""
        return per_cpu_addresses(self.kernel, self.pointer) if self.kernel and self.pointer else ()

    @cached_property
    def access(self) -> str:
        """`read`, `write`, `execute`, or empty."""
        if self.event and self.event.access:
            return self.event.access
        # What reads and writes at once faults as what writes does: Intel SDM, volume 3, 4.7, bit W/R.
        return "" if self.operand is None else "write" if "write" in self.operand.access else self.operand.access

    @cached_property
    def reader(self) -> Reader | None:
        """Reads where the bad pointer came from; None when only the log could be read."""
        return Reader(self, self.kernel) if self.kernel else None

    @cached_property
    def left_object(self) -> FreedObject | None:
        """The freed object that the registers of the fault lead to; where the bad pointer was read, before others."""
        if self.kernel is None or not self.faulted:
            return None
        holder = self.reader.holder if self.reader else None
        if holder is not None and holder.kind == "slab" and holder.state == "freed":
            return FreedObject((self.reader.register if self.reader else None) or "", holder)
        return freed_object(self.kernel, self.fault_registers)

    @cached_property
    def call(self) -> operands.Instruction | None:
        """The call that led to an instruction pointer without code."""
        frames = self.below_fault
        if self.kernel is None or len(frames) < 2 or frames[1].pc == 0 or frames[1].interrupted:
            return None
        return operands.decode_call(self.read, frames[1].pc, self.registers, self.machine)

    @cached_property
    def call_register(self) -> str | None:
        """The register through which that call was made, directly or by a thunk (retpoline)."""
        if self.call is None or self.kernel is None:
            return None
        words = self.call.text.split()
        if self.call.target or not words[-1].startswith("0x"):
            return self.call.target
        thunk = memory.symbol_at(self.kernel.prog, int(words[-1], 16))
        return thunk.rpartition("_thunk_")[2] if thunk.startswith("__x86_indirect") and "+" not in thunk else None

    # Looking things up

    def with_tail_calls(self, frames: Sequence[Frame]) -> tuple[Frame, ...]:
        """Return a stack of the dump with the functions that jumped on to another one."""
        if self.kernel is None or self.machine != "x86_64":
            return tuple(frames)
        return tuple(tailcalls.mend(self.kernel, frames))

    def read(self, address: int, size: int) -> bytes:
        """Read the kernel's memory; raises LookupError where it is not in the dump."""
        if self.kernel is None:
            raise LookupError("only the log could be read")
        try:
            return bytes(self.kernel.prog.read(address, size))
        except (drgn.FaultError, OverflowError) as error:
            raise LookupError(str(error)) from None

    def describe(self, address: int) -> str:
        """Name what lies at an address; empty where that is unknown."""
        return memory.describe(self.kernel.prog, address) if self.kernel else ""

    @cached_property
    def machine(self) -> str:
        """Architecture, as uname -m."""
        return (self.kernel.system.machine if self.kernel else "x86_64") or "x86_64"

    @cached_property
    def modules(self) -> dict[str, Module]:
        """The loaded modules by name."""
        return {module.name: module for module in self.kernel.modules} if self.kernel else {}

    def is_foreign(self, module: str) -> bool | None:
        """Tell whether a module was built outside of the kernel; None where neither the dump nor the log tells."""
        known = self.modules.get(module)
        if known is not None:
            return "O" in known.taints
        # kernel/module/main.c, print_modules(): " flaky(OE) ext4"; only what taints has letters, O, E, P, F, C, X, K.
        listed = re.compile(rf"(?:^| ){re.escape(module)}(?:\(([A-Z+-]*)\))?(?= |$)")
        found: bool | None = None
        for line in self.lines:
            if line.startswith(f"{module}: loading out-of-tree module taints kernel"):
                return True
            if "Modules linked in:" in line and (match := listed.search(line.partition("Modules linked in:")[2])):
                found = found or "O" in (match[1] or "")
        return found

    @cached_property
    def waits(self) -> Waits | None:
        """The blocked tasks, or None when the dump cannot be read."""
        return Waits(self.kernel, self.now_ns) if self.kernel else None

    @cached_property
    def now(self) -> float | None:
        """Seconds on the log's clock when it ended; None where the log has no times."""
        return max((second for second in self.seconds if second is not None), default=None)

    @property
    def now_ns(self) -> int | None:
        """The same in ns."""
        return int(self.now * 1e9) if self.now is not None else None

    @cached_property
    def tickless(self) -> tuple[Tickless, ...]:
        """The busy CPUs that took no timer interrupt for longer than the kernel allows."""
        return tickless_cpus(self.kernel, self.now) if self.kernel else ()


def words_of(task: Task) -> str:
    """Return a task in words: `process sh (pid 7)`."""
    kind = "kernel thread" if task.kernel_thread else "process"
    return f"{kind} {task.comm} (pid {task.pid})" if task.pid else "the idle task"


def _odd_operand(instruction: operands.Instruction | None, levels: int | None) -> operands.Operand | None:
    """The operand that points to no memory of the kernel; else the only one there is."""
    found = instruction.operands if instruction else ()
    odd = next((item for item in found if memory.meaning(item.address, levels).meaning != Meaning.KERNEL), None)
    return odd or (found[0] if len(found) == 1 else None)


def _kernel_lines(log: Sequence[LogRecord]) -> tuple[list[str], list[float | None]]:
    """Return the log's lines and their times; what processes wrote into the log is emptied, for anybody may."""
    lines: list[str] = []
    seconds: list[float | None] = []
    for record in log:
        for line in record.text.split("\n"):
            lines.append(line if record.facility <= 0 else "")
            seconds.append(record.seconds if record.ts_ns >= 0 else None)
    return lines, seconds


def _frame(place: Place) -> Frame:
    return Frame(0, place.symbol, place.offset, place.module)
