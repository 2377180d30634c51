"""The log's lines become events, whatever the kernel's version, and whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.oops import _HEADS, Kind, kind_of, read_events
from unit.diagnosis import kernel_logs

KERNELS = sorted({path.name.split("-")[0] for path in kernel_logs.LOGS.glob("*-null-workqueue.txt")})

# One line for each opening, as kernels have printed it.
OPENINGS = {
    "BUG: scheduling while atomic: swapper/0/0/0x00000102": Kind.ATOMIC,
    "sysrq: Trigger a crash": Kind.SYSRQ,
    "Kernel panic - not syncing: sysrq triggered crash": Kind.SYSRQ,
    "Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled": Kind.OOM_PANIC,
    "Kernel panic - not syncing: System is deadlocked on memory": Kind.OOM_PANIC,
    "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300": Kind.INIT,
    "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)": Kind.ROOT,
    "Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.": Kind.ROOT,
    "Kernel panic - not syncing: Fatal machine check": Kind.MACHINE_CHECK,
    "Kernel panic - not syncing: Fatal local machine check": Kind.MACHINE_CHECK,
    "mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 9: be00000000000097": Kind.MACHINE_CHECK,
    "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: f+0x4e/0x50 [m]": Kind.STACK_SMASHED,
    "Kernel panic - not syncing: corrupted stack end detected inside scheduler": Kind.STACK_SMASHED,
    "Uhhuh. NMI received for unknown reason 21 on CPU 0.": Kind.NMI,
    "NMI: PCI system error (SERR) for reason a1 on CPU 0.": Kind.NMI,
    "Kernel panic - not syncing: NMI: Not continuing": Kind.NMI,
    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3": Kind.HARD_LOCKUP,
    "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 2": Kind.HARD_LOCKUP,
    "Kernel panic - not syncing: Fatal exception in interrupt": Kind.PANIC,
    "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)": Kind.NX,
    "unable to execute userspace code (SMEP?) (uid: 0)": Kind.USER_EXECUTE,
    "BUG: kernel NULL pointer dereference, address: 0000000000000010": Kind.NULL,
    "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010": Kind.NULL,
    "BUG: unable to handle page fault for address: ff48c6c2571cfcc0": Kind.PAGE_FAULT,
    "Unable to handle kernel paging request at virtual address ffff80001234": Kind.PAGE_FAULT,
    "Unable to handle kernel access to user memory outside uaccess routines at virtual address 1": Kind.USER_ACCESS,
    "Unable to handle kernel write to read-only memory at virtual address ffff800008a10000": Kind.READONLY,
    "BUG: stack guard page was hit at 0000000012345678 (stack is 1..2)": Kind.STACK_GUARD,
    "BUG: TASK stack guard page was hit at 0000000012345678 (stack is 1..2)": Kind.STACK_GUARD,
    "Insufficient stack space to handle exception!": Kind.STACK_GUARD,
    "BUG: KASAN: slab-use-after-free in f+0x1/0x2": Kind.SANITIZER,
    "BUG kmalloc-64 (Tainted: G           OE     ): Object already free": Kind.SLAB,
    "list_del corruption, ff4642e8954420a0->next is LIST_POISON1 (dead000000000100)": Kind.LIST,
    "list_add corruption. prev->next should be next (1), but was 2. (prev=3).": Kind.LIST,
    "refcount_t: underflow; use-after-free.": Kind.REFCOUNT,
    "kernel BUG at mm/slub.c:419!": Kind.BUG,
    "general protection fault, probably for non-canonical address 0x6b6b6b6b6b6b6b7b: 0000 [#1]": Kind.PROTECTION,
    "Oops: general protection fault, maybe for address 0x1: 0000 [#1] SMP": Kind.PROTECTION,
    "general protection fault: 0000 [#1] PREEMPT SMP NOPTI": Kind.PROTECTION,
    "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI": Kind.OPCODE,
    "Oops: invalid opcode: 0000 [#1] SMP": Kind.OPCODE,
    "divide error: 0000 [#1] PREEMPT SMP NOPTI": Kind.DIVIDE,
    "watchdog: BUG: soft lockup - CPU#0 stuck for 8s! [flaky_report:149]": Kind.SOFT_LOCKUP,
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:": Kind.RCU,
    "rcu: INFO: rcu_sched self-detected stall on CPU": Kind.RCU,
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... }": Kind.RCU,
    "INFO: task flaky_report:147 blocked for more than 3 seconds.": Kind.HUNG,
    "dd invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0": Kind.OOM,
    "WARNING: CPU: 1 PID: 157 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110": Kind.WARN,
    "WARNING: lib/refcount.c:28 at refcount_warn_saturate+0xba/0x110, CPU#1: sh/157": Kind.WARN,
    "Oops: 0000 [#1] PREEMPT SMP NOPTI": Kind.DIE,
    "Internal error: Oops: 0000000096000004 [#1] SMP": Kind.DIE,
}

# Lines that look like an opening and are none.
NEAR = (
    "traps: cat[123] general protection fault ip:55e0 sp:7ffd error:0 in cat[55e0+1000]",
    "traps: foo[12] trap invalid opcode ip:1 sp:2 error:0",
    "foo[1]: segfault at 0 ip 1 sp 2 error 4 in foo[3+4]",
    "mce: CPU0: Thermal monitoring enabled (TM1)",
    "Write protecting the kernel read-only data: 26624k",
    "watchdog: Delayed init of the lockup detector failed",
    "systemd[1]: Freezing execution.",
    "",
)


@pytest.mark.parametrize(("line", "kind"), OPENINGS.items())
def test_each_opening_is_known(line: str, kind: Kind) -> None:
    assert kind_of(line) == kind


def test_no_opening_is_without_an_example() -> None:
    assert {kind for kind, _ in _HEADS} == set(OPENINGS.values())


@pytest.mark.parametrize("line", NEAR)
def test_what_is_no_opening(line: str) -> None:
    assert kind_of(line) is None


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_null_dereference_in_the_words_of_each_kernel(kernel: str) -> None:
    crash = kernel_logs.stored_crash(f"{kernel}-null-workqueue")
    event = crash.event
    assert event is not None
    assert {Kind.NULL, Kind.DIE} <= event.kinds
    assert event.fatal
    assert event.address == 0
    assert event.access == "read"
    assert event.error_code == 0
    assert event.place is not None
    assert (event.place.symbol.split(".")[0], event.place.module) == ("flaky_poll_channel", "flaky")
    assert event.task is not None
    assert event.task[1].startswith("kworker/")
    assert event.work == "flaky flaky_poll_work [flaky]"
    assert event.taint == "GOE"
    assert event.registers["cr2"] == 0
    assert [place.symbol for place in event.trace][:3] == ["flaky_poll_work", "process_one_work", "worker_thread"]
    assert crash.closing is None            # kdump took over before it was printed


def test_several_openings_are_one_event() -> None:
    event = kernel_logs.stored_crash("6.1-list-corruption").event
    assert event is not None
    assert {Kind.LIST, Kind.BUG, Kind.OPCODE} <= event.kinds
    assert event.text.startswith("list_del corruption")
    assert event.bug_at is not None
    assert event.bug_at.startswith("lib/list_debug.c:")


def test_the_first_oops_wins_over_the_closing_panic() -> None:
    crash = kernel_logs.crash("""\
