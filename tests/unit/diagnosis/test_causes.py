"""Rules of single causes, on stacks and logs made by hand."""

from __future__ import annotations

from typing import cast

import pytest

from kdumpy.debuginfo.modules import ModuleSymbols
from kdumpy.diagnosis import culprit, memory, operands, owned
from kdumpy.diagnosis.causes.base import Words
from kdumpy.diagnosis.causes.hung_task import _has_only_the_lock, _title
from kdumpy.diagnosis.causes.rcu_stall import RcuStall
from kdumpy.diagnosis.causes.stack_overflow import _on_the_way, _recurring
from kdumpy.diagnosis.model import Confidence, Culprit
from kdumpy.diagnosis.verdict import judge
from kdumpy.diagnosis.waits.locks import BlockedTask, LockWait
from kdumpy.diagnosis.waits.waiting import kind_of
from kdumpy.diagnosis.waits.waitwords import others_wait
from kdumpy.kernel import Kernel, Stack
from kdumpy.kernel.values import Cpu, Frame, Task
from unit.diagnosis import kernel_logs

DOUBLE_ADD = """\
[    7.700001] list_add double add: new=ffff888004a5c810, prev=ffff888004a5c810, next=ffff888004b1f0f0.
[    7.700002] ------------[ cut here ]------------
[    7.700003] kernel BUG at lib/list_debug.c:33!
[    7.700004] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
[    7.700005] CPU: 0 PID: 7 Comm: kworker/0:0 Kdump: loaded Tainted: G           OE      6.1.0 #1
[    7.700006] RIP: 0010:__list_add_valid.cold+0x23/0x5b
[    7.700007] Call Trace:
[    7.700008]  enqueue+0x33/0x50 [driver]
[    7.700009]  process_one_work+0x1c7/0x380
[    7.700010] ---[ end trace 0000000000000000 ]---
"""

NOT_ON_A_LIST = DOUBLE_ADD.replace("list_add_valid", "list_del_entry_valid").replace(
    "list_add double add: new=ffff888004a5c810, prev", "list_del corruption, ffff888004a5c810->next is NULL, prev")


@pytest.mark.parametrize(("text", "subtype", "title"), [
    (DOUBLE_ADD, "list_add-twice", "List entry added twice"),
    (DOUBLE_ADD.partition("\n")[2], "list_add", "Corrupted list"),     # the words before the BUG are lost
    (DOUBLE_ADD.replace("double add: new", "corruption. prev->next should be next"), "list_add", "Corrupted list"),
    (NOT_ON_A_LIST, "list_del", "Removal of what is on no list"),
    (DOUBLE_ADD.replace("list_add double add: new=ffff888004a5c810,", "list_add corruption. prev is NULL."), "list_add",
     "Use of a list that was never set up"),
])
def test_the_checks_of_lists(text: str, subtype: str, title: str) -> None:
    judgement = judge(kernel_logs.crash(text))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.subtype) == ("list-corruption", subtype)
    assert judgement.finding.title == f"{title} in enqueue [driver]"


def test_poison_in_the_words_of_a_list_is_told() -> None:
    told = "list_del corruption. prev->next should be ffff888004a5c810, but was 6b6b6b6b6b6b6b6b."
    judgement = judge(kernel_logs.crash(DOUBLE_ADD.replace(
        "list_add double add: new=ffff888004a5c810, prev=ffff888004a5c810, next=ffff888004b1f0f0.", told)))
    assert judgement is not None
    assert judgement.cause == "list-corruption"
    assert "had been freed" in judgement.finding.explanation


WARNING = """\
[   12.500001] ------------[ cut here ]------------
[   12.500002] {said}
[   12.500003] WARNING: CPU: 0 PID: 0 at kernel/time/timer.c:1801 call_timer_fn+0x10c/0x120
[   12.500004] CPU: 0 PID: 0 Comm: swapper/0 Kdump: loaded Tainted: G           OE      6.1.0 #1
[   12.500005] RIP: 0010:call_timer_fn+0x10c/0x120
[   12.500006] Call Trace:
[   12.500007]  __run_timers+0x1f0/0x280
[   12.500008]  run_timer_softirq+0x2b/0x50
[   12.500009] ---[ end trace 0000000000000000 ]---
[   12.500010] Kernel panic - not syncing: kernel: panic_on_warn set ...
"""


