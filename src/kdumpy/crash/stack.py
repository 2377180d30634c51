"""A task's stack as crash shows it: frames with stack pointer and registers, and the raw words."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import drgn
from drgn.helpers.linux.stack import kernel_stack_trace

from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.leaves import without_pac
from kdumpy.kernel.stacks import registers_of

REGISTER_SAVERS = frozenset(("__crash_kexec", "crash_kexec", "crash_setup_regs", "panic", "vpanic"))
"""Where a panic that no exception raised saves the registers; they say nothing of the cause."""
_END_MAGIC = 0x57AC6E9D
"""STACK_END_MAGIC (include/uapi/linux/magic.h): the lowest word of every kernel stack."""
_PAGE = 4096
_MOST_SAVED = 16 * 8
"""Bytes of registers that a switch of tasks saves, at most."""
_X86_ROWS = (("rip", "rsp", "rflags"), ("rax", "rbx", "rcx"), ("rdx", "rsi", "rdi"), ("rbp", "r8", "r9"),
             ("r10", "r11", "r12"), ("r13", "r14", "r15"), ("orig_rax", "cs", "ss"))
"""The layout of crash (x86_64.c, x86_64_print_eframe_regs)."""
# Source: crash, arm64.c, arm64_print_exception_frame().
_ARM64_ROWS = (("pc", "x30", "sp"), *(tuple(f"x{number}" for number in range(first, first - 3, -1))
                                      for first in range(29, -1, -3)), ("orig_x0", "syscallno", "pstate"))
_ARM64_NAMES = {"x30": "LR"}
_WIDTHS = {"rflags": 8, "cs": 4, "ss": 4, "pstate": 8, "syscallno": 0}


def _cell(row: tuple[str, ...], name: str) -> str:
    """Return the template of a register in a row of `_X86_ROWS`."""
    width = len(row[0]) if row[0] != "orig_rax" else 0
    return f"{name.upper():>{width}}: {{{name}:0{_WIDTHS.get(name, 16)}x}}"


_X86_NAMES = frozenset(name for row in _X86_ROWS for name in row)
_X86_ALL = "\n".join("    " + "  ".join(_cell(row, name) for name in row) for row in _X86_ROWS)
"""All of them, for str.format_map()."""


@dataclass(frozen=True)
class StackFrame:
    """One frame."""

    pc: int
    sp: int
    """Stack pointer; 0 where it is not known."""
    function: str | None
    offset: int | None
    """Bytes from the function's begin to pc."""
    module: str | None
    source: str | None
    inline: bool
    stack: str
    """Which stack it lies on: TASK, IRQ, SOFTIRQ, NMI, EXCEPTION, USER, UNKNOWN."""
    registers: dict[str, int] = field(default_factory=dict)
    """Those of the moment of the exception; empty for a frame that called the next."""
    slot: int = 0
    """Where on the stack pc stands as a return address; the stack pointer for a frame that was interrupted.
    This is the address that crash shows. 0 where it is not known. Of a task that was switched out, the innermost
    frame's is where the stack pointer stood then: the saved registers come first, and then the return address."""


