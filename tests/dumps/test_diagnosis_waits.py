"""What tasks wait for, by the structures on their stacks; and the graph of it.

The laboratory has no fault for every kind of wait. Those it lacks are laid into the memory of a
real dump: the kernel's own types, a real task's stack, and a list as the kernel links it.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator

import drgn
import pytest
from drgn.helpers.linux.percpu import per_cpu_ptr

import kdumpy
import lab
from kdumpy.diagnosis import diagnose
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.superblocks import super_blocks
from kdumpy.diagnosis.things import Things
from kdumpy.diagnosis.waits import srcu
from kdumpy.diagnosis.waits.locks import Waits
from kdumpy.diagnosis.waits.waiting import Waited, Waiters, kind_of
from kdumpy.errors import DamagedDump
from kdumpy.kernel import Kernel, Stack, Task
from kdumpy.kernel.values import Frame

KERNELS = sorted({kernel for kernel, _ in lab.panics("deadlock", "hung-task")})
KINDS_KERNELS = ("6.1",) if not lab.FULL else lab.KERNELS


def opened(kernel: str, fault: str) -> Iterator[Kernel]:
    with kdumpy.open(lab.dump(kernel, fault).path) as found:
        yield found


@pytest.fixture(params=KERNELS)
def hung(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    yield from opened(request.param, "hung-task")


@pytest.fixture(params=KINDS_KERNELS)
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    yield from opened(request.param, "hung-task")


def sleeper(kernel: Kernel, comm: str) -> Task:
    return next(task for task in kernel.tasks() if task.comm == comm)


@pytest.mark.parametrize(("comm", "name"), [("kauditd", "kauditd_wait"), ("oom_reaper", "oom_reaper_wait"),
                                            ("ksmd", "ksm_thread_wait"), ("init", "signal_cache"),
                                            ("syslogd", "sock_inode_cache")])
def test_the_wait_queue_of_a_sleeping_task(hung: Kernel, comm: str, name: str) -> None:
    found = Waits(hung, None).sleeper(sleeper(hung, comm))
    assert found is not None
    assert found.waits_for is not None
    assert found.waits_for.kind == "wait queue"
    assert name in found.waits_for.name
    assert found.waits_for.owner is None


def test_a_task_that_only_sleeps_waits_for_nothing(hung: Kernel) -> None:
    found = Waits(hung, None).sleeper(sleeper(hung, "flaky_collect"))
    assert found is not None
    assert found.waits_for is None


class Stage:
    """A sleeping task of a real dump, with structures of a wait laid on its stack."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.prog = kernel.prog
        self.task = kernel.task_object(sleeper(kernel, "kauditd").address)
        self.base = self.task.stack.value_() + 0x1000
        self.memory = bytearray(0x1000)

    def put(self, address: int, value: int) -> None:
        struct.pack_into("<Q", self.memory, address - self.base, value)

    def link(self, *nodes: int) -> None:
        """Link the nodes of a list to a ring."""
        for node, following in zip(nodes, (*nodes[1:], nodes[0]), strict=True):
            self.put(node, following)
            self.put(following + 8, node)

    def find(self, kind: str | None) -> Waited | None:
        data = bytes(self.memory)
        self.prog.add_memory_segment(self.base, len(data), lambda address, count, offset, physical:
                                     data[address - self.base :][:count])
        words = struct.unpack(f"<{len(data) // 8}Q", data)
        return Waiters(self.kernel).of(self.task, kind, (self.base, words))


def test_a_semaphore(kernel: Kernel) -> None:
    stage = Stage(kernel)
    made, waiter = kernel.prog.type("struct semaphore"), kernel.prog.type("struct semaphore_waiter")
    lock, mine = stage.base + 0x800, stage.base + 0x100
    stage.link(lock + drgn.offsetof(made, "wait_list"), mine)
    stage.put(mine + drgn.offsetof(waiter, "task"), stage.task.value_())
    assert stage.find("semaphore") == Waited("semaphore", lock)


def test_a_completion(kernel: Kernel) -> None:
    stage = Stage(kernel)
    made, waiter = kernel.prog.type("struct completion"), kernel.prog.type("struct swait_queue")
    done, mine = stage.base + 0x800, stage.base + 0x100
    stage.link(done + drgn.offsetof(made, "wait.task_list"), mine + drgn.offsetof(waiter, "task_list"))
    stage.put(mine + drgn.offsetof(waiter, "task"), stage.task.value_())
    assert stage.find("completion") == Waited("completion", done)


