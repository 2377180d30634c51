"""The code around the fault and around the culprit's call, and the registers of that moment in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import memory, operands
from kdumpy.diagnosis.crashed.assembly import in_hex
from kdumpy.diagnosis.details.model import Code, CodeLine, Register
from kdumpy.diagnosis.model import Diagnosis, FrameFacts
from kdumpy.kernel import Kernel

BEFORE, AFTER = 40, 14
"""Instructions that are shown around the marked one; a short function is shown whole."""
WHOLE = 80
MOST_BLOCKS = 3
_LARGEST = 1 << 16
"""Bytes of a function that is disassembled."""
_POINTLESS = frozenset({"cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "fsbase", "gsbase", "orig_rax",
                        "orig_ax", "rflags", "eflags", "flags", "pstate", "fs.base", "gs.base"})
"""Registers that hold no pointer."""
_PLAIN = {memory.Meaning.SMALL: "{0}", memory.Meaning.ERROR: "{1}, or an error code",
          memory.Meaning.USER: "a number, or an address of a process", memory.Meaning.NON_CANONICAL: "no address",
          memory.Meaning.STRAY: "a number"}
"""Words for what a register that did no harm may hold; the first is its value, the second the same as a signed one."""


def read(kernel: Kernel, diagnosis: Diagnosis, missing: dict[str, str]) -> tuple[Code, ...]:
    """Return the code of the faulting frame and of the culprit's; empty, with the reason, where there is none."""
    panic = diagnosis.panic
    fault = panic.instruction_address if panic else None
    wanted = [number for number, frame in enumerate(diagnosis.trace)
              if frame.pc and frame.offset is not None and not frame.inline and (frame.culprit or frame.pc == fault)]
    if not wanted:
        return ()
    found = []
    for number in dict.fromkeys(wanted[:MOST_BLOCKS]):
        frame = diagnosis.trace[number]
        try:
            block = _block(kernel, diagnosis, number, frame, frame.pc == fault)
        except (ImportError, *READ_ERRORS) as error:
            missing["code"] = f"{frame.symbol} cannot be disassembled: {error}"
            continue
        if block is not None:
            found.append(block)
    return tuple(found)


def _block(kernel: Kernel, diagnosis: Diagnosis, number: int, frame: FrameFacts, fault: bool) -> Code | None:
    symbol = kernel.prog.symbol(frame.pc if fault else frame.pc - 1)
    size = min(symbol.size or frame.pc - symbol.address + 64, _LARGEST)
    begin = symbol.address
    if not 0 <= frame.pc - begin <= size:
        return None
    whole = list(_instructions(kernel, begin, size, diagnosis.system.machine or "x86_64"))
    place = next((index for index, item in enumerate(whole) if item.address == frame.pc
                  or (not fault and item.address + item.size == frame.pc)), None)
    if place is None:
        return None
    while len(whole) > place + 1 and whole[-1].mnemonic in ("nop", "int3", "udf"):
        whole.pop()
    first, last = (0, len(whole)) if len(whole) <= WHOLE else (max(0, place - BEFORE), place + AFTER + 1)
    note = _note(kernel, diagnosis, frame.pc) if fault else _call_note(diagnosis.trace, number)
    lines = tuple(CodeLine(item.address, item.address - begin, bytes(item.bytes).hex(" "),
                           f"{item.mnemonic} {in_hex(item.op_str)}".strip(), _target(kernel, item), index == place,
                           note if index == place else "")
                  for index, item in enumerate(whole) if first <= index < last)
    return Code(number, symbol.name, frame.module, lines, first, max(0, len(whole) - last), fault)


def _call_note(trace: Sequence[FrameFacts], number: int) -> str:
    """Say where a call went that has not returned."""
    callee = trace[number - 1] if number else None
    if callee is not None and callee.symbol is None:
        return f"went to {callee.pc:#x}, where no code is"
    return "this call had not returned"