def frames_of(session: Session, task: drgn.Object) -> tuple[tuple[StackFrame, ...], str]:
    """Return the frames of a task and why they end early, if they do.

    Raises:
        ValueError, LookupError, drgn.FaultError: the stack cannot be unwound at all.
    """
    stacks = session.kernel.stacks
    walked, stack = stacks.walked(stacks.trace(task))
    # A task that came from user space is interrupted there; only within the kernel may a stack be another one.
    kinds = _kinds(task) if any(value.interrupted and not value.user for value in stack.frames) else {}
    base, size = (task.stack.value_(), session.prog["THREAD_SIZE"].value_()) if kinds else (0, 0)
    x86 = session.prog.platform is not None and session.prog.platform.arch == drgn.Architecture.X86_64
    found: list[StackFrame] = []
    for frame, value in zip(walked, stack.frames, strict=False):    # the values may be cut
        sp = _stack_pointer(frame)
        kind = "USER" if value.user else kinds.get((value.pc, sp), "TASK") if kinds else "TASK"
        if kind == "IRQ" and base <= sp < base + size:
            kind = "TASK"       # the entry's first frame stands below the switch to the IRQ's stack
        registers = {}
        if value.interrupted and not value.inline:
            with contextlib.suppress(LookupError, ValueError):
                registers = registers_of(frame)
                if x86 and "orig_rax" not in registers:
                    registers |= _orig_rax(session, task, registers, found[-1].sp if found else 0)
        # x86-64 pushes the return address; arm64 has no place for it that the stack pointer tells.
        slot = sp - 8 if sp and x86 and not value.interrupted else sp
        found.append(StackFrame(value.pc, sp, value.symbol, value.offset, value.module, value.source, value.inline,
                                kind, registers, slot))
    if x86 and found and found[0].slot < found[0].sp:
        found[0] = replace(found[0], slot=_switched_out(task, found[0]))
    if not x86 and found and not stack.problem and found[-1].stack == "TASK":
        found.extend(_from_user_space(session, task, found[-1].sp))
    return tuple(found), stack.problem


def _from_user_space(session: Session, task: drgn.Object, record: int) -> Iterator[StackFrame]:
    """Yield the frame of user space where arm64's chain of frames ends at the registers of a system call.

    drgn ends there: `record`, the last of the chain, lies in struct pt_regs itself.
    """
    from kdumpy.crash.arm64frames import user_registers

    try:
        saved = user_registers(session, task)
    except READ_ERRORS:
        return
    if saved is not None and saved[0] < record < saved[0] + session.prog.type("struct pt_regs").size:
        _, registers = saved
        yield StackFrame(registers["pc"], registers["sp"], None, None, None, None, False, "USER", registers,
                         registers["sp"])


def _switched_out(task: drgn.Object, frame: StackFrame) -> int:
    """Return where the stack pointer stood when a task was switched out; the frame's own slot if that is elsewhere.

    Source: arch/x86/include/asm/switch_to.h, struct inactive_task_frame.
    """
    try:
        pointer: int = task.thread.sp.value_()
    except READ_ERRORS:
        return frame.slot
    return pointer if 0 < frame.slot - pointer <= _MOST_SAVED else frame.slot


def _orig_rax(session: Session, task: drgn.Object, registers: Mapping[str, int], below: int) -> dict[str, int]:
    """Return what stands in front of the saved registers: the number of the system call, or an error code.

    The unwinder does not keep it. The five words that the CPU pushed are looked for on the task's stack, and on the
    stack of the frame `below` (of an NMI, or another exception with a stack of its own).
    """
    try:
        pushed = struct.pack("<5Q", *(registers[name] for name in ("rip", "cs", "rflags", "rsp", "ss")))
    except (KeyError, struct.error):
        return {}
    stack, size = task.stack.value_(), session.prog["THREAD_SIZE"].value_()
    # Most came from user space: theirs stand at the stack's very end.
    for start, length in ((stack + size - _PAGE, _PAGE), (stack, size),
                          (below & ~(_PAGE - 1), _PAGE if below else 0)):
        try:
            data = session.prog.read(start, length)
        except drgn.FaultError:
            continue
        at = data.find(pushed)
        while at >= 16:
            # The other registers stand in front; the NMI's own copies of the five words have none there.
            before = struct.unpack_from("<QQ", data, at - 16)
            if at % 8 == 0 and before[0] == registers.get("rdi"):
                return {"orig_rax": before[1]}
            at = data.find(pushed, at + 1)
    return {}


