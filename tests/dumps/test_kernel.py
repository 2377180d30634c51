"""`kdumpy.open(path)`: what a Kernel says of real panics."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import drgn
import pytest

import kdumpy
import lab
from kdumpy.debuginfo import attach as attaching
from kdumpy.debuginfo.dwarf import Dwarf
from kdumpy.errors import NotInDump, UsageError
from kdumpy.kernel import Kernel, engine, open_kernel
from kdumpy.kernel.system import taint_letters, taint_words
from kdumpy.vm import debugfiles, kernels

CALLED_PANIC = {"sysrq", "driver-panic", "hung-task", "deadlock", "soft-lockup", "rcu-stall", "nmi", "init-exit",
                "memory-leak", "rwsem-readers", "stack-corruption", "hard-lockup", "hard-lockup-buddy", "no-root",
                "no-init", "recovered-error", "troubled", "timer-locked", "answer-locked", "timer-itself"}
"""Faults of the laboratory in which no exception was raised: the kernel called panic() by itself.

Memory ran out in a page fault that the kernel took for a process, which is an exception, too.
"""


@pytest.fixture(params=lab.KERNELS)
def null(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with kdumpy.open(lab.dump(request.param, "null-workqueue").path) as kernel:
        yield kernel


@pytest.fixture(params=lab.KERNELS)
def sysrq(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with kdumpy.open(lab.dump(request.param, "sysrq").path) as kernel:
        yield kernel


def test_the_panic_names_task_cpu_fault_and_registers(null: Kernel) -> None:
    panic = null.panic
    assert panic is not None
    assert panic.task is not None
    assert panic.task.comm.startswith("kworker/")
    assert panic.task.on_cpu
    assert panic.cpu == panic.task.cpu
    assert panic.fault is not None
    assert panic.fault.function == "flaky_poll_channel"
    assert panic.fault.module == "flaky"
    assert panic.registers["rip"] == panic.fault.pc
    assert [frame.function for frame in panic.stack.frames[:3]] == [
        "flaky_poll_channel", "flaky_poll_work", "process_one_work"]
    assert panic.stack.problem == ""


def test_a_panic_that_the_kernel_called_for_has_no_fault(sysrq: Kernel) -> None:
    panic = sysrq.panic
    assert panic is not None
    assert panic.fault is None
    names = [frame.function for frame in panic.stack.frames]
    assert names[0] == "__crash_kexec"
    assert {"panic", "vpanic"} & set(names[:4])
    assert "sysrq_handle_crash" in names
    assert panic.stack.frames[-1].user


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_a_fault_is_an_exception_and_no_chance_interrupt(kernel: str, fault: str) -> None:
    with kdumpy.open(lab.dump(kernel, fault).path) as opened:
        panic = opened.panic
        assert panic is not None
        assert panic.task is not None
        if panic.fault is None:
            assert fault in CALLED_PANIC
            return
        assert fault not in CALLED_PANIC
        place = panic.stack.frames.index(panic.fault)
        assert place == 0 or (panic.stack.frames[place - 1].function or "").startswith("asm_exc_")
        assert panic.interrupted == panic.fault


def test_exactly_one_cpu_panicked_and_each_says_what_it_did(null: Kernel) -> None:
    assert [cpu.number for cpu in null.cpus] == [0, 1]
    assert sum(cpu.panicked for cpu in null.cpus) == 1
    for cpu in null.cpus:
        assert cpu.task is not None
        assert cpu.stack.frames
        assert cpu.doing == "panicked" if cpu.panicked else cpu.doing.startswith(("idle", "in "))


def test_the_system_is_described(null: Kernel) -> None:
    system = null.system
    assert system.release == kernels.get(_name(null)).release
    assert system.machine == "x86_64"
    assert system.hostname == "laboratory"
    assert system.cpus == 2
    assert system.memory_bytes is not None
    assert 300 << 20 < system.memory_bytes < 640 << 20
    assert system.cmdline is not None
    assert "crashkernel=" in system.cmdline
    assert system.uptime_s is not None
    assert 2 < system.uptime_s < 300
    assert system.panic_time is not None
    assert system.boot_time is not None
    assert 0 < system.panic_time - system.boot_time < 300
    assert any(word.startswith("O: ") for word in system.taints)
    assert null.problems == {}


def _name(kernel: Kernel) -> str:
    return next(name for name in lab.KERNELS if lab.dump(name, "null-workqueue").path == kernel.path)


def test_the_log_ends_with_the_oops(null: Kernel) -> None:
    lines = [record.text for record in null.log]
    assert any("NULL pointer dereference" in line for line in lines[-80:])
    assert "Linux version" in lines[0]
    assert all(record.ts_ns >= 0 for record in null.log)


def test_modules_have_their_taints_and_users(null: Kernel) -> None:
    by_name = {module.name: module for module in null.modules}
    assert by_name["flaky"].taints == "OE"
    assert by_name["virtio_blk"].taints == ""
    assert "nf_conntrack" in by_name["nf_defrag_ipv4"].used_by
    assert all(module.base > 1 << 63 and module.size > 0 for module in null.modules)


def test_tasks_are_all_there_with_their_states(null: Kernel) -> None:
    tasks = {task.pid: task for task in null.tasks()}
    assert tasks[2].comm == "kthreadd"
    assert tasks[2].kernel_thread
    assert not tasks[1].kernel_thread
    assert all(task.pid for task in tasks.values())
    assert any(task.state == "S" for task in tasks.values())
    assert len(tasks) > 40
    stack = null.stack(tasks[2])
    assert "kthreadd" in [frame.function for frame in stack.frames]


def test_values_are_json_and_survive_pickling(null: Kernel) -> None:
    panic = null.panic
    assert panic is not None
    assert json.loads(json.dumps(asdict(panic)))["task"]["comm"] == (panic.task and panic.task.comm)
    assert pickle.loads(pickle.dumps(null.cpus)) == null.cpus


@pytest.mark.parametrize("fault", lab.LIVE)
def test_a_running_guest_has_no_panic(fault: str) -> None:
    with kdumpy.open(lab.dump("6.1", fault).path) as kernel:
        assert kernel.panic is None
        assert "panic" in kernel.problems
        assert len(list(kernel.tasks())) > 40
        assert kernel.system.hostname == "laboratory"


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_a_jump_to_nowhere_goes_on_with_its_caller(kernel: str) -> None:
    if (kernel, "jump-to-null") not in lab.panics():
        pytest.skip("taken in the full matrix only")
    with kdumpy.open(lab.dump(kernel, "jump-to-null").path) as opened:
        assert opened.panic is not None
        frames = opened.panic.stack.frames
        assert frames[0].pc == 0
        assert frames[0].symbol is None
        assert frames[1].function == "flaky_calibrate_channel"
        assert opened.panic.stack.problem == ""


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_without_types_the_log_and_the_panic_s_stack_remain(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lab.dump(kernel, "sysrq").path
    with open_kernel(path) as whole:
        assert whole.panic is not None
        expected = [frame.pc for frame in whole.panic.stack.frames]

    def lacks(*_given: object) -> None:
        raise NotInDump("the kernel has no types (BTF)")

    monkeypatch.setattr(attaching, "_kernel_btf", lacks)
    with open_kernel(path) as bare:
        assert bare.debuginfo.missing == {"types": "the kernel has no types (BTF)"}
        assert f"linux-image-{bare.system.release}-dbg" in bare.debuginfo.mend
        assert bare.panic is not None
        assert [frame.pc for frame in bare.panic.stack.frames] == expected
        assert any("sysrq" in record.text for record in bare.log)
        assert bare.system.hostname == "laboratory"
        assert "tasks" in bare.problems or list(bare.tasks()) == []


def test_a_module_list_that_breaks_off_is_told() -> None:
    with kdumpy.open(lab.dump("6.12", "null-workqueue").path) as kernel:
        third = kernel.modules[2].address + drgn.offsetof(kernel.prog.type("struct module"), "list")
        whole = len(kernel.modules)
    with kdumpy.open(lab.dump("6.12", "null-workqueue").path) as kernel:
        kernel.prog.add_memory_segment(third, 8, lambda *what: third.to_bytes(8, "little"))     # its next is itself
        assert len(kernel.modules) == whole > 3        # the others are read from the list's end
        assert "circle" in kernel.problems["modules"]

    def gone(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("gone", address)

    with kdumpy.open(lab.dump("6.12", "null-workqueue").path) as kernel:
        kernel.prog.add_memory_segment(third, 8, gone)
        assert len(kernel.modules) == whole - 1
        assert "breaks off" in kernel.problems["modules"]


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_a_variable_that_is_not_declared_is_no_function(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "sysrq").path) as opened:
        with pytest.raises(LookupError):
            opened.prog["system_state"]
        assert not opened.stacks.has_code(opened.prog["init_task"].address_ + 8)
        assert opened.stacks.has_code(opened.prog.symbol("panic").address)
        assert opened.prog["panic"].type_.kind == drgn.TypeKind.FUNCTION


def test_taint_bits_that_only_a_distribution_has_are_shown() -> None:
    assert taint_words(1 << 26 | 1 << 12)[1].startswith("?: bit 26")
    assert taint_letters(1 << 26 | 1 << 12) == "O?"


def test_a_user_s_own_choice_of_plugins_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRGN_DISABLE_PLUGINS", "something")
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        assert kernel.panic is not None
        assert attaching.attach(kernel.prog) is kernel.debuginfo
    assert os.environ["DRGN_DISABLE_PLUGINS"] == "something"


class _Refusing:
    """drgn's module, whose Program refuses every file; what its makers' reader refuses depends on its version."""

    def __getattr__(self, name: str) -> object:
        return getattr(drgn, name)

    def Program(self, *arguments: object) -> object:  # noqa: N802
        return drgn.Program(*arguments) if arguments else self

    def set_core_dump(self, path: str) -> None:
        raise ValueError("refused")


@pytest.mark.parametrize("fault", ["sysrq", "null-workqueue"])
def test_a_file_that_drgn_refuses_is_read_by_our_own_reader(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lab.dump("6.1", fault).path
    with open_kernel(path) as kernel:
        expected = kernel.panic
        tasks = list(kernel.tasks())
    monkeypatch.setattr(engine, "drgn", _Refusing())
    with open_kernel(path) as kernel:
        assert kernel.problems["engine"].endswith("refused")
        assert kernel.panic is not None
        assert expected is not None
        assert kernel.panic.stack == expected.stack
        assert kernel.panic.task == expected.task
        assert kernel.panic.registers["rip"] == expected.registers["rip"]
        assert list(kernel.tasks()) == tasks


def test_dwarf_adds_lines_and_inlines_and_modules_keep_ours() -> None:
    path = lab.dump("6.1", "sysrq").path
    vmlinux = debugfiles.debug_vmlinux("6.1")
    with open_kernel(path, vmlinux=[vmlinux]) as rich, open_kernel(path, dwarf=Dwarf.NO) as bare:
        assert rich.debuginfo.dwarf
        assert not bare.debuginfo.dwarf
        assert rich.panic is not None
        assert bare.panic is not None
        frames = rich.panic.stack.frames
        handler = next(frame for frame in frames if frame.function == "sysrq_handle_crash")
        assert handler.source is not None
        assert handler.source.startswith("drivers/tty/sysrq.c:")
        assert any(frame.inline for frame in frames)
        assert [f.pc for f in frames if not f.inline] == [f.pc for f in bare.panic.stack.frames]
    with open_kernel(lab.dump("6.1", "null-workqueue").path, vmlinux=[debugfiles.debug_vmlinux("6.1")]) as mixed:
        assert mixed.panic is not None
        assert mixed.panic.stack.frames[0].function == "flaky_poll_channel"     # the module has no DWARF here
        assert mixed.panic.stack.frames[2].source


def test_the_driver_s_own_dwarf_gives_its_lines() -> None:
    dump = lab.dump("6.1", "null-workqueue")
    with open_kernel(dump.path, vmlinux=[debugfiles.debug_vmlinux("6.1"), dump.driver]) as kernel:
        assert kernel.panic is not None
        source = kernel.panic.stack.frames[0].source
        assert source is not None
        assert "flaky" in source
        trace = kernel.prog.crashed_thread().stack_trace()
        assert "channel" in trace[0].locals()


def test_a_vmlinux_of_another_kernel_is_refused_by_name() -> None:
    path = lab.dump("6.1", "sysrq").path
    with pytest.raises(NotInDump, match="build id"):
        open_kernel(path, vmlinux=[debugfiles.debug_vmlinux("6.12")])
    with pytest.raises(UsageError, match="no such file"):
        open_kernel(path, vmlinux=[Path("/nonexistent/vmlinux")])
