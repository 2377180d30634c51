"""Where the values in the registers came from: a function's code, followed along every path to an instruction.

Each register is given the value that it has on all paths (`values`); where paths differ, it is known as what it
held there (`Met`), and it has none where an instruction is not understood: what is said here is so whichever way the
code was run. Only
calls that break the ABI, and code that jumps back into its caller's middle, could make it wrong.

Source: System V ABI for x86-64, which registers a call preserves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kdumpy.diagnosis.crashed.assembly import REGISTERS, Immediate, Line, Memory, Operand, Register, lines
from kdumpy.diagnosis.crashed.blocks import NameOf, blocks_of, has_table, reaching
from kdumpy.diagnosis.crashed.values import (
    Argument,
    Constant,
    Loaded,
    Met,
    PerCpu,
    Plus,
    Returned,
    Value,
    apart,
    made,
    plus,
    rooted,
)

PRESERVED = frozenset({"rbx", "rbp", "rsp", "r12", "r13", "r14", "r15"})
LARGEST = 1 << 14
"""Bytes of code that are followed; a longer function is not (its data-flow would take too long)."""
_MOST_ROUNDS = 12
_NOTHING = ("cmp", "test", "nop", "ud", "endbr", "prefetch", "pause", "lfence", "mfence", "sfence", "clac", "stac",
            "cli", "sti", "int3", "wbinvd", "verw", "cld", "fnop", "clflush", "invlpg", "ucomis", "comis")
_NOT_NOTHING = ("cmpxchg", "cmps")
_READ_ONLY = frozenset({"btw", "btl", "btq", "bt"})
"""bts, btr and btc write; these do not."""
_ONE_TARGET = (
    "mov", "lea", "add", "sub", "and", "or", "xor", "shl", "shr", "sar", "sal", "rol", "ror", "inc", "dec", "neg",
    "not", "cmov", "set", "bsf", "bsr", "popcnt", "tzcnt", "lzcnt", "adc", "sbb", "bswap", "bts", "btr", "btc", "crc32",
    "rdrand", "rdseed", "rdpid", "bzhi", "rorx", "pext", "pdep", "bls", "rdfsbase", "rdgsbase")
_ACCUMULATORS = ("mul", "div", "idiv", "cqto", "cqo", "cltd", "cdq", "cwtd", "rdtsc", "rdmsr", "cpuid", "xgetbv",
                 "rdpmc", "cltq", "cwtl", "cbtw", "cdqe", "cwde", "lods", "inb", "inw", "inl")
_STRINGS = ("movs", "stos", "cmps", "scas", "lods", "ins", "outs")
Read = Callable[[int, int], bytes]
PartAt = Callable[[int], tuple[int, int] | None]


@dataclass(slots=True)
class State:
    """What is known before an instruction."""

    registers: dict[str, Value] = field(default_factory=dict)
    stack: dict[int, Value] = field(default_factory=dict)
    """What was saved on the stack, by the offset from the stack pointer at the function's begin, in bytes."""
    escaped: int | None = None
    """The lowest such offset whose address was handed on: from there on others may write."""

    def copy(self) -> State:
        """Return one that can be changed."""
        return State(dict(self.registers), dict(self.stack), self.escaped)

    def join(self, other: State, pc: int) -> bool:
        """Keep what both know, at `pc` where their paths meet; whether that changed this one."""
        changed = _meet(self.registers, other.registers, pc) | _keep_equal(self.stack, other.stack)
        if other.escaped is not None and (self.escaped is None or other.escaped < self.escaped):
            self.escaped, changed = other.escaped, True
        return changed


