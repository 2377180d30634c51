"""Who waits for whom: blocked tasks, the locks they wait for, their owners, and circles.

A task that waits for a mutex or an rwsem has a `struct mutex_waiter` (`rwsem_waiter`) on its own
kernel stack, in the lock's list of waiters; its `.task` is the task. No DWARF is needed: the stack
is read once and searched for that word, and the list leads to the lock.

Sources: kernel/locking/mutex.h, kernel/locking/mutex.c, kernel/locking/rwsem.c.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import drgn
from drgn.helpers.linux.locking import mutex_owner, rwsem_owner

from kdumpy.debuginfo.reading import READ_ERRORS, Losses
from kdumpy.diagnosis.crashed.held import FAMILIES, RWSEM, SRCU, Family
from kdumpy.diagnosis.disks import Disks
from kdumpy.diagnosis.waits import rtlocks, srcu
from kdumpy.diagnosis.waits.bringers import PERCPU_WRITERS, bringer, waits_for_readers
from kdumpy.diagnosis.waits.faulting import Faulting
from kdumpy.diagnosis.waits.holders import Holders
from kdumpy.diagnosis.waits.iowaits import IoWaits
from kdumpy.diagnosis.waits.locknames import LockNames
from kdumpy.diagnosis.waits.owners import came_later, is_gone
from kdumpy.diagnosis.waits.spinning import Spins
from kdumpy.diagnosis.waits.waiterlists import list_head, lock_of_waiters
from kdumpy.diagnosis.waits.waiting import SOCKET_LOCK, Waiters, kind_of
from kdumpy.kernel import Kernel, Stack, Task
from kdumpy.kernel.tasks import task_objects, task_value
from kdumpy.kernel.values import Frame

MOST_TASKS = 50_000
"""Tasks whose state is looked at."""
MOST_BLOCKED = 512
"""Blocked tasks whose stacks are unwound."""
_UNINTERRUPTIBLE, _NOLOAD = 0x2, 0x400
"""include/linux/sched.h; the same since 4.14 (_NOLOAD marks idle kernel threads, which ps shows as I)."""
_READER_OWNED = 0x1
"""RWSEM_READER_OWNED, in rwsem.owner: the task is the last of the readers (kernel/locking/rwsem.c)."""
_READER_SHIFT = 8
"""RWSEM_READER_SHIFT: the count of readers in rwsem.count."""
_MOST_STEPS = 256
_MOST_ASKED = 64
"""Waiting tasks that are asked, by the code of their stacks, whether they hold a lock."""
_NAMELESS = {"RCU": "", "I/O": "request"}
"""What the dump does not name of a wait; of RCU there is but one grace period."""


@dataclass(frozen=True)
class LockWait:
    """A lock that a task waits for."""

    kind: str
    """mutex, rwsem, or another kind of `waiting`."""
    address: int
    name: str
    """By symbol or by the object that it lies in; by address where it has no name."""
    owner: Task | None
    mode: str = ""
    """read or write, of a rwsem."""
    certain: bool = True
    """The owner is the only one; a reader is but the last of several."""
    note: str = ""
    left: bool = False
    """The task that took it has ended with it."""
    over: bool = False
    """It was given back more often than it was taken: it counts readers below zero."""


@dataclass(frozen=True)
class BlockedTask:
    """A task that sleeps; in `Waits.blocked`, uninterruptibly."""

    task: Task
    stack: Stack
    seconds: float | None
    """Since it last ran."""
    waits_for: LockWait | None


class Waits:
    """The blocked tasks of a kernel; read when first asked for."""

    def __init__(self, kernel: Kernel, now_ns: int | None) -> None:
        """`now_ns`: the kernel's clock at the crash (ns since boot), from the log; None where unknown."""
        self.kernel = kernel
        self.prog = kernel.prog
        self.now_ns = now_ns
        self.count = 0
        """All tasks in D, also those beyond MOST_BLOCKED."""
        self._sleepers: dict[int, BlockedTask | None] = {}
        self._takers: dict[int, tuple[Task, Frame] | None] = {}
        self.problem = ""
        """Why not all could be looked at; empty when all were."""

    @cached_property
    def blocked(self) -> tuple[BlockedTask, ...]:
        """Tasks in D, the longest wait first."""
        found = []
        for task in self._waiting:
            self.count += 1
            if self.count <= MOST_BLOCKED:
                with contextlib.suppress(*READ_ERRORS):
                    found.append(self._blocked(task))
        if self.problem:
            self.kernel.problems["blocked tasks"] = self.problem
        return tuple(sorted(found, key=lambda item: -(item.seconds or 0)))

    @cached_property
    def circles(self) -> tuple[tuple[BlockedTask, ...], ...]:
        """Circles of tasks of which each waits for a lock that the next one holds."""
        found: list[tuple[BlockedTask, ...]] = []
        done: set[int] = set()
        for start in self.blocked:
            path: list[BlockedTask] = []
            item: BlockedTask | None = start
            while item is not None and item.task.pid not in done and item not in path and len(path) < _MOST_STEPS:
                path.append(item)
                wait = item.waits_for
                item = self.sleeper(wait.owner) if wait and wait.owner and wait.certain else None
            if item is not None and item in path:
                circle = tuple(path[path.index(item):])
                # Who would wake whom does not tell whether what each waits for has come: a lock, or the like, does.
                found += [circle] if any(step.waits_for and step.waits_for.kind != "wait queue" for step in circle) \
                    else []
            done.update(step.task.pid for step in path)
        return tuple(found)

    @cached_property
    def spins(self) -> Spins:
        """The CPUs that wait for spinlocks."""
        return Spins(self.kernel, self.holders, self.names.of)

    @cached_property
    def disks(self) -> Disks:
        """The disks, and what they have not answered."""
        return Disks(self.kernel, self.now_ns)

    @cached_property
    def io_waits(self) -> IoWaits:
        """Finds which request of which disk a task waits for."""
        return IoWaits(self.kernel, self.disks)

    @cached_property
    def names(self) -> LockNames:
        """Names what lies at an address."""
        return LockNames(self.kernel, self.io_waits.things)

    @cached_property
    def holders(self) -> Holders:
        """Finds holders that no lock's word names."""
        return Holders(self.kernel)

    def chain(self, first: BlockedTask) -> list[BlockedTask]:
        """Return the tasks beyond one that waits, of which each holds what the one before waits for, and waits, too.

        The last one waits for what nobody is known to hold, or for one who does not wait for anybody.
        """
        found: list[BlockedTask] = []
        item, seen = first, {first.task.pid}
        while item.waits_for and item.waits_for.owner and len(found) < _MOST_STEPS:
            following = self.sleeper(item.waits_for.owner)
            if following is None or following.task.pid in seen or following.waits_for is None \
                    or following.waits_for.owner is None:
                break
            seen.add(following.task.pid)
            found.append(following)
            item = following
        return found

    def sleeper(self, task: Task) -> BlockedTask | None:
        """Return a task as one that sleeps, and what it waits for; None where it runs or cannot be read."""
        if task.on_cpu:
            return None
        if task.pid not in self._sleepers:
            known = self.of_pid(task.pid)
            if known is None:
                with contextlib.suppress(*READ_ERRORS):
                    known = self._blocked(self.kernel.task_object(task.address))
            self._sleepers[task.pid] = known
        return self._sleepers[task.pid]

    def of_pid(self, pid: int) -> BlockedTask | None:
        """Return the blocked task of a thread id."""
        return next((item for item in self.blocked if item.task.pid == pid), None)

    def _uninterruptible(self) -> Iterator[drgn.Object]:
        made = self.prog.type("struct task_struct")
        # __state: 2f064a59a11f "sched: Change task_struct::state" (5.14).
        offset = drgn.offsetof(made, "__state" if made.has_member("__state") else "state")
        waiting = _UNINTERRUPTIBLE | (rtlocks.RTLOCK_WAIT if rtlocks.is_rt(self.prog) else 0)
        lost = Losses("task")
        for number, task in enumerate(task_objects(self.prog)):
            if number >= MOST_TASKS:
                self.problem = f"only the first {MOST_TASKS} tasks were looked at"
                return
            try:
                state = self.prog.read_u32(task.value_() + offset)
            except drgn.FaultError as error:
                lost.add(error)
                self.problem = str(lost)
                continue
            if state & waiting and not state & _NOLOAD:
                yield task

    def _blocked(self, task: drgn.Object) -> BlockedTask:
        stack = self.kernel.stack(task.value_())
        return BlockedTask(task_value(task), stack, self._slept(task), self.lock_of(task, stack))

    def _slept(self, task: drgn.Object) -> float | None:
        """Return the seconds since a task last ran; None where unknown."""
        with contextlib.suppress(*READ_ERRORS):
            arrival = task.sched_info.last_arrival.value_()
            if self.now_ns is not None and 0 < arrival <= self.now_ns:
                return float(self.now_ns - arrival) / 1e9
        return None

    def lock_of(self, task: drgn.Object, stack: Stack) -> LockWait | None:
        """Return the lock that a sleeping task waits for; None when its stack shows no wait for one."""
        found = rtlocks.waited(self.kernel, task, stack, self._stack_words)
        if found is not None:
            held = f"held by {found.readers} reader{'s' if found.readers > 1 else ''}" if found.readers else ""
            wait = LockWait(found.kind, found.address, self.names.of(found.address, found.kind), found.owner,
                            found.mode, found.owner is not None, held)
            return self._reader(wait, found.readers, stack.frames) if held and found.kind == "rwsem" else wait
        kind = kind_of(stack)
        if kind not in ("mutex", "rwsem"):
            return self._other(task, kind, stack.frames)
        try:
            address = self._lock_address(task, kind)
        except READ_ERRORS:
            return None
        mode = next((mode for frame in stack.frames[:8] for mode in ("read", "write")
                     if f"down_{mode}" in (frame.function or "")), "") if kind == "rwsem" else ""
        return self._lock(kind, address, task, mode, stack.frames) if address else None

    def _other(self, task: drgn.Object, kind: str | None, frames: Sequence[Frame]) -> LockWait | None:
        """Return a wait of another kind than the two that have an owner."""
        try:
            found = Waiters(self.kernel, self._stack_words).of(task, kind, self._stack_words(task), frames)
        except READ_ERRORS:
            return None
        if found is None:
            return None
        if found.kind == "SRCU":
            return self._of_srcu(task, frames)
        of_disk = self.io_waits.of(task, found, self._stack_words(task), frames)
        if of_disk is not None:
            found, name = of_disk
            wait = LockWait(found.kind, found.address, name, found.owner, certain=found.certain, note=found.note)
            # Where no request is known for a page, it may be that no disk has it.
            return self._brought_about(wait, task_value(task), frames) if found.kind == "page lock" else wait
        name = found.name or self.names.of(found.address, found.kind) \
            if found.address and found.kind not in _NAMELESS else \
            _NAMELESS.get(found.kind, "that the dump does not show")
        if found.kind in ("semaphore", SOCKET_LOCK) and found.address:
            taker = self._taker(found.address, FAMILIES[found.kind], frames)
            if taker is not None:
                # It has one place of the semaphore; others may have more.
                return LockWait(found.kind, found.address, name, taker[0], certain=found.kind == SOCKET_LOCK,
                                note=f"{taker[0].comm} took it in {taker[1].function}()")
        if found.kind == "percpu rwsem" and not found.address and waits_for_readers(frames):
            address = srcu.structure_of(self.kernel, self.holders, task_value(task), frames, PERCPU_WRITERS)
            found = found._replace(address=address, note="it waits for the readers to go")
            name = self.names.of(address) if address else name
        wait = LockWait(found.kind, found.address, name, found.owner, certain=found.certain, note=found.note)
        return self._brought_about(wait, task_value(task), frames) if found.owner is None else wait

    def _brought_about(self, wait: LockWait, waiter: Task, frames: Sequence[Frame]) -> LockWait:
        """Name who is to bring about what nobody owns, where the code of a stack shows that."""
        found = bringer(self.holders, wait.kind, wait.address, waiter, frames,
                        lambda: [*((cpu.task, cpu.stack.frames) for cpu in self.kernel.cpus if cpu.task), *self._asked])
        if found is None:
            return wait
        does = f"{found.task.comm} {'took it' if found.taken else 'is to end that wait'} in {found.frame.function}()"
        return replace(wait, owner=found.task, certain=found.alone and found.stuck,
                       note=", ".join(filter(None, (wait.note, does))))

    def _of_srcu(self, task: drgn.Object, frames: Sequence[Frame]) -> LockWait:
        waiter = task_value(task)
        address = srcu.structure_of(self.kernel, self.holders, waiter, frames)
        readers = srcu.readers_of(self.prog, address) if address else None
        note = "" if readers is None else f"{readers} of its readers {'is' if readers == 1 else 'are'} inside" \
            if readers else "no reader of it is inside"
        taker = self._taker(address, SRCU, frames, waiter) if address and readers else None
        if taker is not None:
            note += f"; {taker[0].comm} went in in {taker[1].function}()"
        return LockWait("SRCU", address, self.names.of(address) if address else "", taker[0] if taker else None,
                        certain=taker is not None and readers == 1, note=note)

    def _taker(self, address: int, family: Family, frames: Sequence[Frame],
               first: Task | None = None) -> tuple[Task, Frame] | None:
        """Return (task, the function that took it) of a lock that does not name its holder.

        Args:
            address: the lock's.
            family: its kind.
            frames: the stack of one who waits for it.
            first: the task that is asked first.
        """
        if address not in self._takers:
            asked = [(first, self.kernel.stack(first).frames)] if first is not None else []
            asked += [(cpu.task, cpu.stack.frames) for cpu in self.kernel.cpus if cpu.task]
            asked += self._asked
            found = self.holders.off_cpu(address, family, frames, asked)
            self._takers[address] = (found[0], found[1]) if found else None
        return self._takers[address]

    @cached_property
    def _asked(self) -> list[tuple[Task, tuple[Frame, ...]]]:
        """Tasks in D with their stacks."""
        return [(task_value(task), self.kernel.stack(task.value_()).frames) for task in self._waiting[:_MOST_ASKED]]

    @cached_property
    def _waiting(self) -> list[drgn.Object]:
        """The tasks in D: all tasks are gone through once for them."""
        found = []
        try:
            for task in self._uninterruptible():
                found.append(task)
        except READ_ERRORS as error:
            self.problem = f"the list of tasks cannot be followed to its end: {error}"
        return found

    def _lock(self, kind: str, address: int, waiter: drgn.Object, mode: str = "",
              frames: Sequence[Frame] = ()) -> LockWait:
        owner, note, left = None, "", False
        try:
            if kind == "mutex":
                lock = drgn.Object(self.prog, "struct mutex *", address)
                holder = mutex_owner(lock)
            else:
                lock = drgn.Object(self.prog, "struct rw_semaphore *", address)
                holder = rwsem_owner(lock)
                count, note = self._readers(lock)
                if count < 0:
                    return LockWait(kind, address, self.names.of(address, kind), None, mode, False, note, over=True)
                if count:
                    wait = LockWait(kind, address, self.names.of(address, kind), task_value(holder)
                                    if holder.value_() else None, mode, False, note)
                    found = self._reader(wait, count, frames)
                    # Who came last waits for it now: he gave it back, as whoever has it still did not.
                    gone = found is wait and holder.value_() and self._lock_address(holder, kind) == address
                    return replace(wait, owner=None, note=f"held by {_readers(count)}") if gone else found
            if holder.value_():
                left = is_gone(holder) or came_later(holder, waiter, lock, self._slept(waiter), self.kernel.stack_size)
                owner = None if left else task_value(holder)
        except READ_ERRORS:
            pass
        return LockWait(kind, address, self.names.of(address, kind), owner, mode, owner is not None,
                        "the task that took it has ended" if left else note, left)

    def _reader(self, wait: LockWait, count: int, frames: Sequence[Frame]) -> LockWait:
        """Name a reader that holds a rwsem: the lock names the last that came, who may be gone while others stay."""
        taker = self._taker(wait.address, RWSEM, frames, wait.owner)
        if taker is not None:
            return replace(wait, owner=taker[0], certain=count == 1,
                           note=f"held by {_readers(count)}; {taker[0].comm} took it in {taker[1].function}()")
        faulting = self._faulting.reader_of(wait.address)
        if faulting is None:
            return wait
        return replace(wait, owner=faulting, certain=count == 1 and not self._faulting.by_parts,
                       note=f"held by {_readers(count)}; {faulting.comm} is in a page fault, which takes it")

    @cached_property
    def _faulting(self) -> Faulting:
        return Faulting(self.kernel, islice(task_objects(self.prog), MOST_TASKS))

    @staticmethod
    def _readers(lock: drgn.Object) -> tuple[int, str]:
        """Return (how many readers hold a rwsem, who holds it in words)."""
        if not int(lock.owner.counter.value_()) & _READER_OWNED:
            return 0, "held for writing"
        # The highest bit is a flag of its own, which is set, too, where more readers went than came.
        count = int(lock.count.counter.value_()) >> _READER_SHIFT
        if count < 0:
            return count, f"its count of readers is {count}: it was given back more often than it was taken"
        return count, f"held by {_readers(count)}; the one named came last"

    def _lock_address(self, task: drgn.Object, kind: str) -> int:
        """Return the lock's address, 0 where it cannot be told."""
        lock = self.prog.type("struct mutex" if kind == "mutex" else "struct rw_semaphore")
        waiter = self.prog.type("struct mutex_waiter" if kind == "mutex" else "struct rwsem_waiter")
        offset = drgn.offsetof(waiter, "task")
        begin, words = self._stack_words(task)
        waiters = [begin + 8 * number - offset for number, word in enumerate(words) if word == task.value_()]
        if lock.has_member("wait_list"):
            for address in waiters:
                head = list_head(self.kernel, address, offset)
                if head:
                    return int(head - drgn.offsetof(lock, "wait_list"))
            return 0
        if kind == "mutex" and task.type_.type.has_member("blocked_on"):
            blocked_on = task.blocked_on
            if blocked_on.type_.type_name() == "struct mutex *" and blocked_on:
                return int(blocked_on.value_())
        return lock_of_waiters(self.prog, lock, waiters, (begin, words))

    def _stack_words(self, task: drgn.Object) -> tuple[int, tuple[int, ...]]:
        """Return (address, words) of the part of a sleeping task's stack that is in use."""
        begin = task.stack.value_()
        end = begin + self.kernel.stack_size
        thread = task.thread
        made = thread.type_
        sp = thread.sp.value_() if made.has_member("sp") else thread.cpu_context.sp.value_()
        if not begin <= sp < end:
            sp = begin
        sp -= sp % 8
        return sp, struct.unpack(f"<{(end - sp) // 8}Q", self.prog.read(sp, end - sp))


def _readers(count: int) -> str:
    return f"{count} reader{'s' if count != 1 else ''}"