@pytest.mark.parametrize(("kind", "structure", "member", "wake", "target", "bit"), [
    ("page lock", "wait_page_queue", "wait", "wake_page_function", "folio", "bit_nr"),
    ("buffer lock", "wait_bit_queue_entry", "wq_entry", "wake_bit_function", "key.flags", "key.bit_nr"),
])
def test_a_bit(kernel: Kernel, kind: str, structure: str, member: str, wake: str, target: str, bit: str) -> None:
    stage = Stage(kernel)
    made, entry = kernel.prog.type(f"struct {structure}"), kernel.prog.type("struct wait_queue_entry")
    if target == "folio" and not made.has_member("folio"):
        target = "page"
    mine = stage.base + 0x100
    stage.put(mine + drgn.offsetof(made, target), 0xFFFFEA0000001000)
    struct.pack_into("<I", stage.memory, 0x100 + drgn.offsetof(made, bit), 2)
    place = mine + drgn.offsetof(made, member)
    stage.put(place + drgn.offsetof(entry, "private"), stage.task.value_())
    stage.put(place + drgn.offsetof(entry, "func"), kernel.prog.symbol(wake).address)
    found = stage.find(kind)
    assert found is not None
    assert (found.kind, found.address, found.bit) == (kind, 0xFFFFEA0000001000, 2)


def test_the_worker_that_a_flush_waits_for(kernel: Kernel) -> None:
    stage = Stage(kernel)
    waiters = Waiters(kernel)
    worker = next(iter(waiters.workers()))
    made = kernel.prog.type("struct wq_barrier")
    head = worker.scheduled.address_of_().value_()
    mine = stage.base + 0x100
    node = mine + drgn.offsetof(made, "work.entry")
    stage.put(mine + drgn.offsetof(made, "task"), stage.task.value_())
    stage.put(node, head)
    stage.put(node + 8, head)
    kernel.prog.add_memory_segment(head, 16, lambda address, count, offset, physical:
                                   struct.pack("<QQ", node, node)[offset : offset + count])
    found = stage.find("work")
    assert found is not None
    assert found.owner is not None
    assert found.owner.pid == worker.task.pid.value_()
    assert found.certain


def test_a_wait_whose_structure_is_not_there_keeps_its_kind(kernel: Kernel) -> None:
    stage = Stage(kernel)
    assert stage.find("completion") == Waited("completion", 0)
    assert stage.find(None) is None


def test_the_cpu_that_holds_a_grace_period_up() -> None:
    for kernel in opened("6.1", "rcu-stall"):
        spinning = [cpu.number for cpu in kernel.cpus if any(frame.function == "flaky_spin_irqs_off"
                                                             for frame in cpu.stack.frames)]
        assert spinning
        late = set(Waiters(kernel).late_cpus())
        # Or the spinning CPU starves the grace period's own thread, when all CPUs have been through.
        starved = any("All QSes seen" in record.text for record in kernel.log)
        assert late == (set() if starved else set(spinning))
        found = Waiters(kernel).of(kernel.task_object(sleeper(kernel, "kauditd").address), "RCU", (0, ()))
        assert found is not None
        if starved:
            assert (found.owner, found.note) == (None, "no CPU is known to hold the grace period up")
            continue
        assert found.owner is not None
        assert found.owner.comm == "flaky_report"
        assert found.note == f"the grace period waits for CPU {spinning[0]}"


def stack(*names: str) -> Stack:
    return Stack(tuple(Frame(1, name, 0, None) for name in names))