[  100.000001] BUG: kernel NULL pointer dereference, address: 0000000000000008
[  100.000002] Oops: 0000 [#1] PREEMPT SMP NOPTI
[  100.000003] CPU: 0 PID: 7 Comm: a b Kdump: loaded Tainted: G           OE      6.1.0 #1
[  100.000004] RIP: 0010:first+0x1/0x2 [one]
[  100.000005] ---[ end trace 0000000000000000 ]---
[  300.000001] BUG: unable to handle page fault for address: ffff000000001000
[  300.000003] CPU: 1 PID: 8 Comm: b Not tainted 6.1.0 #1
[  300.000004] RIP: 0010:second+0x1/0x2
[  300.000005] Kernel panic - not syncing: Fatal exception
""")
    assert crash.event is not None
    assert crash.event.place is not None
    assert crash.event.place.symbol == "first"
    assert crash.event.task == (7, "a b")
    assert crash.closing is not None


def test_the_closing_panic_names_what_it_was_made_of() -> None:
    crash = kernel_logs.stored_crash("6.1-hung-task")
    assert crash.event is not None
    assert Kind.HUNG in crash.event.kinds
    assert crash.event.task is not None
    assert crash.event.task[1] == "flaky_report"
    assert crash.event.seconds_stuck == 3
    assert crash.closing_words == "hung_task: blocked tasks"


def test_a_hung_task_of_long_ago_is_not_the_one() -> None:
    crash = kernel_logs.crash("""\
[  100.000001] INFO: task early:10 blocked for more than 120 seconds.
[  100.000002] CPU: 0 PID: 9 Comm: khungtaskd
[ 9000.000001] INFO: task late:20 blocked for more than 120 seconds.
[ 9000.000002] CPU: 0 PID: 9 Comm: khungtaskd
[ 9000.000003] Kernel panic - not syncing: hung_task: blocked tasks
""")
    assert crash.event is not None
    assert crash.event.task == (20, "late")


def test_a_process_cannot_forge_an_oops() -> None:
    forged = kernel_logs.records("[    1.000000] BUG: kernel NULL pointer dereference, address: 0", facility=1)
    from pathlib import Path

    assert Crash(Path("vmcore"), None, forged).event is None


def test_arm64_wording() -> None:
    event = read_events("""\
Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010
Internal error: Oops: 0000000096000004 [#1] SMP
CPU: 1 PID: 35 Comm: kworker/1:1 Tainted: G           OE      6.1.0-50-cloud-arm64 #1
pc : flaky_poll_channel+0x10/0x30 [flaky]
lr : flaky_poll_work+0x50/0x140 [flaky]
Call trace:
 flaky_poll_channel+0x10/0x30 [flaky]
 flaky_poll_work+0x50/0x140 [flaky]
 process_one_work+0x1e8/0x350
""".splitlines())[0]
    assert event.address == 0x10
    assert event.place is not None
    assert event.place.symbol == "flaky_poll_channel"
    assert [place.symbol for place in event.trace] == ["flaky_poll_channel", "flaky_poll_work", "process_one_work"]


_SNIPPETS = st.sampled_from([*OPENINGS, *NEAR, "Call Trace:", " ? f+0x1/0x2", " g+0x3/0x4 [m]", "RIP: 0010:0x0",
                             "CPU: 99999999999999999999 PID: 1 Comm: x", "---[ end trace 0 ]---", "CR2: " + "f" * 16])


@given(st.lists(st.one_of(_SNIPPETS, st.text(max_size=80))))
def test_no_text_raises(lines: list[str]) -> None:
    for event in read_events(lines):
        for name in ("address", "access", "error_code", "place", "nowhere", "cpu", "task", "work", "taint", "bug_at",
                     "seconds_stuck", "registers", "trace", "fatal"):
            getattr(event, name)


@pytest.mark.parametrize(("name", "place"), [("6.1-warn", "/build/flaky_control.c:"),
                                             ("newest-warn", "flaky_control.c:")])
def test_a_warning_in_the_old_and_the_new_wording(name: str, place: str) -> None:
    event = kernel_logs.stored_crash(name).event
    assert event is not None
    assert Kind.WARN in event.kinds
    assert event.before == "flaky: rate 5 Hz is too low"
    assert event.bug_at is not None
    assert event.bug_at.startswith(place)
    assert event.place is not None
    assert event.place.symbol.startswith("flaky_check_rate")


@pytest.mark.parametrize(("esr", "access"), [
    ("96000004", "read"), ("96000044", "write"), ("96000147", "read"), ("86000004", "execute"), ("f2000800", None)])
def test_arms_syndrome_tells_the_access(esr: str, access: str | None) -> None:
    """Else a fault on arm64 would not be grouped with the same one on x86-64. 0x147: cache maintenance, no write."""
    (event,) = read_events(["Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
                            "Mem abort info:", f"  ESR = 0x00000000{esr}"])
    assert event.esr == int(esr, 16)
    assert event.access == access


def test_a_processor_without_a_syndrome_has_none() -> None:
    (event,) = read_events(["BUG: kernel NULL pointer dereference, address: 0000000000000018",
                            "#PF: error_code(0x0002) - not-present page"])
    assert event.esr is None
    assert event.access == "write"
