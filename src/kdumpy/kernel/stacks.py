"""Stacks as values, unwound by drgn; and the restart after a jump to nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import drgn

from kdumpy.debuginfo.attach import DebugInfo
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.kernel.leaves import unrecorded_caller, without_pac
from kdumpy.kernel.values import Frame, Stack

_KERNEL_HALF = 1 << 63
_MOST_FRAMES = 1000
_MOST_KNOWN = 1 << 16
_X86_REGISTERS = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
                  "rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss")
"""The registers of struct pt_regs, in its order (arch/x86/include/asm/ptrace.h); drgn's names."""
_ARM64_REGISTERS = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
"""The registers of struct user_pt_regs (arch/arm64/include/uapi/asm/ptrace.h), with which struct pt_regs begins."""
_MOST_RESTARTS = 8
"""Callers that are put in: one for each interrupt that a stack holds."""
_OTHER_NAMES = {"rflags": "eflags"}
"""As a core file's notes (struct user_regs_struct) spell them."""


def _returning(frames: list[Frame]) -> list[Frame]:
    """Put back the return address of a frame at which `_caller_of_nowhere` began, one byte before it."""
    pc = frames[0].pc
    return [replace(frame, pc=pc + 1, offset=None if frame.offset is None else frame.offset + 1, interrupted=False)
            if frame.interrupted and frame.pc == pc else frame for frame in frames]


def _believed(frames: list[Frame]) -> Stack:
    """Cut a stack where it leaves known code for good: what follows is a guess of the unwinder's.

    The innermost frame may be anywhere (a jump to nowhere), code that has no symbol (a BPF program, a
    kprobe's copy) stands between known frames, and user space follows upon known code only.
    """
    known = max((number for number, frame in enumerate(frames) if frame.symbol or frame.module), default=0)
    end = known + 1
    if end < len(frames) and frames[end].user and (frames[known].symbol or frames[known].module):
        end += 1
    if end < len(frames):
        return Stack(tuple(frames[:end]), f"it cannot be followed beyond {frames[end - 1]}: no code is known at "
                                          f"{frames[end].pc:#x}, which would be its caller")
    return Stack(tuple(frames), f"cut after {_MOST_FRAMES} frames" if len(frames) >= _MOST_FRAMES else "")


def registers_of(frame: drgn.StackFrame) -> dict[str, int]:
    """Return a frame's registers by drgn's names, each once; on AArch64 drgn keeps pc apart, and has x29 as fp too."""
    found: dict[str, int] = frame.registers()
    if "x30" in found:
        found = {name: value for name, value in found.items() if name not in ("fp", "lr")}
        found["pc"] = frame.pc
    return found