@pytest.mark.parametrize(("names", "kind"), [
    (("__schedule", "schedule", "schedule_preempt_disabled", "__mutex_lock", "f"), "mutex"),
    (("__schedule", "schedule", "rwsem_down_write_slowpath", "down_write", "f"), "rwsem"),
    (("__schedule", "schedule", "schedule_timeout", "__down", "down", "f"), "semaphore"),
    (("__schedule", "schedule", "schedule_timeout", "wait_for_completion", "__flush_work", "f"), "work"),
    (("__schedule", "schedule", "schedule_timeout", "wait_for_completion", "__wait_rcu_gp", "synchronize_rcu"), "RCU"),
    (("__schedule", "schedule", "schedule_timeout", "__wait_for_common", "__synchronize_srcu", "f"), "SRCU"),
    (("__schedule", "schedule", "schedule_timeout", "wait_for_completion", "f"), "completion"),
    (("__schedule", "schedule", "io_schedule", "folio_wait_bit_common", "f"), "page lock"),
    (("__schedule", "schedule", "io_schedule", "bit_wait_io", "__wait_on_bit", "out_of_line_wait_on_bit",
      "__wait_on_buffer", "f"), "buffer lock"),
    (("__schedule", "schedule", "io_schedule", "f"), "I/O"),
    # An expedited grace period behind a mutex: the mutex is what it waits for.
    (("__schedule", "schedule", "__mutex_lock", "synchronize_rcu_expedited", "f"), "mutex"),
    (("__schedule", "schedule", "schedule_timeout", "msleep", "f"), None),
])
def test_the_stack_says_the_kind(names: tuple[str, ...], kind: str | None) -> None:
    assert kind_of(stack(*names)) == kind


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_the_graph_of_a_deadlock(kernel_name: str) -> None:
    for kernel in opened(kernel_name, "deadlock"):
        graph = diagnose(kernel).blocked.graph
        assert graph is not None
        assert graph.roots == ()
        (circle,) = graph.circles
        one, other = circle.orders
        assert (one.holds, one.wants) == (other.wants, other.holds)
        assert {one.function, other.function} == {"flaky_update_totals", "flaky_publish_stats"}
        assert {edge.pid: edge.owner_pid for edge in graph.edges} == {one.pid: other.pid, other.pid: one.pid}
        assert all(edge.certain and edge.kind == "mutex" for edge in graph.edges)
        assert sorted(family.count for family in graph.families) == [1, 1]


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_the_root_of_a_hang(kernel_name: str) -> None:
    for kernel in opened(kernel_name, "hung-task"):
        graph = diagnose(kernel).blocked.graph
        assert graph is not None
        assert graph.circles == ()
        (root,) = graph.roots
        assert root.comm == "flaky_collect"
        assert root.doing.endswith("in flaky_await_answer()")
        (edge,) = graph.edges
        assert (edge.comm, edge.owner_pid, root.waiters) == ("flaky_report", root.pid, (edge.pid,))


def test_both_lock_orders_are_evidence() -> None:
    for kernel in opened("6.1", "deadlock"):
        detail = next(item.detail for item in diagnose(kernel).verdict.evidence if "order" in item.what)
        assert "flaky_update_totals() holds flaky+0x10 [flaky] and wants flaky+0x30 [flaky]" in detail
        assert "flaky_publish_stats() holds flaky+0x30 [flaky] and wants flaky+0x10 [flaky]" in detail


@pytest.mark.parametrize("kernel_name", [name for name, _ in lab.panics("troubled")])
def test_who_waits_for_disks_and_servers(kernel_name: str) -> None:
    """A request is told from the page or the stack, its disk's worker from the work, a frozen file system by name."""
    for kernel in opened(kernel_name, "troubled"):
        graph = diagnose(kernel).blocked.graph
        assert graph is not None
        edges = {edge.name: edge for edge in graph.edges}
        modules = kernel_name != "5.10"                 # whose modules' types are in no dump
        # 5.10 makes a request a page of it.
        (written,) = (edge for edge in graph.edges
                      if re.fullmatch(r"write of \d+ bytes at sector \d+ of loop5", edge.name))
        for edge in (edges["read of 4096 bytes at sector 0 of sda"], edges["read of 4096 bytes at sector 64 of sda"],
                     written):
            assert (edge.kind, edge.comm) == ("I/O", "dd")
            assert edge.note.startswith("in flight for ")
        frozen = edges["s_writers (writes) of the file system on loop0, which is frozen"]
        assert frozen.kind == "percpu rwsem"
        assert (written.owner_pid, written.owner_comm) == (frozen.pid, frozen.comm)
        root = next(root for root in graph.roots if root.pid == frozen.pid)
        assert root.waiters == (written.pid,)
        assert "which is frozen, and nobody is known to hold that" in root.doing
        (held,) = (edge for edge in graph.edges if edge.kind == "page lock")
        assert re.fullmatch(r"a page of the block device dm-\d", held.name)
        if modules:
            assert re.fullmatch(r"dm-\d is suspended", held.note)
            assert edges["answer of the server 127.0.0.1 (nfs)"].comm == "mount"