def _meet(mine: dict[str, Value], theirs: dict[str, Value], pc: int) -> bool:
    """Call what differs by the place where paths meet, and drop what one does not know; whether anything changed.

    A path that comes here for the first time cannot bring a `Met` of this place. So what holds one of an earlier
    turn differs from what that path brings, and is not taken for this turn's.
    """
    changed = False
    for register, value in list(mine.items()):
        other = theirs.get(register)
        if other == value:
            continue
        added = rooted(value)[1]
        met = Met(register, pc, added if other is not None and rooted(other)[1] == added else 0)
        if value == met and other is not None:
            continue
        changed = True
        # The stack pointer is only of use where its distance from the function's begin is known.
        if other is None or register == "rsp":
            del mine[register]
        else:
            mine[register] = met
    return changed


def _keep_equal(mine: dict[int, Value], theirs: dict[int, Value]) -> bool:
    """Drop what the other does not know, or knows otherwise; whether that dropped anything."""
    differing = [key for key, value in mine.items() if theirs.get(key) != value]
    for key in differing:
        del mine[key]
    return bool(differing)


def at_entry() -> State:
    """Return the state at a function's begin."""
    return State({name: Argument(name) for name in REGISTERS})


def trace(read: Read, begin: int, end: int, pc: int, name_of: NameOf = lambda address: "",
          beside: Mapping[int, int] | None = None, part_at: PartAt = lambda address: None) -> State:
    """Return what is known before the instruction at `pc`; nothing is where that cannot be told.

    Args:
        read: reads the kernel's memory.
        begin: where the function begins.
        end: where it ends.
        pc: the instruction.
        name_of: names functions, to know those that never return.
        beside: further parts of the function (its `.cold` one), from begin to end.
        part_at: gives (begin, end) of the part of the function to which it jumps.
    """
    parts = {begin: end, **(beside or {})}
    code: dict[int, Line] = {}
    work, total = list(parts.items()), 0
    while work:
        start, stop = work.pop()
        total += stop - start
        if total > LARGEST:
            return State()
        try:
            found = list(lines(read(start, stop - start), start))
        except (LookupError, ValueError):
            return State()
        code.update((item.address, item) for item in found)
        for item in found:
            inside = item.target is None or any(low <= item.target < high for low, high in parts.items())
            part = None if inside or item.name.startswith("call") else part_at(item.target or 0)
            if part is not None:
                parts[part[0]] = part[1]
                work.append(part)
    if pc not in code or begin not in code or has_table(code):
        return State()
    return _solve(code, begin, pc, name_of)


def _solve(code: dict[int, Line], begin: int, pc: int, name_of: NameOf) -> State:
    blocks = blocks_of(code, begin, pc, name_of)
    wanted = reaching(blocks, next(start for start, block in blocks.items() if block.holds(pc)))
    states: dict[int, State] = {begin: at_entry()}
    rounds: dict[int, int] = {}
    work = [begin]
    while work:
        start = work.pop()
        if start not in wanted:
            continue
        rounds[start] = rounds.get(start, 0) + 1
        if rounds[start] > _MOST_ROUNDS:
            return State()
        state = states[start].copy()
        for item in blocks[start].lines:
            step(state, item)
        for following in blocks[start].after:
            if following not in states:
                states[following] = state.copy()
                work.append(following)
            elif states[following].join(state, following):
                work.append(following)
    for start, block in blocks.items():
        if block.holds(pc):
            if start not in states:
                return State()
            state = states[start].copy()
            for item in block.lines:
                if item.address == pc:
                    return state
                step(state, item)
    return State()


def address_of(state: State, item: Line, place: Memory) -> tuple[Value | None, int]:
    """Return (address, scale) of a place in memory: the address without its index, None where unknown."""
    if place.base == "rip":
        base: Value | None = Constant(item.address + item.size + place.displacement)
    elif place.base:
        base = plus(state.registers.get(place.base), place.displacement)
    else:
        base = Constant(place.displacement % (1 << 64))
    if not place.index:
        return base, 0
    if place.base and place.scale == 1 and base is None:
        return None, 0
    return base, place.scale