def _instructions(kernel: Kernel, begin: int, size: int, machine: str) -> Iterator[Any]:
    import capstone  # type: ignore[import-untyped]

    kinds = {"x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64), "aarch64": (capstone.CS_ARCH_ARM64, 0)}
    if machine not in kinds:
        raise LookupError(f"code of {machine} cannot be read")
    engine = capstone.Cs(*kinds[machine])
    if machine == "x86_64":
        engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    engine.skipdata = True
    yield from engine.disasm(kernel.prog.read(begin, size), begin)


def _target(kernel: Kernel, item: Any) -> str:
    """Name where a direct call or jump out of the function goes, and what a RIP-relative operand is."""
    direct = re.search(r"(?:^|, )#?(0x[0-9a-f]+)$", item.op_str)
    if direct and item.mnemonic.startswith(("call", "j", "b", "cb", "tb")):
        return memory.symbol_at(kernel.prog, int(direct[1], 16))
    relative = re.search(r"(-?0x[0-9a-f]+)\(%rip\)", item.op_str)
    if relative:
        return memory.symbol_at(kernel.prog, (item.address + item.size + int(relative[1], 16)) % (1 << 64))
    return ""


def _note(kernel: Kernel, diagnosis: Diagnosis, pc: int) -> str:
    """Say what the operands of the faulting instruction were."""
    registers = diagnosis.panic.registers if diagnosis.panic else {}
    found = operands.decode(lambda address, size: _read(kernel, address, size), pc, registers,
                            diagnosis.system.machine or "x86_64")
    notes = []
    for operand in found.operands if found else ():
        via = ", ".join(f"{name} = {value:#x}" for name, value in ((operand.base, operand.base_value),
                                                                   (operand.index, operand.index_value))
                        if name and value is not None)
        notes.append(f"{operand.access} {operand.size} byte{'s' if operand.size > 1 else ''} at {operand.address:#x}"
                     + (f", with {via}" if via and operand.base != "rip" else ""))
    if found and found.target and found.target in registers:
        notes.append(f"went to {registers[found.target]:#x}")
    if not notes and found:
        named = {name: registers[name] for word in re.findall(r"%(\w+)", found.text)
                 if (name := whole_register(word)) in registers}
        notes = ["with " + ", ".join(f"{name} = {value:#x}" for name, value in named.items())] if named else []
    return "; ".join(notes) or "the kernel stopped here"


def whole_register(name: str) -> str:
    """Return the 64-bit register of which one is a part: `eax` -> `rax`, `w3` -> `x3`."""
    if name[0] in "xw" and name[1:].isdigit():
        return f"x{name[1:]}"
    if name[0] == "r":
        return name.rstrip("dwb") if name[1:2].isdigit() else name
    if name[0] == "e":
        return f"r{name[1:]}"
    return f"r{name[0]}x" if name[1:2] in ("x", "l", "h") and name[0] in "abcd" else f"r{name[:2]}"


def _read(kernel: Kernel, address: int, size: int) -> bytes:
    try:
        return bytes(kernel.prog.read(address, size))
    except READ_ERRORS as error:
        raise LookupError(str(error)) from None


def registers(kernel: Kernel, diagnosis: Diagnosis) -> tuple[Register, ...]:
    """Return the registers at the fault, each with what its value is."""
    held = diagnosis.panic.registers if diagnosis.panic else {}
    task = diagnosis.panic.task if diagnosis.panic else None
    found, levels = [], memory.page_levels(kernel)
    for name, value in held.items():
        if name in _POINTLESS:
            found.append(Register(name, value, "", ""))
            continue
        meant = memory.meaning(value, levels)
        kind = memory.Meaning.SMALL if meant.meaning == memory.Meaning.NULL and value else meant.meaning
        if kind == memory.Meaning.KERNEL:
            words = _kernel_words(kernel, value, task.address if task else 0)
        elif kind in _PLAIN:
            words = _PLAIN[kind].format(value, value - (1 << 64))
        else:
            words = meant.words.removeprefix(f"{value:#x}: ")
        found.append(Register(name, value, words, kind.value))
    return tuple(found)


def _kernel_words(kernel: Kernel, value: int, task: int) -> str:
    """Name what lies at an address of the kernel: this task's stack, a symbol, an object."""
    try:
        begin = kernel.task_object(task).stack.value_() if task else 0
        if begin and begin <= value < begin + kernel.stack_size:
            return f"this task's stack, {begin + kernel.stack_size - value:#x} from its top"
    except READ_ERRORS:
        pass
    return memory.describe(kernel.prog, value)
