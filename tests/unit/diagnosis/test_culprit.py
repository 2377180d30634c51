"""Which frame is to blame, and by which rule."""

from __future__ import annotations

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