def test_locks_are_named_by_what_they_belong_to() -> None:
    for kernel in opened("6.1", "sysrq"):
        things = Things(kernel)
        task = kernel.task_object(sleeper(kernel, "init").address)
        pid = int(task.pid.value_())
        assert things.of_lock("rwsem", task.mm.mmap_lock.address_of_().value_()) == f"mmap_lock of init (pid {pid})"
        root = task.fs.root.dentry.d_inode
        named = {member: things.of_lock("rwsem", lock.address_of_().value_()) for member, lock in (
            ("i_rwsem", root.i_rwsem), ("s_umount", root.i_sb.s_umount))}
        assert named["i_rwsem"].startswith("i_rwsem of the directory / on ")
        assert named["s_umount"].startswith("s_umount of the file system on ")
        assert things.of_lock("rwsem", kernel.prog.symbol("tasklist_lock").address) == ""
        waits = Waits(kernel, None)
        assert waits.names.of(task.stack.value_() + 0x3000) == f"on the stack of init (pid {pid})"
        assert things.of_lock("mutex", task.mm.mmap_lock.address_of_().value_()) == ""


def test_a_damaged_list_of_file_systems_is_read_once() -> None:
    with kdumpy.open(lab.dump("6.1", "deadlock").path) as kernel:
        first = kernel.prog["super_blocks"].next.value_()
        block = first - drgn.offsetof(kernel.prog.type("struct super_block"), "s_list")
        lock = block + drgn.offsetof(kernel.prog.type("struct super_block"), "s_umount")
        kernel.prog.add_memory_segment(first, 8, lambda address, count, offset, physical:
                                       first.to_bytes(8, "little")[offset:offset + count])
        with pytest.raises(DamagedDump, match="list of file systems runs in a circle"):
            list(super_blocks(kernel.prog))
        things, started = Things(kernel), time.process_time()
        for _ in range(300):
            assert things.of_lock("rwsem", lock).startswith("s_umount of the file system on ")
        assert time.process_time() - started < 10


def test_a_reader_is_no_certain_owner() -> None:
    """mmap_lock of a task, made to be held by two readers."""
    for kernel in opened("6.1", "hung-task"):
        prog = kernel.prog
        task = kernel.task_object(sleeper(kernel, "init").address)
        lock = task.mm.mmap_lock.address_of_()
        words = {"count": 2 << 8, "owner": task.value_() | 1}
        for member, value in words.items():
            place = lock.value_() + drgn.offsetof(lock.type_.type, member)
            data = struct.pack("<Q", value)
            prog.add_memory_segment(place, 8, lambda address, count, offset, physical, data=data:
                                    data[offset : offset + count])
        found = Waits(kernel, None)._lock("rwsem", lock.value_(), task, "write")
        assert found.owner is not None
        assert found.owner.comm == "init"
        assert not found.certain
        assert found.note == "held by 2 readers; the one named came last"


def test_only_the_log_gives_no_graph() -> None:
    for kernel in opened("6.1", "sysrq"):
        crash = Crash(kernel.path, None, kernel.log)
        assert crash.waits is None


def test_the_readers_of_srcu_are_counted() -> None:
    for kernel in opened("6.1", "hung-task"):
        address = kernel.prog.symbol("fsnotify_mark_srcu").address
        assert srcu.readers_of(kernel.prog, address) == 0
        inside = per_cpu_ptr(drgn.Object(kernel.prog, "struct srcu_struct *", address).sda, 0).srcu_lock_count[0]
        more = (int(inside.value_()) + 2).to_bytes(8, "little")
        kernel.prog.add_memory_segment(inside.address_, 8, lambda *args, data=more: data, False)
        assert srcu.readers_of(kernel.prog, address) == 2
        assert srcu.readers_of(kernel.prog, 8) is None


@pytest.mark.skipif(not lab.FULL, reason="the task that waits for SRCU is in the full matrix only")
def test_which_srcu_a_task_waits_for() -> None:
    for kernel in opened("6.1", "old-route"):
        found = next(iter(Waits(kernel, None).blocked)).waits_for
        assert found is not None
        assert (found.kind, found.name.split("+")[0]) == ("SRCU", "ferry_line")
        assert found.note == "1 of its readers is inside"