@pytest.mark.parametrize(("said", "function", "module"), [
    ("timer: poll+0x0/0x40 [driver] preempt leak: 00000101 -> 00000102", "poll", "driver"),
    ("percpu ref (free_users [driver]) <= 0 (-1) after switching to atomic", "free_users", "driver"),
    ("NETDEV WATCHDOG: eth0 (driver): transmit queue 0 timed out", None, "driver"),
    ("irq 14 handler poll+0x0/0x40 [driver] enabled interrupts", "poll", "driver"),
    ("something is wrong", None, None),
])
def test_a_warning_can_name_whom_it_is_about(said: str, function: str | None, module: str | None) -> None:
    judgement = judge(kernel_logs.crash(WARNING.replace("{said}", said)))
    assert judgement is not None
    assert judgement.cause == "warn"
    found = judgement.finding.culprit
    assert (found and found.function, found and found.module) == (function, module)
    assert (judgement.finding.confidence == Confidence.CERTAIN) == (module is not None)


@pytest.mark.parametrize(("place", "confidence"), [
    ("RIP: 0010:usercopy_abort+0x6c/0x7e", Confidence.LIKELY),           # a check of the kernel, for anybody
    ("RIP: 0010:commit+0x6c/0x7e [driver]", Confidence.CERTAIN),
])
def test_a_check_that_serves_many_is_not_certain(place: str, confidence: Confidence) -> None:
    text = DOUBLE_ADD.partition("\n")[2].replace("lib/list_debug.c:33", "mm/usercopy.c:101") \
        .replace("RIP: 0010:__list_add_valid.cold+0x23/0x5b", place)
    judgement = judge(kernel_logs.crash(text))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.confidence) == ("bug", confidence)


def stack(*names: str) -> tuple[Frame, ...]:
    return tuple(Frame(1, name, 0, None) for name in names)


def test_functions_that_call_each_other_have_one_name() -> None:
    turns = ["leaf", "tree"] * 20
    assert _recurring(stack(*turns, "tree"))[0] == _recurring(stack("leaf", *turns))[0] == "leaf"
    assert _recurring(stack(*["b"] * 9, *["a"] * 3)) == ("b", 9)
    assert _recurring(stack("b", "a"))[1] == 1
    assert _recurring(()) == (None, 0)


def test_of_a_circle_through_a_module_the_module_is_named() -> None:
    turn = [*stack("notify", "notify", "set_mtu"), Frame(1, "follow", 0, "driver")]
    assert _recurring(turn * 20) == ("follow", 20)
    # A module that is on the stack, and not in the circle.
    assert _recurring([*stack(*["walk"] * 40), *[Frame(1, "ask", 0, "driver")] * 6]) == ("walk", 40)
    assert _recurring([*stack(*["walk"] * 9), Frame(1, "ask", 0, "driver")]) == ("walk", 9)


ATOMIC = """\
[   15.533032] BUG: scheduling while atomic: swapper/0/0/0x{count}
[   15.533312] Modules linked in: driver(OE) [last unloaded: other]
[   15.533979] Kernel panic - not syncing: scheduling while atomic: panic_on_warn set ...
[   15.534401] CPU: 0 PID: 0 Comm: swapper/0 Kdump: loaded Tainted: G           OE      6.1.0 #1
[   15.535101] Call Trace:
[   15.535862]  panic+0x344/0x3a0
[   15.536119]  check_panic_on_warn+0x44/0x60
[   15.536205]  __schedule_bug+0x51/0x70
[   15.536278]  __schedule+0x9fa/0xbf0
[   15.536467]  schedule+0x27/0xc0
[   15.537019]  finish+0x1d/0x30 [driver]
[   15.537249]  call_timer_fn+0x2a/0x120
"""