def _load(state: State, item: Line, place: Memory, size: int) -> Value | None:
    base, scale = address_of(state, item, place)
    if base is None:
        return None
    if place.segment == "gs":
        return PerCpu(base.number, size) if isinstance(base, Constant) and not scale else None
    if place.segment:
        return None
    start, offset = apart(base)
    if start == Argument("rsp"):
        return state.stack.get(offset) if not scale and size == 8 else None
    index = made([state.registers.get(place.index)], item.address) if scale else None
    if isinstance(start, Constant):
        return Loaded(start, 0, size, scale, item.address, index)
    return Loaded(start, offset, size, scale, item.address, index)


def _store(state: State, item: Line, place: Memory, value: Value | None, size: int) -> None:
    if place.segment:
        return
    base, scale = address_of(state, item, place)
    start, offset = apart(base) if base is not None else (None, 0)
    if start != Argument("rsp"):
        if start is None or not isinstance(start, Constant):
            _others_write(state)
        return
    if scale:
        for key in [key for key in state.stack if key >= offset]:
            del state.stack[key]
        return
    for key in range(offset - 7, offset + max(size, 1)):
        state.stack.pop(key, None)
    if value is not None and size == 8:
        state.stack[offset] = value


def _others_write(state: State) -> None:
    """A function that was called, or a store through a pointer, may have written where it had the address of."""
    if state.escaped is not None:
        for key in [key for key in state.stack if key >= state.escaped]:
            del state.stack[key]


def _set(state: State, place: Register, value: Value | None) -> None:
    if value is None or place.size < 4:
        state.registers.pop(place.name, None)
        return
    start, offset = apart(value)
    if start == Argument("rsp") and place.name not in ("rsp", "rbp"):
        state.escaped = min(offset, state.escaped if state.escaped is not None else offset)
    state.registers[place.name] = value


def step(state: State, item: Line) -> None:
    """Change the state as an instruction does."""
    name, operands = item.name, item.operands
    if name.startswith("call"):
        _call(state, item)
    elif name.startswith("push"):
        _push(state, item)
    elif name.startswith("pop") and not name.startswith("popc"):
        top = state.registers.get("rsp")
        value = state.stack.pop(top_offset, None) if (top_offset := _stack_offset(top)) is not None else None
        if operands and isinstance(operands[0], Register):
            _set(state, operands[0], value)
        _move_stack(state, 8)
    elif name.startswith("leave"):
        frame = state.registers.get("rbp")
        offset = _stack_offset(frame)
        state.registers.pop("rbp", None)
        state.registers.pop("rsp", None)
        if frame is not None and offset is not None:
            state.registers["rsp"] = Plus(Argument("rsp"), offset + 8) if offset + 8 else Argument("rsp")
            if offset in state.stack:
                state.registers["rbp"] = state.stack[offset]
    elif name[0] == "j" or name in _READ_ONLY or (name.startswith(_NOTHING) and not name.startswith(_NOT_NOTHING)):
        return
    else:
        _compute(state, item)


def _stack_offset(value: Value | None) -> int | None:
    if value is None:
        return None
    start, offset = apart(value)
    return offset if start == Argument("rsp") else None


def _move_stack(state: State, size: int) -> None:
    top = plus(state.registers.get("rsp"), size)
    if top is None:
        state.registers.pop("rsp", None)
    else:
        state.registers["rsp"] = top


def _push(state: State, item: Line) -> None:
    source = item.operands[0] if item.operands else None
    value = _value(state, item, source, 8)
    _move_stack(state, -8)
    offset = _stack_offset(state.registers.get("rsp"))
    if offset is not None:
        state.stack.pop(offset, None)
        if value is not None:
            state.stack[offset] = value


def _call(state: State, item: Line) -> None:
    for register in REGISTERS - PRESERVED:
        state.registers.pop(register, None)
    _others_write(state)
    state.registers["rax"] = Returned(item.address, item.target or 0)


def _value(state: State, item: Line, source: Operand, size: int) -> Value | None:
    if isinstance(source, Immediate):
        return Constant(source.number)
    if isinstance(source, Register):
        return state.registers.get(source.name) if source.size == 8 else None
    if isinstance(source, Memory):
        return _load(state, item, source, size)
    return None


