"""Who holds a lock whose word does not name its holder, found by the code of what is on the stacks.

Asked are the tasks that could be meant: those that wait, and those that run code of the same module. None
found does not mean that nobody holds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed.following import Follower
from kdumpy.diagnosis.crashed.held import FAMILIES, Family, Held
from kdumpy.diagnosis.crashed.values import Argument, Value, apart
from kdumpy.diagnosis.crashed.waysout import WayOut, WaysOut
from kdumpy.kernel import Kernel, Task
from kdumpy.kernel.values import Frame

_MOST_MODULES = 32
_MOST_STACKS = 512
"""Tasks whose stacks are looked at for a module's code."""


class Holders:
    """Finds the holders of locks in one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._held = Held(kernel, self.read)
        self.ways_out = WaysOut(kernel, self._held, self.read)
        """Finds the functions that return with a lock."""
        self._taken: dict[tuple[int, Family], dict[int, Frame]] = {}
        """What the code on a task's stack has taken, by (task, kind); a task is asked for many locks."""
        self._given: dict[tuple[int, Family], dict[int, tuple[Frame, bool]]] = {}
        """And what it gives when it goes on."""

    def read(self, address: int, size: int) -> bytes:
        """Read memory.

        Raises:
            LookupError: it is not in the dump.
        """
        try:
            return bytes(self.kernel.prog.read(address, size))
        except (drgn.FaultError, OverflowError) as error:
            raise LookupError(str(error)) from None

    def walk(self, task: Task) -> list[drgn.StackFrame]:
        """Return drgn's frames of a task, which know its registers."""
        stacks = self.kernel.stacks
        return stacks.walk(stacks.trace(self.kernel.task_object(task.address)))

    def taken_in(self, task: Task, frames: Sequence[Frame], lock: int, family: Family) -> Frame | None:
        """Return the frame of a task's stack whose function took a lock and has it still; x86-64 only."""
        if self.kernel.system.machine != "x86_64":
            return None
        key = (task.address, family)
        if key not in self._taken:
            found: dict[int, Frame] = {}
            with contextlib.suppress(*READ_ERRORS):
                for held, frame in self._held.taken(frames, [frame.registers() for frame in self.walk(task)], family):
                    found.setdefault(held, frame)
            self._taken[key] = found
        return self._taken[key].get(lock)

    def gives_in(self, task: Task, frames: Sequence[Frame], address: int, family: Family, *,
                 once: bool = False) -> Frame | None:
        """Return the frame of a task's stack whose function gives something when it goes on; x86-64 only.

        Args:
            task: whose stack it is.
            frames: that stack.
            address: of what is given.
            family: its kind.
            once: only where the function does not come back to where it is, as a loop that serves does.
        """
        if self.kernel.system.machine != "x86_64":
            return None
        key = (task.address, family)
        if key not in self._given:
            found: dict[int, tuple[Frame, bool]] = {}
            with contextlib.suppress(*READ_ERRORS):
                for given, frame, straight in self._held.to_give(frames, [frame.registers()
                                                                          for frame in self.walk(task)], family):
                    found.setdefault(given, (frame, straight))
            self._given[key] = found
        known = self._given[key].get(address)
        return known[0] if known is not None and (known[1] or not once) else None

    def within(self, frames: Sequence[Frame], family: Family) -> Frame | None:
        """Return the innermost frame that is in a section of a kind, as that of a reader of RCU; x86-64 only."""
        if self.kernel.system.machine != "x86_64":
            return None
        with contextlib.suppress(*READ_ERRORS):
            return self._held.within(frames, family)
        return None

    def leavers(self, modules: Sequence[str], family: Family,
                is_locked: Callable[[int], bool] | None = None) -> list[Frame]:
        """Return the functions of modules that can return with something of a kind, and give it back on other ways.

        Args:
            modules: their names.
            family: the kind.
            is_locked: tells of an address whether a lock there is taken; where that of some functions is, only these
                are returned.
        """
        if self.kernel.system.machine != "x86_64":
            return []
        found: list[WayOut] = []
        with contextlib.suppress(*READ_ERRORS):
            for module in modules[:_MOST_MODULES]:
                found += [item for item in self.ways_out.of(module, family) if item.gives]
        known = [item for item in found if any(map(is_locked, item.locks))] if is_locked else []
        return [item.frame for item in known or found]

    def registers(self, task: Task, frames: Sequence[Frame]) -> list[dict[str, int]]:
        """Return what is known of the registers of each frame of a task's stack; empty where it cannot be unwound."""
        with contextlib.suppress(*READ_ERRORS):
            return list(self._held.registers_along(frames, [frame.registers() for frame in self.walk(task)]))
        return []

    def wanting(self, frames: Sequence[Frame], kind: str) -> Sequence[Frame]:
        """Return a stack from who wants a lock on: without a function of its module that only takes it for others."""
        if kind not in FAMILIES or self.kernel.system.machine != "x86_64":
            return frames
        with contextlib.suppress(*READ_ERRORS):
            return self._held.past_helper(frames, FAMILIES[kind])
        return frames

    def frame_bytes(self, frame: Frame) -> int:
        """Return how much of the stack a frame's function uses for itself, in bytes; 0 where its code does not tell."""
        if self.kernel.system.machine != "x86_64" or frame.inline or frame.user or frame.offset is None:
            return 0
        with contextlib.suppress(*READ_ERRORS):
            here = self._held.instruction(frame)
            value = self._held.values_at(Follower(self.kernel, self.read, (frame,), here, {})).get("rsp") \
                if here is not None else None
            base, offset = apart(value) if value is not None else (None, 0)
            return -offset if base == Argument("rsp") else 0
        return 0

    def passed(self, frame: Frame) -> Value | None:
        """Return the first argument of the call that a frame is in, as a value of its function; x86-64 only."""
        call = operands.decode_call(self.read, frame.pc, {})
        if call is None:
            return None
        return self._held.values_at(Follower(self.kernel, self.read, (frame,), call.address, {})).get("rdi")

    def off_cpu(self, lock: int, family: Family, waiting: Sequence[Frame],
                others: Sequence[tuple[Task, Sequence[Frame]]] = ()) -> tuple[Task, Frame, Sequence[Frame]] | None:
        """Return (task, the frame that took it, its stack) of a task that is off its CPU with a lock.

        Args:
            lock: the lock's address.
            family: its kind.
            waiting: the stack of one who waits for it, which names the module.
            others: further tasks to ask, and their stacks.
        """
        module = next((frame.module for frame in waiting if frame.module), None)
        for task, frames in (*others, *self.of_module(module)):
            frame = self.taken_in(task, frames, lock, family)
            if frame is not None:
                return task, frame, frames
        return None

    def of_module(self, module: str | None) -> Iterator[tuple[Task, tuple[Frame, ...]]]:
        """Yield the tasks off their CPUs that have code of a module on their stacks, and these; None: of any module."""
        for task, frames in self._stacks:
            if module is None or any(frame.module == module for frame in frames):
                yield task, frames

    @cached_property
    def _stacks(self) -> list[tuple[Task, tuple[Frame, ...]]]:
        """The stacks of tasks that are off their CPUs, where a module's code is on them."""
        found, looked_at = [], 0
        for task in self.kernel.tasks():
            if task.on_cpu:
                continue
            looked_at += 1
            if looked_at > _MOST_STACKS:
                break
            frames = self.kernel.stack(task).frames
            if any(frame.module for frame in frames):
                found.append((task, frames))
        return found
