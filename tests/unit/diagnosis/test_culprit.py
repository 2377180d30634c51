"""Which frame is to blame, and by which rule."""

from __future__ import annotations

from dataclasses import replace

from kdumpy.diagnosis import culprit
from kdumpy.kernel.values import Frame


def frames(*names: str) -> list[Frame]:
    """`function` or `function [module]`, innermost first."""
    made = []
    for name in names:
        symbol, _, module = name.partition(" [")
        made.append(Frame(0, symbol, 1, module.rstrip("]") or None))
    return made


def chosen(*names: str) -> str | None:
    frame = culprit.choose(frames(*names)).frame
    return str(frame.function) if frame else None


def test_plumbing_is_skipped_and_told() -> None:
    choice = culprit.choose(frames("__memcpy", "kfree", "tcp_sendmsg", "sock_write_iter"))
    assert choice.frame is not None
    assert choice.frame.symbol == "tcp_sendmsg"
    assert choice.decisions[0] == "skipped as plumbing: __memcpy, kfree"


def test_a_modules_frame_is_never_skipped() -> None:
    assert chosen("kfree", "mutex_lock [mymutex]", "vfs_read") == "mutex_lock"


def test_the_nearest_module_outranks_the_kernels_own_code_above_it() -> None:
    choice = culprit.choose(frames("tcp_sendmsg", "kernel_sendmsg", "my_send [near]", "svc_send [far]"))
    assert choice.frame is not None
    assert choice.frame.module == "near"
    assert "outranks" in choice.decisions[0]


def test_a_module_of_another_context_is_not_blamed() -> None:
    assert chosen("tick_do_update", "asm_sysvec_apic_timer_interrupt", "spin [driver]") == "tick_do_update"


def test_who_turns_soft_interrupts_on_again_need_not_have_raised_them() -> None:
    names = ("tasklet_action_common", "handle_softirqs", "__do_softirq", "do_softirq", "__local_bh_enable_ip",
             "send [driver]", "vfs_write")
    assert chosen(*names) is None
    assert chosen("pour [other]", *names) == "pour"
    beside = culprit.beside_soft(frames(*names))
    assert beside.frame is not None
    assert (beside.frame.function, beside.doubtful) == ("send", True)
    assert culprit.beside_soft(frames("net_rx_action", "handle_softirqs", "run_ksoftirqd", "kthread")).frame is None


def test_suffixes_of_the_compiler_are_cut() -> None:
    assert chosen("__kmalloc.part.0", "f.isra.0.constprop.1.cold") == "f"


def test_a_forwarder_is_passed_over() -> None:
    assert chosen("copy_user_generic", "vfs_read", "ksys_read", "my_core_reader") == "my_core_reader"


def test_nothing_is_left() -> None:
    choice = culprit.choose(frames("panic", "vfs_write", "do_syscall_64"))
    assert choice.frame is None
    assert choice.decisions[-1] == "no frame is left to choose"


def test_prefixes_of_system_calls() -> None:
    names = [culprit.plain_name(frame) for frame in frames("__x64_sys_read", "__se_sys_read", "ksys_read", "__pfx_f")]
    assert names == ["sys_read", "sys_read", "sys_read", "f"]


def test_what_is_stuck_is_known_by_the_outermost_own_frame() -> None:
    stack = frames("__schedule", "schedule", "inner [drv]", "entry [drv]", "process_one_work", "worker_thread")
    assert culprit.above_anchor(stack).frame == stack[3]
    stack = frames("cpu_relax_loop", "ext_fn", "process_one_work", "worker_thread", "kthread")
    assert culprit.above_anchor(stack).frame == stack[1]


def test_the_context_in_words() -> None:
    assert culprit.context_of(frames("f [m]", "process_one_work", "worker_thread")) == "a work queue (f)"
    assert culprit.context_of(frames("f", "vfs_read", "ksys_read", "do_syscall_64")) == "the system call read"
    assert culprit.context_of(frames("f", "g", "call_timer_fn")) == "a timer (g)"
    assert culprit.context_of(frames("f", "g")) is None


def test_the_lists_hold_names_only() -> None:
    for name in ("plumbing", "anchors", "forwarders"):
        names = culprit.name_list(name)
        assert names.exact
        for item in (*names.exact, *names.prefixes):
            assert item.replace("_", "a").isalnum(), item
            assert len(item) > 1


def interrupted(*names: str) -> list[Frame]:
    """`*function`: an interrupt or exception hit there."""
    return [replace(frame, symbol=(frame.symbol or "").removeprefix("*"), interrupted=(frame.symbol or "")[0] == "*")
            for frame in frames(*names)]


def test_the_tick_that_noticed_is_cut_off() -> None:
    stack = interrupted("__crash_kexec", "panic", "panic_on_rcu_stall", "rcu_sched_clock_irq", "update_process_times",
                        "tick_sched_timer", "__hrtimer_run_queues", "hrtimer_interrupt", "sysvec_apic_timer_interrupt",
                        "asm_sysvec_apic_timer_interrupt", "*spin [driver]", "kthread")
    assert [frame.symbol for frame in culprit.watched(stack)] == ["spin", "kthread"]


def test_an_interrupt_that_hangs_itself_stays() -> None:
    """The NMI that stopped the CPU left no frame; what the timer interrupted is innocent."""
    stack = interrupted("*delay_tsc", "await_bit [driver]", "__hrtimer_run_queues", "hrtimer_interrupt",
                        "asm_sysvec_apic_timer_interrupt", "*native_safe_halt", "default_idle_call", "do_idle")
    assert list(culprit.watched(stack)) == stack
    kernels_own = interrupted("*delay_tsc", "neigh_timer_handler", "call_timer_fn", "asm_sysvec_apic_timer_interrupt",
                              "*vfs_read")
    assert list(culprit.watched(kernels_own)) == kernels_own


def test_the_idle_loop_is_never_to_blame() -> None:
    for halt in ("native_safe_halt", "amd_e400_idle", "pv_native_safe_halt", "default_enter_idle", "mwait_idle"):
        assert chosen(halt, "default_idle_call", "do_idle", "cpu_startup_entry", "start_secondary") is None


def test_the_mark_of_the_allocation_profile_is_cut() -> None:
    assert chosen("alloc_pages_noprof", "__kmalloc_noprof", "f_noprof") == "f_noprof"
    assert culprit.plain_name(frames("f_noprof")[0]) == "f"


def test_a_context_without_a_function_is_named_alone() -> None:
    nowhere = Frame(0, None, None, None)
    assert culprit.context_of([nowhere, *frames("tasklet_action_common")]) == "a tasklet"
