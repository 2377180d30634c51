"""The locks that a function has taken, and not given back, when it is where its frame shows it.

By its code: a lock counts as held where a way leads from the call that takes it to the place of the frame
without a call that gives it back. So holders are found that no lock's word names: of spinlocks, of semaphores,
and the readers of a rwsem. In the same way it is told what a function gives back, or brings about, when it goes on:
what it has taken without a call (a bit), or what others wait for that nobody takes (a completion).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import drgn

from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed.assembly import Immediate, Line, Memory, lines
from kdumpy.diagnosis.crashed.dataflow import LARGEST, PRESERVED, State
from kdumpy.diagnosis.crashed.following import Follower, Function, function_at
from kdumpy.diagnosis.crashed.values import Argument, Constant, Loaded, Value, apart, plus
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame


class Family(NamedTuple):
    """The functions that take and give back a kind of lock; the lock is their first argument."""

    take: tuple[str, ...]
    """Beginnings of names."""
    give: tuple[str, ...]
    whole: bool = False
    """They are whole names."""

    def takes(self, name: str) -> bool:
        """Whether a function takes such a lock."""
        return (name in self.take if self.whole else name.startswith(self.take)) and "trylock" not in name

    def gives(self, name: str) -> bool:
        """Whether a function gives one back."""
        return name in self.give if self.whole else name.startswith(self.give)


SPIN = Family(("_raw_spin_lock", "_raw_read_lock", "_raw_write_lock"),
              ("_raw_spin_unlock", "_raw_read_unlock", "_raw_write_unlock", "__raw_spin_unlock", "__raw_read_unlock",
               "__raw_write_unlock"))
RWSEM = Family(("down_read", "down_write"), ("up_read", "up_write"))
SEMAPHORE = Family(("down", "down_interruptible", "down_killable", "down_timeout"), ("up",), whole=True)
MUTEX = Family(("mutex_lock", "__mutex_lock", "ww_mutex_lock"), ("mutex_unlock", "__mutex_unlock", "ww_mutex_unlock"))
RT_MUTEX = Family(("rt_mutex_lock",), ("rt_mutex_unlock",))
SOCKET = Family(("lock_sock", "__lock_sock"), ("release_sock", "unlock_sock", "__release_sock"))
"""The lock that a process has of a socket (net/core/sock.c); the struct sock is the argument."""
RCU = Family(("__rcu_read_lock",), ("__rcu_read_unlock",))
SRCU = Family(("__srcu_read_lock",), ("__srcu_read_unlock",))
PERCPU_RWSEM = Family(("percpu_down_write", "__percpu_down_read"), ("percpu_up_write", "__percpu_up_read"))
"""Its readers' ways are inlined but for the slow ones."""
FREEZE = Family(("freeze_super", "freeze_bdev", "bdev_freeze"), ("thaw_super", "thaw_bdev", "bdev_thaw"), whole=True)
COMPLETION = Family((), ("complete", "complete_all", "complete_on_current_cpu", "kthread_complete_and_exit",
                         "complete_and_exit"), whole=True)
QUEUE = Family((), ("__wake_up", "__wake_up_sync", "__wake_up_sync_key", "__wake_up_locked"), whole=True)
PAGE = Family((), ("unlock_page", "folio_unlock", "end_page_writeback", "folio_end_writeback", "folio_end_read"),
              whole=True)
BIT = Family((), ("wake_up_bit", "wake_up_var", "unlock_buffer"), whole=True)
COUNTS = ("count up: ", "count down: ")
"""How `Code.calls` names the instructions of preempt_disable(), local_bh_disable() and their opposites."""
PREEMPTION = Family(("count up: preempt",), ("count down: preempt",))
SOFTIRQS = Family(("count up: softirq",), ("__local_bh_enable_ip", "count down: softirq"))
FAMILIES: Mapping[str, Family] = {"mutex": MUTEX, "rwsem": RWSEM, "semaphore": SEMAPHORE, "spinlock": SPIN,
                                  "rwlock": SPIN, "percpu rwsem": PERCPU_RWSEM, "rt_mutex": RT_MUTEX,
                                  "socket lock": SOCKET}
"""By the kind of lock."""
_LARGEST_HELPER = 1024
"""Bytes of a function that takes or gives a lock for its callers."""
_WORD = 1 << 64
_ENDS = ("ret", "iret", "hlt")


