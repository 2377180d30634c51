"""The crash, read from registers, code and structures: which pointer was bad, whence it came, what it was to reach."""

from __future__ import annotations

import pytest
from drgn.helpers.linux.percpu import per_cpu

import kdumpy
import lab
from diagnosed import diagnosed
from kdumpy.diagnosis import memory
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.crashed.percpu import per_cpu_addresses
from kdumpy.diagnosis.crashed.pointee import pointee
from kdumpy.diagnosis.facts.reading import BadPointer, Reading

WITH_MODULE_TYPES = ("6.12", "newest")
"""The laboratory's driver carries its own types (split BTF) on these kernels; on 6.1 and 5.10 it has none."""


def reading(kernel: str, fault: str) -> Reading | None:
    panic = diagnosed(kernel, fault).panic
    assert panic is not None
    return panic.reading


def pointer(kernel: str, fault: str) -> BadPointer:
    found = reading(kernel, fault)
    assert found is not None
    assert found.pointer is not None
    return found.pointer


# fault -> (expression, function, type, member)
NAMED = {
    "null-workqueue": ("dev->channel", "flaky_poll_channel", "struct flaky_channel *", "struct flaky_channel.id"),
    "null-procread": ("dev->channel", "flaky_show_channel", "struct flaky_channel *", "struct flaky_channel.rate_hz"),
    "general-protection": ("dev->client->channel", "flaky_general_protection", "struct flaky_channel *",
                           "struct flaky_channel.rate_hz"),
    "jump-to-null": ("dev->channel->ops->calibrate", "flaky_calibrate_channel", "int (*)(struct flaky_device *)", None),
    "bad-address": ("table", "flaky_read_calibration", "u32 *", None),
}


@pytest.mark.parametrize(("kernel", "fault"), [pair for pair in lab.panics(*NAMED) if pair[0] in WITH_MODULE_TYPES])
def test_the_pointer_is_named_as_the_source_has_it(kernel: str, fault: str) -> None:
    """Also through a clone without a prototype (`.isra.0`): its caller shows what was passed."""
    found = pointer(kernel, fault)
    assert (found.expression, found.function, found.type, found.member) == NAMED[fault]


@pytest.mark.parametrize("fault", [fault for kernel, fault in lab.panics(*NAMED) if kernel == "6.1"])
def test_without_the_modules_types_nothing_is_invented(fault: str) -> None:
    found = pointer("6.1", fault)
    assert found.expression == ("vmalloc()" if fault == "bad-address" else None)
    assert found.member is None


@pytest.mark.parametrize(("fault", "cache"), [("list-corruption", "flaky_sample"), ("double-free", "kmalloc-64")])
def test_what_a_check_was_called_with(fault: str, cache: str) -> None:
    for kernel in ("6.1", "6.12") if lab.FULL else ("6.1",):
        verdict = diagnosed(kernel, fault).verdict
        assert f"an object of {cache} " in verdict.explanation
        assert any(item.what == "the object that was checked" and "kmem -s" in item.command
                   for item in verdict.evidence)


def test_the_levels_of_page_tables_are_the_kernels() -> None:
    with kdumpy.open(lab.dump("6.1", "general-protection").path) as kernel:
        assert memory.page_levels(kernel) == (5 if kernel.dump.vmcoreinfo.number("pgtable_l5_enabled") else 4)
        assert f"with {'five' if memory.page_levels(kernel) == 5 else 'four'} levels" in \
            pointee(kernel, 0x0123456789ABCDEF).words


# fault -> (kind of what held the pointer, words in its description)
HOLDERS = {
    "null-workqueue": ("module data", "flaky+0x"),
    "null-procread": ("module data", "flaky+0x"),
    "general-protection": ("slab", "kmalloc-64 (64 bytes), allocated"),
    "jump-to-null": ("module data", "flaky_half_ops+0x8"),
    "use-after-free": ("slab", "kmalloc-64 (64 bytes), freed, poisoned as free (0x6b)"),
    "use-after-free-call": ("slab", "kmalloc-64 (64 bytes), freed, poisoned as free (0x6b)"),
    "write-to-readonly": ("slab", "kmalloc-32 (32 bytes), allocated"),
}


@pytest.mark.parametrize(("kernel", "fault"), [pair for pair in lab.panics(*HOLDERS) if pair[0] != "5.10"])
def test_where_the_pointer_was_loaded_from(kernel: str, fault: str) -> None:
    found = pointer(kernel, fault)
    kind, words = HOLDERS[fault]
    assert found.loaded_from is not None
    assert found.loaded_from.kind == kind
    assert words in found.loaded_from.words
    assert found.still_there is True
    assert (found.loaded_by or "").startswith("movq ")


TARGETS = {
    "null-workqueue": "null", "general-protection": "text", "use-after-free": "freed", "bad-address": "not mapped",
    "user-access": "user", "nx-execute": "slab", "write-to-readonly": "module data", "stack-overflow": "stack guard",
    "jump-to-null": "null",
}


