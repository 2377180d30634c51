"""CPUs that wait for spinlocks: which lock, and who has it.

A spinlock's word says that it is taken, not by whom. Its holder runs on some CPU (a task that sleeps with a
spinlock is a bug, and looked for as well): the functions on that CPU's stack are asked, by their code, which
locks they took before the call that they are in and have not given back.

Source: include/asm-generic/qspinlock_types.h, qrwlock_types.h, kernel/locking/qspinlock.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.crashed.held import SPIN
from kdumpy.diagnosis.crashed.values import Argument
from kdumpy.diagnosis.memory import Meaning, meaning
from kdumpy.diagnosis.waits.holders import Holders
from kdumpy.diagnosis.waits.syncs import Sync, runner_of, syncing_at
from kdumpy.kernel import Kernel, Task
from kdumpy.kernel.values import Cpu, Frame

_SPIN = ("native_queued_spin_lock_slowpath", "queued_spin_lock_slowpath", "__pv_queued_spin_lock_slowpath",
         "_raw_spin_lock", "do_raw_spin_lock")
_RWLOCK = ("queued_read_lock_slowpath", "queued_write_lock_slowpath", "_raw_read_lock", "_raw_write_lock")
_NEVER = ("_raw_spin_trylock", "_raw_read_trylock", "_raw_write_trylock")
_CANDIDATES = ("rdi", "rbx", "rbp", "r12", "r13", "r14", "r15", "x19", "x20", "x0")
"""Registers that can hold the lock's address, the likeliest first."""
_POISONED = 0x6B6B
"""Of the word of a spinlock in a freed object, the lock and its pending bit: POISON_FREE, include/linux/poison.h."""


@dataclass(frozen=True)
class Holder:
    """Who has a lock."""

    cpu: Cpu | None
    """The CPU that has it; None where a task that sleeps has it."""
    task: Task | None
    frame: Frame
    """The function that took it."""
    frames: tuple[Frame, ...]
    """The stack, from what it does now."""


@dataclass(frozen=True)
class Spin:
    """A CPU that spins for a lock, or until something has ended that another one runs."""

    cpu: Cpu
    kind: str
    """spinlock, rwlock, or one of `syncs`."""
    address: int
    """Of the lock; 0 where it cannot be told."""
    name: str
    frames: tuple[Frame, ...]
    """Its stack, from the function that spins."""
    holder: Holder | None
    alone: bool
    """No other CPU runs anything that could hold the lock."""


def spinning_at(frames: Sequence[Frame]) -> int | None:
    """Return the number of the frame that spins for a lock; None where the stack shows none."""
    for number, frame in enumerate(frames):
        name = frame.function or ""
        if not frame.module and name.startswith((*_SPIN, *_RWLOCK)) and not name.startswith(_NEVER):
            # A rwlock has a spinlock of its own, for which those wait who come after a writer: it is the rwlock's wait.
            outer = frames[number + 1] if number + 1 < len(frames) else frame
            within = not outer.module and (outer.function or "").startswith(_RWLOCK) and name.startswith(_SPIN)
            return number + 1 if within else number
    return None