class Stacks:
    """Unwinds the tasks of one program."""

    def __init__(self, prog: drgn.Program, info: DebugInfo) -> None:
        self.prog = prog
        self.info = info
        self._known: dict[tuple[int, bool], Frame] = {}
        """Frames of the kernel by (pc, interrupted): thousands of tasks wait at some hundred places."""

    def of(self, task: drgn.Object) -> Stack:
        """Return the stack of a `struct task_struct *`; a damaged one ends where it can be followed no more."""
        try:
            return self.frames(self.trace(task))
        except READ_ERRORS as error:
            return Stack((), f"the stack cannot be unwound: {error}")

    def trace(self, task: drgn.Object) -> drgn.StackTrace:
        """Return drgn's trace of a task."""
        return self.prog.stack_trace(task)

    def walk(self, trace: drgn.StackTrace) -> list[drgn.StackFrame]:
        """Return drgn's frames of a trace, with the callers that it cannot know of.

        After a jump to an address without code it goes on with the caller; on AArch64 a function that was interrupted
        without a frame of its own is followed by its caller too.
        """
        return self._walk(trace)[0]

    def _walk(self, trace: drgn.StackTrace) -> tuple[list[drgn.StackFrame], list[int]]:
        """Return the frames, and the places of those at which drgn was started anew."""
        frames, restarts = list(trace)[:_MOST_FRAMES], list[int]()
        for _ in range(_MOST_RESTARTS):
            found = self._unknown_caller(frames, restarts[-1] if restarts else -1)
            if found is None:
                break
            place, caller = found
            frames[place:] = list(caller)[: _MOST_FRAMES - place]
            restarts.append(place)
        return frames, restarts

    def _unknown_caller(self, frames: list[drgn.StackFrame], after: int) -> tuple[int, drgn.StackTrace] | None:
        """Return the place of the first frame that has to be put in, and the trace from there on."""
        if after < 0 and frames and not self.has_code(frames[0].pc):
            caller = self._caller_of_nowhere(frames[0])
            return (1, caller) if caller is not None else None
        if not self._is_arm64:
            return None
        for place, frame in enumerate(frames):
            if place > after and frame.interrupted and not frame.is_inline and frame.pc >= _KERNEL_HALF:
                caller = self._caller_of_leaf(frame, next((each.pc for each in frames[place + 1:]), 0))
                if caller is not None:
                    return place + 1, caller
        return None

    def frames(self, trace: drgn.StackTrace) -> Stack:
        """Turn a trace into values, as `walk` follows it."""
        return self.walked(trace)[1]

    def walked(self, trace: drgn.StackTrace) -> tuple[list[drgn.StackFrame], Stack]:
        """Return the frames that `walk` gives, and the values that `frames` makes of them; these may be cut."""
        walked, restarts = self._walk(trace)
        frames = [self.frame(frame) for frame in walked]
        for place in restarts:
            frames[place:] = _returning(frames[place:])
        return walked, _believed(frames)

    def has_code(self, pc: int) -> bool:
        """Whether an address lies in the text of the kernel or of a module.

        Without types the modules are not known: then all of the area in which they lie counts.
        """
        if self.info.text is None or (self.info.types is None and pc >> 31 == 0x1FFFFFFFF):
            return True
        return pc in self.info.text

    def _caller_of_nowhere(self, frame: drgn.StackFrame) -> drgn.StackTrace | None:
        """A call pushed its return address and found no code: unwind from there."""
        try:
            registers = registers_of(frame)
            if self._is_arm64:
                return self._returned_to(registers, without_pac(registers["x30"]))
            sp = registers["rsp"]
            return_address = self.prog.read_u64(sp)
            if not self.has_code(return_address):
                return None
            return self.from_registers({**registers, "rip": return_address - 1, "rsp": sp + 8})
        except READ_ERRORS:
            return None

    def _caller_of_leaf(self, frame: drgn.StackFrame, beyond: int) -> drgn.StackTrace | None:
        """An interrupted function without a frame of its own: its caller's frame is the next in the chain."""
        try:
            registers = registers_of(frame)
            caller = unrecorded_caller(self.prog, registers, beyond)
            return None if caller is None else self._returned_to(registers, caller)
        except READ_ERRORS:
            return None

    def _returned_to(self, registers: Mapping[str, int], address: int) -> drgn.StackTrace | None:
        """Unwind from where X30 leads to; one byte before it, as the call and not its return is meant."""
        return self.from_registers({**registers, "pc": address - 1}) if self.has_code(address) else None

    @property
    def _is_arm64(self) -> bool:
        return self.prog.platform is not None and self.prog.platform.arch == drgn.Architecture.AARCH64

    def from_registers(self, registers: Mapping[str, int]) -> drgn.StackTrace:
        """Unwind from a set of registers, with drgn's names; needs no types."""
        names = _ARM64_REGISTERS if self._is_arm64 else _X86_REGISTERS
        words = [registers.get(name, registers.get(_OTHER_NAMES.get(name, ""), 0)) for name in names]
        data = b"".join(word.to_bytes(8, "little") for word in words)
        number = self.prog.int_type("unsigned long", 8, False)
        made = self.prog.struct_type("pt_regs", len(data), [
            drgn.TypeMember(number, name, 64 * place) for place, name in enumerate(names)])
        return self.prog.stack_trace(drgn.Object.from_bytes_(self.prog, made, data))

    def frame(self, frame: drgn.StackFrame) -> Frame:
        """Turn one of drgn's frames into a value."""
        try:
            pc = frame.pc
        except LookupError:
            return Frame(0, None, None, None)
        if self.info.dwarf:         # several frames, of inlined functions, may have one address
            return self._frame(frame, pc)
        interrupted = frame.interrupted
        known = self._known.get((pc, interrupted))
        if known is None:
            known = self._frame(frame, pc)
            if len(self._known) < _MOST_KNOWN:
                self._known[pc, interrupted] = known
        return known

    def _frame(self, frame: drgn.StackFrame, pc: int) -> Frame:
        if pc < _KERNEL_HALF and pc != 0:
            return Frame(pc, None, None, None, interrupted=frame.interrupted, user=self._is_user(pc))
        name, offset, source = None, None, None
        try:
            symbol = frame.symbol()
            name, offset = symbol.name, pc - symbol.address
        except LookupError:
            pass
        if frame.is_inline or (name is None and frame.function_name):
            name, offset = frame.function_name, None
        if self.info.dwarf:
            try:
                place = frame.source()
                source = f"{place.filename}:{place.line}" if place.filename else None
            except LookupError:
                pass
        module = self.info.module_symbols.module_at(pc) if self.info.module_symbols else None
        return Frame(pc, name, offset, module, source, frame.is_inline, frame.interrupted)

    @staticmethod
    def _is_user(pc: int) -> bool:
        return 0x1000 <= pc < 1 << 47