@pytest.mark.parametrize("fault", [fault for kernel, fault in lab.panics(*TARGETS) if kernel == "6.1"])
def test_what_the_pointer_points_at(fault: str) -> None:
    assert pointer("6.1", fault).target.kind == TARGETS[fault]


def test_who_allocated_and_who_freed() -> None:
    """With slub_debug=U the object itself tells."""
    held = pointer("6.1", "use-after-free").loaded_from
    assert held is not None
    allocated, freed = held.tracks
    assert (allocated.event, freed.event) == ("allocated", "freed")
    assert "do_init_module" in allocated.trace
    assert "flaky_write" in freed.trace
    assert allocated.seconds_before is not None
    assert freed.seconds_before is not None
    assert allocated.seconds_before > freed.seconds_before >= 0


def test_no_history_without_tracking() -> None:
    held = pointer("6.1", "general-protection").loaded_from
    assert held is not None
    assert held.tracks == ()


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_the_log_and_the_dump_agree(kernel: str, fault: str) -> None:
    found = reading(kernel, fault)
    assert [check for check in found.checks if not check.agrees] == [] if found else True


@pytest.mark.parametrize(("kernel", "fault"), lab.panics("null-workqueue", "bad-address", "write-to-readonly"))
def test_the_fault_is_checked_against_the_log(kernel: str, fault: str) -> None:
    found = reading(kernel, fault)
    assert found is not None
    assert {"registers", "fault address", "error code", "code"} <= {check.what for check in found.checks}


@pytest.mark.parametrize(("fault", "trap", "code"), [
    ("null-workqueue", "page fault (#PF, 14)", "0x0000: read by the kernel, no page was there"),
    ("write-to-readonly", "page fault (#PF, 14)", "0x0003: write by the kernel, the page was there but forbade it"),
    ("user-access", "page fault (#PF, 14)", "0x0001: read by the kernel, the page was there but forbade it"),
    ("nx-execute", "page fault (#PF, 14)",
     "0x0011: instruction fetch by the kernel, the page was there but forbade it"),
    ("divide-error", "divide error (#DE, 0)", None), ("bug", "invalid opcode (#UD, 6)", None),
    ("general-protection", "general protection fault (#GP, 13)", None),
])
def test_the_exception_in_words(fault: str, trap: str, code: str | None) -> None:
    found = reading("6.1", fault)
    assert found is not None
    assert (found.trap, found.error_code) == (trap, code)


@pytest.mark.parametrize("fault", ["soft-lockup", "rcu-stall", "sysrq", "hung-task", "deadlock", "driver-panic"])
def test_no_instruction_is_read_where_none_is_at_fault(fault: str) -> None:
    assert reading("6.1", fault) is None


def test_an_empty_log_leaves_the_reading() -> None:
    with kdumpy.open(lab.dump("6.12", "null-workqueue").path) as kernel:
        crash = Crash(kernel.path, kernel, ())
        found = crash.reader.reading() if crash.reader else None
    assert found is not None
    assert found.pointer is not None
    assert found.pointer.expression == "dev->channel"
    assert found.checks == ()


def test_what_lies_at_an_address() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        prog = kernel.prog
        task = prog["init_task"].address_
        assert task is not None
        assert pointee(kernel, task).symbol == "init_task"
        panicked = kernel.panic.task if kernel.panic else None
        assert panicked is not None
        assert pointee(kernel, panicked.address).cache == "task_struct"
        stack = kernel.task_object(panicked.address).stack.value_()
        assert f"{panicked.comm} (pid {panicked.pid})" in pointee(kernel, stack + 0x3000).words
        assert pointee(kernel, stack + 0x3000).kind == "stack"
        asleep = next(item for item in kernel.tasks() if not item.on_cpu)
        other = kernel.task_object(asleep.address).stack.value_()
        assert f"{asleep.comm} (pid {asleep.pid})" in pointee(kernel, other + 0x3000).words
        offset = prog["__per_cpu_offset"][1].value_()
        assert pointee(kernel, offset + prog.symbol("__per_cpu_start").address + 0x100).words.startswith(
            "per-CPU memory of CPU 1")
        assert pointee(kernel, prog["init_mm"].pgd.value_()).kind in ("kernel data", "page")
        assert pointee(kernel, 0xFFFF_FFFF_FFFF_FFF4).kind == "error"
        assert pointee(kernel, prog["vmalloc_base"].value_() + (1 << 40)).kind == "not mapped"


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12"])
def test_a_bare_per_cpu_pointer_is_told_from_other_small_numbers(kernel: str) -> None:
    """Before 6.15 the variables of the kernel itself are small numbers; a process of old has its code at 4 MiB."""
    with kdumpy.open(lab.dump(kernel, "null-workqueue").path) as opened:
        variable = opened.prog["runqueues"].address_
        assert variable is not None
        assert per_cpu_addresses(opened, variable) == tuple(
            per_cpu(opened.prog["runqueues"], cpu).address_ for cpu in (0, 1))
        assert not any(per_cpu_addresses(opened, value) for value in range(4 << 20, 1 << 30, 1 << 20))