class Spins:
    """The CPUs of a kernel that spin; read when first asked for."""

    def __init__(self, kernel: Kernel, holders: Holders, name: Callable[[int], str]) -> None:
        """`name`: names what lies at an address."""
        self.kernel = kernel
        self.holders = holders
        self._name = name

    @cached_property
    def all(self) -> tuple[Spin, ...]:
        """Every CPU that spins."""
        at = [(cpu, spinning_at(cpu.stack.frames)) for cpu in self.kernel.cpus]
        busy = [cpu for cpu, number in at if number is not None]
        found = []
        for cpu, number in at:
            sync = syncing_at(cpu.stack.frames)
            if sync is not None and (number is None or sync.number < number):
                spin = self._sync(cpu, sync)
                found += [spin] if spin is not None else []
            elif number is not None:
                found.append(self._spin(cpu, number, busy))
        return tuple(found)

    def _sync(self, cpu: Cpu, sync: Sync) -> Spin | None:
        """Return what a CPU turns for that is no lock; None where nobody is found who has not come to its end."""
        words: set[int] = set()
        if cpu.task is not None:
            registers = self.holders.registers(cpu.task, cpu.stack.frames)
            # Those of the function that turns and of its caller: what interrupted it has timers of its own.
            words.update(value for known in registers[sync.number : sync.number + 2] for value in known.values())
        try:
            address, runner = runner_of(self.kernel, sync.kind, tuple(words), cpu, sync.number)
        except READ_ERRORS as error:
            self.kernel.problems[f"what CPU {cpu.number} waits for"] = str(error)
            return None
        if runner is None:
            return None
        holder = Holder(runner.cpu, runner.cpu.task, runner.frame, runner.frames)
        return Spin(cpu, sync.kind, address, self._name(address) if address else "", cpu.stack.frames[sync.number:],
                    holder, False)

    def of_cpu(self, number: int | None) -> Spin | None:
        """Return what a CPU spins for."""
        return next((spin for spin in self.all if spin.cpu.number == number), None)

    @cached_property
    def circles(self) -> tuple[tuple[Spin, ...], ...]:
        """Circles of CPUs of which each spins for a lock that the next one has; one that has it itself is a circle."""
        found: list[tuple[Spin, ...]] = []
        done: set[int] = set()
        for start in self.all:
            path: list[Spin] = []
            item: Spin | None = start
            while item is not None and item.cpu.number not in done and item not in path:
                path.append(item)
                item = self.of_cpu(item.holder.cpu.number) if item.holder and item.holder.cpu else None
            if item is not None and item in path:
                found.append(tuple(path[path.index(item):]))
            done.update(step.cpu.number for step in path)
        return tuple(found)

    def _spin(self, cpu: Cpu, number: int, busy: list[Cpu]) -> Spin:
        frames = cpu.stack.frames[number:]
        kind = "rwlock" if (frames[0].function or "").startswith(_RWLOCK) else "spinlock"
        address = 0
        try:
            address = self._lock(cpu, number, kind)
        except READ_ERRORS as error:
            self.kernel.problems[f"the lock that CPU {cpu.number} spins for"] = str(error)
        alone = all(other.number == cpu.number or other.idle or other.doing == "in user space"
                    for other in self.kernel.cpus)
        return Spin(cpu, kind, address, self._name(address) if address else "", frames,
                    self._holder(address, cpu, frames, busy) if address else None, alone)

    def _lock(self, cpu: Cpu, number: int, kind: str) -> int:
        """Return the address of the lock that a frame spins for, 0 where no register leads to one that is taken."""
        from kdumpy.diagnosis.crashed.following import Follower

        if cpu.task is None:
            return 0
        frame = self.holders.walk(cpu.task)[number]
        known = self.holders.registers(cpu.task, cpu.stack.frames) if self._x86 else []
        registers = known[number] if number < len(known) else frame.registers()
        candidates = [registers.get(name, 0) for name in _CANDIDATES]
        if self._x86:
            flow = Follower(self.kernel, self.holders.read, cpu.stack.frames[number:], frame.pc, registers)
            candidates.insert(0, flow.number(Argument("rdi")) or 0)
        return next((value for value in candidates if self.is_taken(value, kind)), 0)

    @property
    def _x86(self) -> bool:
        return self.kernel.system.machine == "x86_64"

    def is_taken(self, address: int, kind: str = "spinlock") -> bool:
        """Tell whether a lock lies at an address, and is taken."""
        if meaning(address).meaning != Meaning.KERNEL or address % 4:
            return False
        try:
            word = int.from_bytes(self.holders.read(address, 4), "little")
        except (LookupError, ValueError):
            return False
        # A byte, 1 where taken (3 by a paravirtual waiter); then whoever waits. A rwlock: the count of readers above.
        # Poison is no lock, and keeps whoever takes it for one spinning for ever; the waiter writes the upper half.
        return word & 0xFF in (1, 3) or word & 0xFFFF == _POISONED if kind == "spinlock" else bool(word)

    def _holder(self, address: int, spinner: Cpu, frames: Sequence[Frame], busy: list[Cpu]) -> Holder | None:
        # The CPU itself first: then those that spin, too, for these often hold another lock; then the rest.
        others = [cpu for cpu in self.kernel.cpus if cpu.number != spinner.number]
        for cpu in (spinner, *sorted(others, key=lambda other: other not in busy)):
            frame = self.holders.taken_in(cpu.task, cpu.stack.frames, address, SPIN) if cpu.task else None
            if frame is not None:
                return Holder(cpu, cpu.task, frame, cpu.stack.frames)
        found = self.holders.off_cpu(address, SPIN, frames)
        return Holder(None, found[0], found[1], tuple(found[2])) if found else None