def _kinds(task: drgn.Object) -> dict[tuple[int, int], str]:
    """Return which stack each frame lies on, by (pc, sp)."""
    found = {}
    try:
        for segment in kernel_stack_trace(task).segments:
            for frame in segment.frames:
                found[frame.pc, _stack_pointer(frame)] = segment.kind.name
    except (LookupError, ValueError, AttributeError, drgn.FaultError):
        pass            # the stacks of the CPU are not known: everything counts as the task's
    return found


def _stack_pointer(frame: drgn.StackFrame) -> int:
    try:
        return int(frame.sp)
    except LookupError:
        pass
    try:
        return int(frame.register("x29"))       # AArch64's chain of frames tells the frame pointer alone
    except (LookupError, ValueError):
        return 0


def register_lines(prog: drgn.Program, registers: Mapping[str, int]) -> Iterator[str]:
    """Yield the registers of an exception frame, three in a line."""
    if prog.platform is None or prog.platform.arch != drgn.Architecture.X86_64:
        for row in _ARM64_ROWS:
            cells = [f"{_ARM64_NAMES.get(name, name.upper()):>4}: {registers[name]:0{_WIDTHS.get(name, 16)}x}"
                     for name in row if name in registers]
            if cells:
                yield "    " + "  ".join(cells)
        return
    if registers.keys() >= _X86_NAMES:
        yield from _X86_ALL.format_map(registers).split("\n")
        return
    for row in _X86_ROWS:
        cells = [_cell(row, name).format_map(registers) for name in row if name in registers]
        if cells:
            yield "    " + "  ".join(cells)


class RawStack:
    """The memory of a task's stack, or of another between two addresses."""

    def __init__(self, session: Session, task: drgn.Object, bounds: tuple[int, int] | None = None) -> None:
        self.session = session
        self.base: int = bounds[0] if bounds else task.stack.value_()
        """Its lowest address."""
        self.size: int = bounds[1] - bounds[0] if bounds else session.prog["THREAD_SIZE"].value_()
        """Bytes."""
        self.missing: list[tuple[int, int]] = []
        """What was not in the dump when the words were read: address, bytes."""

    def overflowed(self) -> bool:
        """Whether the word that guards the stack's end is gone.

        Raises:
            drgn.FaultError: it is not in the dump.
        """
        return int(self.session.prog.read_u64(self.base)) != _END_MAGIC

    def words(self, start: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield (address, word), from `start` where it lies on the stack; what is not in the dump goes to `missing`."""
        first = start if start is not None and self.base <= start < self.base + self.size else self.base
        address = first & ~7
        while address < self.base + self.size:
            size = min(_PAGE - address % _PAGE, self.base + self.size - address)
            try:
                data = self.session.prog.read(address, size)
            except drgn.FaultError:
                data = b""
                begin = max(address, self.base)
                self._misses(begin, address + size - begin)
            for number, (word,) in enumerate(struct.iter_unpack("<Q", data[: len(data) & ~7])):
                yield address + 8 * number, word
            address += size

    def _misses(self, address: int, size: int) -> None:
        if self.missing and sum(self.missing[-1]) == address:
            address, before = self.missing.pop()
            size += before
        self.missing.append((address, size))

    def pairs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (address, word, word)."""
        words = iter(self.words())
        for address, first in words:
            yield address, first, next(words, (0, 0))[1]

    def text_words(self, start: int | None = None, *, begins: bool = False) -> Iterator[tuple[int, int]]:
        """Yield (address, word) of the words that point into functions; also to their `begins`, if wanted."""
        signed = self.session.kernel.system.machine == "aarch64"       # return addresses may carry a code (PAC)
        for address, word in self.words(start):
            if signed:
                word = without_pac(word)
            if word >> 47 == 0x1FFFF and self._is_text(word, begins):
                yield address, word

    def _is_text(self, address: int, begins: bool) -> bool:
        symbol = self.session.symbol(address)
        return symbol is not None and symbol.kind == drgn.SymbolKind.FUNC and (begins or address > symbol.address)
