"""What a sleeping task waits for, beside mutexes and rwsems: found by the waiter structure on its stack.

The functions on the stack say what kind of wait it is; the structure that such a wait lays on the
stack points to the task, and lies in a list whose head is in the thing that is waited for.

Sources: kernel/locking/semaphore.c, include/linux/swait.h, include/linux/wait.h, wait_bit.h,
mm/filemap.c (struct wait_page_queue), kernel/workqueue.c (struct wq_barrier, struct wq_flusher), kernel/rcu/tree.h.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import drgn
from drgn.helpers.linux.list import list_for_each_entry

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.waits import endings
from kdumpy.diagnosis.waits.filewaits import Words, file_wait, users_of
from kdumpy.diagnosis.waits.srcu import WAITERS as SRCU_WAITERS
from kdumpy.diagnosis.waits.waiterlists import list_head, lock_of_waiters, ring
from kdumpy.kernel import Kernel, Stack, Task
from kdumpy.kernel.tasks import task_objects, task_value
from kdumpy.kernel.values import Frame

_DEEPEST = 14
"""Frames in which the kind of wait is looked for."""
_MOST_WORKERS = 10_000
_MOST_QUEUES = 65_536
PF_WQ_WORKER = 0x20
"""include/linux/sched.h; the same since 2.6.36."""
_LEAF_BITS = 64
_MOST_USERS = 64
_MOST_READERS = 4096

FILE_IN_USE = "file in use"
"""A file of sysfs, debugfs or procfs that is removed, and is read or written."""
SOCKET_LOCK = "socket lock"
"""The lock of a socket that a process has, and not a softirq: sk_lock.owned (net/core/sock.c)."""
THREAD, IRQ_THREAD = "thread", "interrupt thread"
"""A kernel thread that is to end, or to park; one that is to come to the end of its interrupt."""
_SEMAPHORE = frozenset({"__down", "__down_common", "___down_common", "down", "down_killable", "down_interruptible",
                        "down_timeout", "__down_killable", "__down_interruptible", "__down_timeout"})
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("percpu rwsem", ("percpu_rwsem_wait", "__percpu_down_read", "percpu_down_read", "percpu_down_write")),
    ("rwsem", ("rwsem_", "down_read", "down_write")),
    (SOCKET_LOCK, ("__lock_sock", "lock_sock")),
    ("mutex", ("__mutex_lock", "mutex_lock", "__ww_mutex_lock")),
    ("page lock", ("folio_wait_bit", "__folio_lock", "folio_lock", "__lock_page", "wait_on_page_bit",
                   "folio_wait_writeback", "wait_on_page_writeback")),
    ("buffer lock", ("__wait_on_buffer", "__lock_buffer")),
    ("completion", ("wait_for_completion", "__wait_for_common", "do_wait_for_common", "wait_for_common")),
    ("SRCU", SRCU_WAITERS),
    ("RCU", ("synchronize_rcu", "__wait_rcu_gp", "rcu_barrier", "synchronize_net")),
    ("work", ("__flush_work", "__flush_workqueue", "flush_workqueue", "__cancel_work", "drain_workqueue", "flush_work",
              "flush_delayed_work", "flush_rcu_work", "cancel_work", "cancel_delayed_work", "destroy_workqueue")),
    ("bit lock", ("__wait_on_bit", "out_of_line_wait_on_bit", "wait_on_bit", "bit_wait")),
    (FILE_IN_USE, ("kernfs_drain", "__kernfs_remove", "proc_entry_rundown", "__debugfs_file_removed",
                   "debugfs_remove")),
    (THREAD, ("kthread_stop", "kthread_park")),
    ("I/O", ("io_schedule", "blk_mq_get_tag", "submit_bio_wait")),
)
_OUTER = {"completion": ("RCU", "SRCU", "work", THREAD, FILE_IN_USE), "bit lock": ("buffer lock", "page lock"),
          "I/O": ("page lock", "buffer lock", "bit lock")}
"""A wait of the first kind that serves one of the others, which stands further out on the stack."""


_BITS = ("wake_bit_function", "var_wake_function")

_Finder = Callable[[drgn.Object, tuple[int, Sequence[int]]], "Waited | None"]


class Waited(NamedTuple):
    """What a task waits for."""

    kind: str
    address: int
    """0 where it is not known."""
    owner: Task | None = None
    certain: bool = False
    note: str = ""
    bit: int | None = None
    name: str = ""
    """Where it has a better one than its address."""


def kind_of(stack: Stack) -> str | None:
    """Return the kind of wait that a stack shows; None where it shows none."""
    found = [kind for frame in stack.frames[:_DEEPEST] if (kind := _kind_of_function(frame.function or ""))]
    if not found:
        return None
    kind = found[0]
    for outer in found[1:]:
        kind = outer if outer in _OUTER.get(kind, ()) else kind
    return kind


def _kind_of_function(name: str) -> str | None:
    if name in _SEMAPHORE:
        return "semaphore"
    return next((kind for kind, marks in _KINDS if name.startswith(marks)), None)


class Waiters:
    """Finds what the tasks of a kernel wait for."""

    def __init__(self, kernel: Kernel, words_of: Words | None = None) -> None:
        self.kernel = kernel
        self.words_of = words_of
        self.prog = kernel.prog

    def of(self, task: drgn.Object, kind: str | None, words: tuple[int, Sequence[int]],
           frames: Sequence[Frame] = ()) -> Waited | None:
        """Return what a task waits for; None where its stack shows nothing.

        Args:
            task: struct task_struct *.
            kind: of `kind_of`.
            words: address and 64-bit words of the part of its stack that is in use.
            frames: its stack.
        """
        finders: dict[str | None, _Finder] = {
            "semaphore": self._semaphore, "completion": self._completion, "page lock": self._page,
            "buffer lock": self._bit, "bit lock": self._bit, "work": self._work, "RCU": self._rcu,
            "percpu rwsem": self._queue, FILE_IN_USE: self._file, THREAD: self._completion, None: self._queue,
            SOCKET_LOCK: self._socket,
        }
        found: Waited | None = None
        with contextlib.suppress(*READ_ERRORS):
            if kind in finders:
                found = finders[kind](task, words)
        ended = self._ending(task, kind, found, words[1], frames)
        if ended is not None:
            return ended
        if found is None and kind is not None:
            return Waited(kind, 0)
        return found._replace(kind=kind) if found is not None and kind is not None else found

    def _ending(self, task: drgn.Object, kind: str | None, found: Waited | None, words: Sequence[int],
                frames: Sequence[Frame]) -> Waited | None:
        """Return what it is whose end is waited for by a completion or in a wait queue, where that is known."""
        if found is None or not frames or kind not in (THREAD, FILE_IN_USE, None):
            return None
        ended = None
        with contextlib.suppress(*READ_ERRORS):
            ended = endings.thread_of(self.kernel, found.address) if kind == THREAD else \
                endings.interrupt_of(self.kernel, found.address, frames) if kind is None else \
                endings.file_of(self.kernel, found.address, words, frames, self.words_of)
        if ended is None:
            return None
        own = [owner for owner in ended.owners if owner.address == task.value_()]
        first = next(iter(own or ended.owners), None)
        alone = bool(own) or len(ended.owners) == 1
        return Waited(ended.kind, ended.address, first, alone, ended.note, name=ended.name)

    def _places(self, task: drgn.Object, words: tuple[int, Sequence[int]], offset: int) -> Iterator[int]:
        """Yield where a structure with the task at an offset could begin."""
        begin, numbers = words
        for number, word in enumerate(numbers):
            if word == task.value_():
                yield begin + 8 * number - offset

    def _semaphore(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        waiter, made = self.prog.type("struct semaphore_waiter"), self.prog.type("struct semaphore")
        offset = drgn.offsetof(waiter, "task")
        if not made.has_member("wait_list"):
            address = lock_of_waiters(self.prog, made, self._places(task, words, offset), words)
            return Waited("semaphore", address) if address else None
        for place in self._places(task, words, offset):
            head = list_head(self.kernel, place, offset)
            if head:
                return Waited("semaphore", head - drgn.offsetof(made, "wait_list"))
        return None

    def _completion(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        waiter, made = self.prog.type("struct swait_queue"), self.prog.type("struct completion")
        offset, link = drgn.offsetof(waiter, "task"), drgn.offsetof(waiter, "task_list")
        for place in self._places(task, words, offset):
            head = list_head(self.kernel, place + link, offset - link)
            if head:
                return Waited("completion", head - drgn.offsetof(made, "wait.task_list"))
        return None

    def _entries(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Iterator[tuple[int, str]]:
        """Yield (address, wake function) of the wait queue entries on a stack."""
        made = self.prog.type("struct wait_queue_entry")
        private, function = drgn.offsetof(made, "private"), drgn.offsetof(made, "func")
        for place in self._places(task, words, private):
            with contextlib.suppress(drgn.FaultError, LookupError):
                symbol = self.prog.symbol(self.prog.read_u64(place + function))
                if self.prog.read_u64(place + function) == symbol.address:
                    yield place, symbol.name

    def _queue(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        made, head = self.prog.type("struct wait_queue_entry"), self.prog.type("struct wait_queue_head")
        link, function = drgn.offsetof(made, "entry"), drgn.offsetof(made, "func")
        for place, wakes in self._entries(task, words):
            if wakes in _BITS:              # the queue is one of a table, by chance: a word is waited for
                return self._bit(task, words)
            for node in ring(self.prog, place + link):
                # A wait queue's own head has its lock there, and not the address of a function.
                if self.prog.read_u64(node - link + function) not in (self.kernel.debuginfo.text or ()):
                    return Waited("wait queue", node - drgn.offsetof(head, "head"))
        return None

    def _socket(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        """Find the socket in whose lock's queue a task is."""
        queue = self._queue(task, words)
        if queue is None:
            return None
        return Waited(SOCKET_LOCK, queue.address - drgn.offsetof(self.prog.type("struct sock"), "sk_lock.wq"))

    def _file(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        """Find the file whose users a removal waits for; the owner is the task itself where it is one of them.

        Else it is one of them that sleeps; which of several is the last to leave is not known.
        """
        queue = self._queue(task, words)
        if queue is None:                   # debugfs and procfs wait for a completion
            return self._completion(task, words)
        found = file_wait(self.kernel, queue.address, words[1])
        if found is None:
            return queue
        users = f"{found.users} task{'s are' if found.users > 1 else ' is'} in it"
        others = [task] if found.own else list(islice(users_of(self.kernel, found.node, self.words_of), _MOST_USERS)) \
            if self.words_of else []
        return Waited(FILE_IN_USE, found.node, task_value(others[0]) if others else None,
                      found.own or len(others) == found.users == 1, users, name=found.path)

    def _page(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        made = self.prog.type("struct wait_page_queue")
        member = "folio" if made.has_member("folio") else "page"
        for place, function in self._entries(task, words):
            if function.startswith("wake_page_function"):
                begin = place - drgn.offsetof(made, "wait")
                bit = self.prog.read_u32(begin + drgn.offsetof(made, "bit_nr"))
                page = self.prog.read_u64(begin + drgn.offsetof(made, member))
                return Waited("page lock", page, note=f"bit {bit} of its flags", bit=bit)
        return None

    def _bit(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        made = self.prog.type("struct wait_bit_queue_entry")
        for place, function in self._entries(task, words):
            if function in _BITS:
                begin = place - drgn.offsetof(made, "wq_entry")
                flags = self.prog.read_u64(begin + drgn.offsetof(made, "key.flags"))
                bit = self.prog.read_u32(begin + drgn.offsetof(made, "key.bit_nr"))
                note = f"bit {bit} there" if function != "var_wake_function" else ""
                return Waited("bit lock" if note else "variable", flags, note=note, bit=bit if note else None)
        return None

    def _work(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        """Find the worker in whose list the barrier lies that a flush laid on its stack.

        Where the work has not begun, the barrier lies behind it, in a list of those that are to come: then it is the
        works of the same queue that run, which must end before.
        """
        made = self.prog.type("struct wq_barrier")
        for place in self._places(task, words, drgn.offsetof(made, "task")):
            link = place + drgn.offsetof(made, "work.entry")
            nodes = set(ring(self.prog, link))
            if not nodes:
                continue
            for worker in self.workers():
                scheduled = worker.scheduled.address_of_().value_()
                if scheduled in nodes:
                    return self._running(worker, certain=True)
            queue = self._queue_of(int(drgn.Object(self.prog, made, address=place).work.data.counter.value_()))
            before = self._run_by(queue) if queue else None
            if before is not None:
                return before._replace(note=f"it has not begun: its queue still runs another; {before.note}")
        return self._flushed(words)

    def _queue_of(self, data: int) -> int:
        """Return the work queue of a queued work, by its `data`; 0 where it is in none."""
        # include/linux/workqueue.h: the pointer's lowest bits are flags and a color; older kernels name no shift.
        if not data & self._constant("WORK_STRUCT_PWQ", 1 << self._constant("WORK_STRUCT_PWQ_BIT", 2)):
            return 0
        bits = self._constant("WORK_STRUCT_PWQ_SHIFT", self._constant("WORK_STRUCT_FLAG_BITS", 8))
        owner = drgn.Object(self.prog, "struct pool_workqueue *", data % (1 << 64) >> bits << bits)
        return int(owner.wq.value_())

    def _constant(self, name: str, default: int) -> int:
        with contextlib.suppress(LookupError):
            return int(self.prog.constant(name).value_())
        return default

    def _run_by(self, queue: int) -> Waited | None:
        """Return a work of a queue that runs; the first of several."""
        running = [worker for worker in self.workers()
                   if worker.current_pwq and worker.current_pwq.wq.value_() == queue]
        return self._running(running[0], certain=len(running) == 1) if running else None

    def _running(self, worker: drgn.Object, *, certain: bool) -> Waited:
        name = self._symbol(int(worker.current_func.value_()))
        return Waited("work", int(worker.current_work.value_()), task_value(worker.task), certain,
                      f"the worker runs {name}()" if name else "")

    def _flushed(self, words: tuple[int, Sequence[int]]) -> Waited | None:
        """Find a work of the queue whose flusher lies on a stack: flush_workqueue() waits for all that were queued.

        Of several that run the first is named; which of them is the last to end is not known.
        """
        begin, numbers = words
        flushers = range(begin, begin + 8 * len(numbers))
        for queue in islice(list_for_each_entry("struct workqueue_struct", self.prog["workqueues"].address_of_(),
                                                "list"), _MOST_QUEUES):
            # The first flusher is not in the list; those that came in its time are.
            waiting = {int(queue.first_flusher.value_()), *ring(self.prog, queue.flusher_queue.address_of_().value_())}
            if not any(address in flushers for address in waiting):
                continue
            return self._run_by(queue.value_())
        return None

    def workers(self) -> Iterator[drgn.Object]:
        """Yield the struct worker * of every thread that runs works."""
        from drgn.helpers.linux.kthread import kthread_data

        made = self.prog.type("struct worker *")
        found = 0
        for task in task_objects(self.prog):
            if task.flags.value_() & PF_WQ_WORKER and found < _MOST_WORKERS:
                found += 1
                with contextlib.suppress(*READ_ERRORS):
                    yield drgn.cast(made, kthread_data(task))

    def _symbol(self, address: int) -> str:
        try:
            return str(self.prog.symbol(address).name).split(".")[0]
        except LookupError:
            return ""

    def _rcu(self, task: drgn.Object, words: tuple[int, Sequence[int]]) -> Waited | None:
        """Name who the grace period still waits for: tasks that sleep as readers, or CPUs and what runs there."""
        cpus = self.late_cpus()
        readers = list(islice(self.blocked_readers(), _MOST_USERS))
        if readers:
            own = any(reader.value_() == task.value_() for reader in readers)
            reader = task_value(task if own else readers[0])
            return Waited("RCU", self.prog["rcu_state"].address_ or 0, reader, own or (len(readers) == 1 and not cpus),
                          f"{reader.comm} (pid {reader.pid}) sleeps within rcu_read_lock()")
        if not cpus:
            return Waited("RCU", 0, note="no CPU is known to hold the grace period up")
        running = next((cpu.task for cpu in self.kernel.cpus if cpu.number == cpus[0]), None)
        listed = ", ".join(map(str, cpus[:16]))
        return Waited("RCU", self.prog["rcu_state"].address_ or 0, running, len(cpus) == 1,
                      f"the grace period waits for CPU{'s' if len(cpus) > 1 else ''} {listed}")

    def late_cpus(self) -> list[int]:
        """Return the CPUs that the grace period waits for; none where none goes on.

        Raises:
            READ_ERRORS: they cannot be read.
        """
        return sorted(set(self._late()))

    def blocked_readers(self) -> Iterator[drgn.Object]:
        """Yield the tasks off their CPUs within rcu_read_lock() that the grace period waits for; CONFIG_PREEMPT_RCU.

        They are in a list of their node's (kernel/rcu/tree_plugin.h, rcu_preempt_ctxt_queue()): those from gp_tasks on
        to its end block the grace period, those from exp_tasks on the expedited one.
        """
        inside = None
        for node in self._leaves():
            end, seen = node.blkd_tasks.address_of_().value_(), set[int]()
            for name in ("gp_tasks", "exp_tasks"):
                entry = int(node.member_(name).value_())
                while entry and entry != end and entry not in seen and len(seen) < _MOST_READERS:
                    seen.add(entry)
                    inside = inside or drgn.offsetof(self.prog.type("struct task_struct"), "rcu_node_entry")
                    yield self.kernel.task_object(entry - inside)
                    entry = self.prog.read_u64(entry)

    def _leaves(self) -> Iterator[drgn.Object]:
        """Yield the struct rcu_node of the lowest level: state.level[] points to the first of each."""
        nodes = list(self.prog["rcu_state"].node)
        deepest = max(int(node.level.value_()) for node in nodes)
        yield from (node for node in nodes if int(node.level.value_()) == deepest)

    def _late(self) -> Iterator[int]:
        state = self.prog["rcu_state"]
        if not int(state.gp_seq.value_()) & 3 and not int(state.expedited_sequence.value_()) & 1:
            return                          # no grace period goes on
        for node in self._leaves():
            first = int(node.grplo.value_())
            late = int(node.qsmask.value_()) | int(node.expmask.value_())
            for bit in range(_LEAF_BITS):
                if late >> bit & 1:
                    yield first + bit