@pytest.mark.parametrize(("count", "where", "confidence"), [
    ("00000102", "in a softirq", "certain"), ("00010001", "in a hard interrupt", "certain"),
    ("00000201", "keeps softirqs off", "likely"), ("00000002", "keeps preemption off", "likely"),
])
def test_a_sleep_where_none_is_allowed(count: str, where: str, confidence: str) -> None:
    judgement = judge(kernel_logs.crash(ATOMIC.format(count=count)))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.subtype) == ("bug", "atomic")
    assert where in judgement.finding.explanation
    assert "kernel.panic_on_warn" in judgement.finding.explanation
    assert judgement.finding.culprit is not None
    assert (judgement.finding.culprit.function, judgement.finding.confidence) == ("finish", confidence)


@pytest.mark.parametrize("function", ["flush_work", "__flush_work", "cancel_work_sync", "destroy_workqueue"])
def test_waiting_for_the_end_of_work(function: str) -> None:
    waiting = Stack(stack("__schedule", "schedule", "schedule_timeout", "__wait_for_common", function, "stop"))
    assert kind_of(waiting) == "work"


class Modules:
    """Two modules: a at 0x1000, b at 0x2000; their code is the first 0x100 bytes."""

    def module_at(self, address: int) -> str | None:
        return {1: "a", 2: "b"}.get(address >> 12)

    def __contains__(self, address: int) -> bool:
        return address & 0xFFF < 0x100


class FakeKernel:
    prog = None

    def __init__(self) -> None:
        self.debuginfo = self
        self.text = self.module_symbols = cast(ModuleSymbols, Modules())


@pytest.mark.parametrize(("registers", "found"), [
    ({"rbx": 0x1208, "r13": 0x1200}, "a_data"),
    ({"rbx": 0x1208, "rdi": 0x2200}, None),             # two modules: whose is it?
    ({"rbx": 0x1010, "rdi": 0x3000}, None),             # code, and no module at all
    ({"rip": 0x1208, "rsp": 0x1210}, None),
    ({}, None),
])
def test_the_variable_that_the_registers_lead_to(monkeypatch: pytest.MonkeyPatch, registers: dict[str, int],
                                                 found: str | None) -> None:
    monkeypatch.setattr(memory, "symbol_at", lambda prog, address: f"a_data+{address & 0xff:#x}")
    choice = owned.variable_of_a_module(cast(Kernel, FakeKernel()), registers)
    assert (choice.frame.symbol if choice.frame else None) == found
    if choice.frame:
        assert (choice.frame.module, choice.frame.offset, choice.frame.data) == ("a", 0, True)


def test_a_culprit_in_words() -> None:
    assert Culprit("f", "a", None).words == "f()"
    assert Culprit("", "a", None, variable="a_data").words == "the variable a_data"


def test_an_entry_that_was_never_on_a_list_has_no_neighbours() -> None:
    judgement = judge(kernel_logs.crash(NOT_ON_A_LIST))
    assert judgement is not None
    assert "never put on a list" in judgement.finding.explanation
    assert "neighbours" not in judgement.finding.explanation


def test_a_counter_of_zero_is_not_told_as_a_freed_object() -> None:
    text = """\
[    7.700001] refcount_t: addition on 0; use-after-free.
[    7.700002] WARNING: CPU: 0 PID: 7 at lib/refcount.c:25 refcount_warn_saturate+0x97/0x110
[    7.700003] RIP: 0010:refcount_warn_saturate+0x97/0x110
[    7.700004] Call Trace:
[    7.700005]  lane_get+0x33/0x50 [driver]
[    7.700006] Kernel panic - not syncing: panic_on_warn set ...
"""
    judgement = judge(kernel_logs.crash(text))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.subtype) == ("refcount", "addition-on-zero")
    assert "already freed" not in judgement.finding.explanation