class Code(NamedTuple):
    """A function's instructions, and what it calls."""

    lines: Mapping[int, Line]
    calls: Mapping[int, str]
    """The names of the functions that are called, by the address of the call."""


class Held:
    """Asks the functions of stacks for the locks that they hold; what their code says is kept."""

    def __init__(self, kernel: Kernel, read: operands.Read) -> None:
        self.kernel = kernel
        self._read = read
        self._code: dict[int, Code] = {}
        self._callers: dict[int, int | None] = {}
        self._states: dict[int, State] = {}
        self._helpers: dict[tuple[int, Family, bool], tuple[Value, ...]] = {}

    def taken(self, frames: Sequence[Frame], unwound: Sequence[Mapping[str, int]],
              family: Family) -> Iterator[tuple[int, Frame]]:
        """Yield (lock, the frame whose function took it and has it still) of a stack, innermost first.

        Args:
            frames: innermost first.
            unwound: the registers of each, as far as the unwinder knows them.
            family: the kind of locks.
        """
        for number, frame, registers in self._framed(frames, unwound):
            for lock in self._of(frames[number:], registers, family):
                yield lock, frame

    def to_give(self, frames: Sequence[Frame], unwound: Sequence[Mapping[str, int]],
                family: Family) -> Iterator[tuple[int, Frame, bool]]:
        """Yield (address, the frame, whether it does so once) of what a stack's functions give when they go on.

        What gives again and again, in a loop that comes back to where it is, may wait there to be asked to.
        """
        for number, frame, registers in self._framed(frames, unwound):
            for address, once in self._ahead(frames[number:], registers, family):
                yield address, frame, once

    def within(self, frames: Sequence[Frame], family: Family) -> Frame | None:
        """Return the innermost frame whose function took something of a kind, whatever it is, and has it still."""
        for frame in frames:
            here = None if frame.inline or frame.offset is None or frame.user else self.instruction(frame)
            function = function_at(self.kernel.prog, here) if here is not None else None
            if here is None or function is None:
                continue
            code = self.code_of(function)
            back = {at for at, _ in self.gives(function, family)}
            if any(_leads(code.lines, at, here, back) for at, _ in self.takes(function, family) if at != here):
                return frame
        return None

    def takes(self, function: Function, family: Family, frames: Sequence[Frame] = ()) -> list[tuple[int, Value | None]]:
        """Return (address of the call, what is taken) of a function's code, also where a helper of its module does it.

        Args:
            function: whose code it is.
            family: the kind.
            frames: the frame that is in it, and its callers, where there is one.
        """
        return self._sites(function, family, frames, given=False)

    def gives(self, function: Function, family: Family, frames: Sequence[Frame] = ()) -> list[tuple[int, Value | None]]:
        """Return (address of the call, what is given) of a function's code, as `takes` does."""
        return self._sites(function, family, frames, given=True)

    def _sites(self, function: Function, family: Family, frames: Sequence[Frame], *,
               given: bool) -> list[tuple[int, Value | None]]:
        code, found = self.code_of(function), list[tuple[int, Value | None]]()
        for at, name in code.calls.items():
            if family.gives(name) if given else family.takes(name):
                counts = name.startswith(COUNTS)        # they have no argument
                found.append((at, None if counts else self._flow(frames, at, {}).values.get("rdi")))
            elif (target := code.lines[at].target) is not None:
                inside = self._helper(target, family, given=given)
                passed = self._flow(frames, at, {}).values if inside else {}
                found += [(at, substituted(value, passed)) for value in inside]
        return found

    def _helper(self, target: int, family: Family, *, given: bool) -> tuple[Value, ...]:
        """Return what a small function of a module takes and returns with, or gives that it had not taken."""
        key = (target, family, given)
        if key not in self._helpers:
            self._helpers[key] = ()             # of helpers that call each other
            self._helpers[key] = tuple(self._read_helper(target, family, given=given))
        return self._helpers[key]

    def _read_helper(self, target: int, family: Family, *, given: bool) -> Iterator[Value]:
        symbols = self.kernel.debuginfo.module_symbols
        function = function_at(self.kernel.prog, target) if symbols and symbols.module_at(target) else None
        if function is None or function.begin != target or function.end - target > _LARGEST_HELPER:
            return
        code = self.code_of(function)
        takes = {at for at, name in code.calls.items() if family.takes(name)}
        gives = {at for at, name in code.calls.items() if family.gives(name)}
        if not given and gives:
            return                              # it is no helper that only takes: where it returns with it, it is wrong
        for at in gives if given else takes:
            through = at == target or _leads(code.lines, target, at, takes) if given else \
                ways_out(code.lines, at, gives)
            value = self._flow((), at, {}).values.get("rdi") if through and target in code.lines else None
            if value is not None:
                yield value

    def past_helper(self, frames: Sequence[Frame], family: Family) -> Sequence[Frame]:
        """Cut off a function of a module that only takes a lock for its callers: who wants it is the caller."""
        at = next((number for number, frame in enumerate(frames) if frame.module and not frame.inline), None)
        if at is None or frames[at].interrupted or not any(
                frame.module == frames[at].module for frame in frames[at + 1:at + 2]):
            return frames
        here = self.instruction(frames[at])
        function = function_at(self.kernel.prog, here) if here is not None else None
        helps = function is not None and self._helper(function.begin, family, given=False)
        return frames[at + 1:] if helps else frames

    def _framed(self, frames: Sequence[Frame],
                unwound: Sequence[Mapping[str, int]]) -> Iterator[tuple[int, Frame, Mapping[str, int]]]:
        """Yield (number, frame, its registers) of the frames whose code can be asked."""
        known = self.registers_along(frames, unwound)
        for number, (frame, registers) in enumerate(zip(frames, known, strict=False)):
            if not (frame.inline or frame.offset is None or frame.user):
                yield number, frame, registers

    def _ahead(self, frames: Sequence[Frame], registers: Mapping[str, int],
               family: Family) -> Iterator[tuple[int, bool]]:
        """Yield (address, whether it does not come back here) of what the innermost of `frames` gives."""
        here = self.instruction(frames[0])
        function = function_at(self.kernel.prog, here) if here is not None else None
        if here is None or function is None:
            return
        code = self.code_of(function)
        gives = [(at, value) for at, value in self.gives(function, family, frames) if at != here]
        if here not in code.lines or not gives:
            return
        now = self._flow(frames, here, registers)
        for at, value in gives:
            number = now.number(value, ask_memory=True)
            if number is not None and _leads(code.lines, here, at, set()):
                yield number, not _leads(code.lines, at, here, set())

    def _of(self, frames: Sequence[Frame], registers: Mapping[str, int], family: Family) -> Iterator[int]:
        """Yield the addresses of the locks that the innermost of `frames` holds."""
        here = self.instruction(frames[0])
        function = function_at(self.kernel.prog, here) if here is not None else None
        if here is None or function is None:
            return
        code = self.code_of(function)
        takes = [(at, lock) for at, lock in self.takes(function, family, frames) if at != here]
        if not takes:
            return
        now = self._flow(frames, here, registers)
        gives = self.gives(function, family, frames)
        for call, lock in takes:
            back = {at for at, value in gives if value is None or value == lock}
            number = now.number(lock, ask_memory=True)
            if number is not None and _leads(code.lines, call, here, back):
                yield number

    def registers_along(self, frames: Sequence[Frame],
                         unwound: Sequence[Mapping[str, int]]) -> Iterator[dict[str, int]]:
        """Yield the registers of each frame: what the unwinder knows, and what the called function had saved of them.

        The kernel's unwind tables (ORC) tell of no register but the stack's and the frame's; a function that is
        called saves those that it must preserve, and its code says where.
        """
        saved: dict[str, int] = {}
        for number, (frame, known) in enumerate(zip(frames, unwound, strict=False)):
            registers = dict(known) if frame.interrupted else {**saved, **known}
            yield registers
            saved = {}
            here = self.instruction(frame) if frame.offset is not None and not frame.inline else None
            if here is not None and "rsp" in registers:
                entry = self._flow(frames[number:], here, registers).at_entry
                saved = {name: value for name, value in entry.items() if name in PRESERVED and name != "rsp"}

    def _flow(self, frames: Sequence[Frame], pc: int, registers: Mapping[str, int]) -> Follower:
        """Return the data-flow at an instruction; that of its code alone is followed once."""
        flow = Follower(self.kernel, self._read, frames, pc, registers)
        self.values_at(flow)
        return flow

    def values_at(self, flow: Follower) -> Mapping[str, Value]:
        """Return what the registers hold at the place of a data-flow; that of a place is followed once."""
        if flow.pc in self._states:
            vars(flow)["state"] = self._states[flow.pc]
        else:
            self._states[flow.pc] = flow.state
        return flow.values

    def instruction(self, frame: Frame) -> int | None:
        """Return the instruction in which a frame is: where it was interrupted, or the call that it made."""
        if frame.interrupted:
            return frame.pc
        if frame.pc not in self._callers:       # many tasks wait at the same place
            call = operands.decode_call(self._read, frame.pc, {})
            self._callers[frame.pc] = call.address if call else None
        return self._callers[frame.pc]

    def code_of(self, function: Function) -> Code:
        """Return a function's code, decoded once."""
        if function.begin not in self._code:
            found: list[Line] = []
            if function.end - function.begin <= LARGEST:
                with contextlib.suppress(LookupError, ValueError):
                    found = list(lines(self._read(function.begin, function.end - function.begin), function.begin))
            self._code[function.begin] = Code({item.address: item for item in found}, self._calls(found))
        return self._code[function.begin]

    @cached_property
    def _preempt_count(self) -> int:
        """Where a CPU has its count of what keeps preemption off, within its own memory; 0 where it is not found."""
        prog = self.kernel.prog
        with contextlib.suppress(LookupError):
            return int(prog.symbol("__preempt_count").address)
        with contextlib.suppress(LookupError):          # 6.2 to 6.14
            inside = drgn.offsetof(prog.type("struct pcpu_hot"), "preempt_count")
            return int(prog.symbol("pcpu_hot").address + inside)
        return 0

    def _counted(self, item: Line) -> str | None:
        """Name an instruction that counts that up or down, as if it were a call: preempt_disable() is inlined."""
        place = item.operands[-1] if item.operands else None
        if not isinstance(place, Memory) or place.segment != "gs" or place.base != "rip" or place.index \
                or not item.name.startswith(("add", "sub", "inc", "dec")) \
                or (item.address + item.size + place.displacement) % _WORD != self._preempt_count:
            return None
        by = item.operands[0].number if isinstance(item.operands[0], Immediate) else 1
        down = item.name.startswith(("sub", "dec")) or by >> 31 & 1
        return COUNTS[1 if down else 0] + ("softirq" if by & 0xFF00 and not by >> 31 & 1 else "preempt")

    def _calls(self, code: Sequence[Line]) -> dict[int, str]:
        found = {}
        inside = {item.address for item in code}
        for item in code:
            if (counted := self._counted(item)) is not None:
                found[item.address] = counted
            if item.target is None or item.target in inside or not item.name.startswith(("call", "jmp")):
                continue
            try:
                symbol = self.kernel.prog.symbol(item.target)
            except LookupError:
                continue
            if symbol.address == item.target:
                found[item.address] = str(symbol.name)
        return found