_SUFFIXES = {"b": 1, "w": 2, "l": 4, "q": 8}


def _source_size(name: str, target: Operand) -> int:
    """Bytes that a move reads: movzbl reads one, movslq four; a vector's, at most 64."""
    if name.startswith(("movz", "movs")) and len(name) >= 6:
        return _SUFFIXES.get(name[4], 8)
    if isinstance(target, Register):
        return target.size
    return _SUFFIXES.get(name[-1], 8) if target is not None else 64


def _compute(state: State, item: Line) -> None:
    name, operands = item.name, item.operands
    if item.prefix.startswith("rep") or (name.startswith(_STRINGS) and not operands_are_move(item)):
        for register in ("rcx", "rdi", "rsi", "rax"):
            state.registers.pop(register, None)
        _others_write(state)
        return
    target = operands[-1] if operands else None
    if name.startswith(("xchg", "xadd", "cmpxchg")):
        for place in operands:
            _forget(state, item, place)
        if name.startswith("cmpxchg"):
            for register in ("rax", "rdx"):
                state.registers.pop(register, None)
        return
    if name.startswith(_ACCUMULATORS) or (name.startswith("imul") and len(operands) == 1):
        for register in ("rax", "rdx") + (("rbx", "rcx") if name.startswith(("cpuid", "rdtscp")) else ()):
            state.registers.pop(register, None)
        return
    if name.startswith("imul") or name.startswith(_ONE_TARGET):
        value = _result(state, item, target)
        if isinstance(target, Register):
            _set(state, target, value)
        elif isinstance(target, Memory):
            _store(state, item, target, value, _source_size(name, operands[0]))
        return
    if all(place is None or isinstance(place, Immediate) for place in operands) and operands:
        return                              # vector registers among themselves
    state.registers = {key: value for key, value in state.registers.items() if key == "rsp"}
    state.stack.clear()


def operands_are_move(item: Line) -> bool:
    """Whether `movs...` is a sign-extending move and not a string instruction."""
    return item.name.startswith("movs") and isinstance(item.operands[-1] if item.operands else None, Register)


def _forget(state: State, item: Line, place: Operand) -> None:
    if isinstance(place, Register):
        state.registers.pop(place.name, None)
    elif isinstance(place, Memory):
        _store(state, item, place, None, 8)


def _result(state: State, item: Line, target: Operand) -> Value | None:
    """Return what an instruction with one target leaves in it."""
    name, source = item.name, item.operands[0]
    wide = isinstance(target, Register) and target.size == 8
    if name.startswith("mov"):
        size = _source_size(name, target if isinstance(target, Register) else source)
        value = _value(state, item, source, size)
        if isinstance(source, Register) and not (isinstance(target, Memory) or wide):
            return made([state.registers.get(source.name)], item.address)
        return value
    if name.startswith("lea") and isinstance(source, Memory):
        base, scale = address_of(state, item, source)
        if wide and not scale:
            return base
        return made([base, state.registers.get(source.index)], item.address)
    if name.startswith(("add", "sub")) and wide and isinstance(source, Immediate) and isinstance(target, Register):
        number = source.number - (1 << 64) if source.number >> 63 else source.number
        return plus(state.registers.get(target.name), number if name.startswith("add") else -number)
    if name.startswith(("inc", "dec")) and wide and isinstance(target, Register):
        return plus(state.registers.get(target.name), 1 if name.startswith("inc") else -1)
    if name.startswith("xor") and source == target:
        return Constant(0)
    return made((_part(state, item, place) for place in item.operands), item.address) \
        if not name.startswith("set") else None


def _part(state: State, item: Line, place: Operand) -> Value | None:
    """Return what an operand adds to a computed value."""
    if isinstance(place, Register):
        return state.registers.get(place.name)
    return _load(state, item, place, _SUFFIXES.get(item.name[-1], 8)) if isinstance(place, Memory) else None