@pytest.mark.parametrize(("names", "where"), [
    (("f", "irq_thread_fn", "irq_thread", "kthread"), "It ran in an interrupt thread (f), in {}."),
    (("f", "__flush_smp_call_function_queue", "asm_sysvec_call_function_single", "do_idle", "cpu_startup_entry"),
     "It ran in a call from another CPU (f), which had interrupted {}."),
    (("f", "asm_sysvec_deferred_error", "do_idle", "cpu_startup_entry"),
     "It ran in an interrupt, which had interrupted {}."),
    (("f", "do_idle", "cpu_startup_entry"), "It ran in {}."),
    (("f", "tasklet_action_common", "handle_softirqs", "run_ksoftirqd", "smpboot_thread_fn", "kthread"),
     "It ran in a tasklet (f), in {}."),
    (("f", "net_rx_action", "__do_softirq", "do_softirq", "__local_bh_enable_ip", "vfs_write", "do_syscall_64"),
     "It ran in network receive (f), in {}."),
    (("f", "irq_work_single", "irq_work_run_list", "sysvec_irq_work", "asm_sysvec_irq_work", "vfs_write"),
     "It ran in an irq_work (f), which had interrupted {}."),
    (("call_timer_fn", "__run_timers", "__do_softirq", "asm_sysvec_apic_timer_interrupt", "do_idle"),
     "It ran in a timer, which had interrupted {}."),
    (("__timer_delete_sync", "call_timer_fn", "__run_timers"), "It ran in a timer, which had interrupted {}."),
    (("schedule", "worker_thread", "kthread"), "It ran in the worker of a work queue, between two works, in {}."),
])
def test_what_ran_the_code_and_what_it_interrupted(names: tuple[str, ...], where: str) -> None:
    crash = kernel_logs.crash("[    7.700000] BUG: kernel NULL pointer dereference, address: 0000000000000008\n"
                              "[    7.700000] CPU: 0 PID: 7 Comm: thread Not tainted 6.1.0\n")
    assert Words(crash).where_in(stack(*names), crash.task_words) == where.format("task thread (pid 7)")


def blocked(comm: str, pid: int, wait: LockWait | None) -> BlockedTask:
    return BlockedTask(task(comm, pid), Stack(()), 4.0, wait)


def task(comm: str, pid: int) -> Task:
    return Task(address=pid << 12, pid=pid, tgid=pid, parent=2, comm=comm, state="D", cpu=0, on_cpu=False,
                kernel_thread=False)


def test_what_the_other_tasks_wait_for_is_told_apart() -> None:
    crew, other = task("crew", 163), task("other", 9)
    first = blocked("crew", 163, LockWait("wait queue", 0x1000, "line [ferry]", None))
    network = blocked("ip", 166, LockWait("mutex", 0x2000, "rtnl_mutex", crew))
    same = blocked("twin", 167, LockWait("wait queue", 0x1000, "line [ferry]", None))
    rest = blocked("dd", 168, LockWait("mutex", 0x3000, "else", other))
    assert others_wait([first], first, []) == ""
    assert others_wait([first, network], first, []) == (
        "ip (pid 166) waits for the mutex rtnl_mutex (the lock of the network's configuration), "
        "which crew (pid 163) holds.")
    assert others_wait([first, same], first, []) == "twin (pid 167) waits for it, too."
    assert others_wait([first, rest], first, []) == "1 other task waits for something else."


@pytest.mark.parametrize(("kind", "title"), [
    ("mutex", "A task hung: rewind [driver] holds its lock and does not give it back"),
    ("work", "A task hung: the work that it waits for is still in rewind [driver]"),
    ("RCU", "A task hung: an RCU grace period waits for rewind [driver]"),
    ("completion", "A task hung: it waits for what rewind [driver] is to bring about"),
])
def test_only_who_has_a_lock_is_said_to_hold_one(kind: str, title: str) -> None:
    words = Words(kernel_logs.crash(DOUBLE_ADD), Frame(1, "rewind", 0, "driver"))
    assert _title(LockWait(kind, 1, "x", task("t", 1)), words) == title


def test_advice_to_wait_longer_is_not_given_where_a_module_keeps_a_mutex() -> None:
    lock, frame = LockWait("mutex", 1, "x", task("t", 1)), Frame(1, "hold", 0, "driver")
    holder = culprit.Choice(frame, ())
    assert _has_only_the_lock(lock, holder, (frame,))
    assert not _has_only_the_lock(lock, holder, (*stack("io_schedule"), frame))
    assert not _has_only_the_lock(LockWait("completion", 1, "x", task("t", 1)), holder, (frame,))