def substituted(value: Value, passed: Mapping[str, Value]) -> Value | None:
    """Return a value of a called function as one of its caller's: its arguments are what is passed."""
    base, offset = apart(value)
    if isinstance(base, Argument):
        return plus(passed.get(base.register), offset)
    if isinstance(base, Loaded):
        place = substituted(plus(base.base, base.offset) or base.base, passed)
        if place is None:
            return None
        start, inside = apart(place)
        return plus(Loaded(start, inside, base.size, base.scale, base.pc), offset)
    return value if isinstance(base, Constant) else None


def ways_out(code: Mapping[int, Line], begin: int, without: set[int], *, upto: int | None = None) -> bool:
    """Whether a way leads from an instruction out of its function, or to another instruction, past none of some.

    A jump out of the function (a tail call) to what gives back is among `without`; another one is a way out, too, but
    for the jump to its own cold part, which is not followed.
    """
    if upto is not None:
        return _leads(code, begin, upto, without)
    return any(_leads(code, begin, at, without) for at, item in code.items()
               if item.name.startswith("ret") and at not in without)


def _leads(code: Mapping[int, Line], begin: int, end: int, without: set[int]) -> bool:
    """Whether a way leads from one instruction to another one, past none of some."""
    work, seen = [begin], {begin}
    while work:
        item = code[work.pop()]
        following = []
        if not item.name.startswith((*_ENDS, "jmp")):
            following.append(item.address + item.size)
        if item.name[0] == "j" and item.target is not None:
            following.append(item.target)
        for address in following:
            if address == end:
                return True
            if address in code and address not in seen and address not in without:
                seen.add(address)
                work.append(address)
    return False