OVERFLOW = """\
[   13.100000] detected buffer overflow in strcpy
[   13.200000] ------------[ cut here ]------------
[   13.300000] kernel BUG at lib/string_helpers.c:1027!
[   13.400000] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
[   13.500000] CPU: 1 PID: 157 Comm: sh Tainted: G           OE      6.1.0 #1
[   13.600000] RIP: 0010:fortify_panic+0xf/0x11
[   13.700000] Call Trace:
[   13.800000]  copy_name+0xc/0x10 [driver]
"""


@pytest.mark.parametrize(("said", "told"), [
    ("detected buffer overflow in strcpy", "wrote more bytes than the buffer has room for with strcpy()"),
    ("strcpy: detected buffer overflow: 11 byte write of buffer size 8",
     "wrote 11 bytes into a buffer of 8 with strcpy()"),
    ("memcpy: detected buffer overflow: 11 byte read of buffer size 8",
     "read 11 bytes out of a buffer of 8 with memcpy()"),
])
def test_a_checked_copy_is_told_as_what_it_did(said: str, told: str) -> None:
    judgement = judge(kernel_logs.crash(OVERFLOW.replace("detected buffer overflow in strcpy", said)))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.title) == ("bug", "Buffer overflow in copy_name [driver]")
    assert told in judgement.finding.explanation
    assert "string_helpers" not in " ".join(judgement.finding.next)


def test_words_of_an_overflow_are_not_those_of_another_check() -> None:
    judgement = judge(kernel_logs.crash(OVERFLOW.replace("lib/string_helpers.c:1027", "fs/inode.c:7")))
    assert judgement is not None
    assert "overflow" not in judgement.finding.title


@pytest.mark.parametrize(("esr", "absent"), [
    (0x96000007, True), (0x96000004, True), (0x9600000F, False), (0x96000021, False), (0x96000047, True),
    (0x5600BEEF, None),
])
def test_the_syndrome_of_arm_says_whether_a_page_was_there(esr: int, absent: bool | None) -> None:
    crash = kernel_logs.crash("[   1.000000] Unable to handle kernel paging request at virtual address ffff8000800cd0\n"
                              f"[   1.100000] Mem abort info:\n[   1.200000]   ESR = 0x{esr:016x}\n")
    assert crash.event is not None
    assert crash.event.no_page_there is absent


@pytest.mark.parametrize(("code", "registers", "found"), [
    ("48f7f1", {"rcx": 0}, ("%rcx", 0)), ("f7f7", {"rdi": 7 << 32}, ("%edi", 0)),
    ("f6f5", {"rcx": 0x1200}, ("%ch", 18)),
    ("48f7f1", {}, None), ("4801c8", {"rcx": 0}, None),
])
def test_what_a_division_is_by(code: str, registers: dict[str, int], found: tuple[str, int] | None) -> None:
    def read(address: int, size: int) -> bytes:
        return (bytes.fromhex(code) + bytes(16))[:size]

    instruction = operands.decode(read, 0x1000, registers)
    assert instruction is not None
    assert operands.divisor(read, instruction, registers) == found


def test_functions_that_call_each_other_are_both_named() -> None:
    assert _on_the_way(stack(*["leaf", "tree"] * 8, "start"), "leaf") == ("tree()",)
    assert _on_the_way(stack(*["leaf"] * 8, "start"), "leaf") == ()


@pytest.mark.parametrize(("names", "words"), [
    (("f", "kthread"), ", in the task reporter (pid 7),"),
    (("f", "clock", "__hrtimer_run_queues", "hrtimer_interrupt", "asm_sysvec_apic_timer_interrupt", "do_idle"),
     ", in a high-resolution timer (clock), which had interrupted the task reporter (pid 7),"),
])
def test_a_stalled_cpu_is_told_with_what_ran_there(names: tuple[str, ...], words: str) -> None:
    cpu = Cpu(0, task("reporter", 7), False, False, Stack(stack(*names)), "in the kernel")
    assert RcuStall._ran_by(cpu) == words
