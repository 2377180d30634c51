"""The rest of the machine: found where it is so, silent where all is well, not judged where the dump cannot tell."""

from __future__ import annotations

import shlex
import struct

import drgn
import pytest

import kdumpy
import lab
from console import Console, kernel_of
from diagnosed import diagnosed
from kdumpy.diagnosis.account import memory_account
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.findings import CHECKS, look_around
from kdumpy.diagnosis.findings.base import Machine
from kdumpy.dumpfile.logrecord import LogRecord
from kdumpy.kernel import Kernel
from kdumpy.report import text


def found(kernel: str, fault: str) -> dict[str, str]:
    """Return severity by check, without what is only good to know."""
    return {item.check: item.severity.value for item in diagnosed(kernel, fault).findings
            if item.severity != Severity.INFO}


# What is wrong with these machines beside what the verdict says; with all others, nothing is.
KNOWN = {
    "out-of-memory": {"free memory": "critical", "swap": "warning", "large process": "warning"},
    "memory-leak": {"slab": "critical", "swap": "warning"},
    "soft-lockup": {"taint": "warning"},
    "double-free-debug": {"taint": "critical", "slab errors": "critical"},
}
MAY_BE = {"memory-leak": {"free memory"}}
"""A zone at the end of its memory is below its mark or just above."""


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_only_what_is_true_is_found(kernel: str, fault: str) -> None:
    told = {check: severity for check, severity in found(kernel, fault).items()
            if check not in MAY_BE.get(fault, ())}
    assert told == KNOWN.get(fault, {})


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_every_check_can_be_made_on_a_whole_dump(kernel: str, fault: str) -> None:
    assert diagnosed(kernel, fault).unchecked == ()


@pytest.mark.parametrize("fault", lab.LIVE)
def test_a_healthy_machine_has_no_findings(fault: str) -> None:
    assert found("6.1", fault) == {}


@pytest.mark.parametrize("fault", sorted({name for _, name in lab.panics(*KNOWN)}))
def test_the_commands_work(fault: str) -> None:
    kernel = next(kernel for kernel, name in lab.panics(fault))
    console = Console(kernel_of(kernel, fault))
    for item in diagnosed(kernel, fault).findings:
        if item.command:
            assert console(shlex.split(item.command)[-1])


def test_the_list_in_the_report() -> None:
    shown = text.render(diagnosed("6.1", "out-of-memory"), full=True).split("Also found on this machine\n")[1]
    assert "critical" in shown
    assert "dd (pid " in shown
    assert "Also found" not in text.render(diagnosed("6.1", "sysrq"))


def test_names_are_unique() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)


def on_log(*lines: str) -> set[str]:
    log = tuple(LogRecord(seq=number, ts_ns=number * 10**9, level=4, facility=0, caller="", text=line)
                for number, line in enumerate(lines))
    return {item.check for item in look_around(Crash(lab.bundled(), None, log), None)[0]}


@pytest.mark.parametrize(("line", "check"), [
    ("blk_update_request: I/O error, dev sda, sector 2048 op 0x0:(READ)", "disk errors"),
    ("I/O error, dev sdb, sector 12 op 0x1:(WRITE) flags 0x0", "disk errors"),
    ("EXT4-fs error (device vda1): ext4_lookup:1785: inode #2: comm ls: deleted inode", "file system errors"),
    ("{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 1", "hardware errors"),
    ("EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Channel#1_DIMM#0", "corrected errors"),
    ("kworker/0:1: page allocation failure: order:4, mode:0x40cc0", "failed allocations"),
    ("nfs: server filer not responding, still trying", "NFS servers"),
    ("NETDEV WATCHDOG: eth0 (e1000): transmit queue 0 timed out", "network timeouts"),
    ("BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 61s!", "work queue lockups"),
    ("nf_conntrack: nf_conntrack: table full, dropping packet", "connection table"),
    ("BUG: Bad page state in process sh  pfn:12345", "bad pages"),
    ("WARNING: possible circular locking dependency detected", "lost locks"),
])
def test_the_kernels_complaints(line: str, check: str) -> None:
    assert on_log("all is well", line) == {check}


def test_a_quiet_log_has_none() -> None:
    assert on_log("EXT4-fs (vda1): mounted filesystem with ordered data mode", "e1000: eth0 NIC Link is Up 1000 Mbps",
                  "systemd[1]: Started journal.") == set()


def test_without_the_dump_the_checks_of_it_are_not_judged() -> None:
    unchecked = look_around(Crash(lab.bundled(), None, ()), None)[1]
    assert {item.check for item in unchecked} >= {"stack ends", "swap", "load", "frozen file systems"}
    assert all(item.why for item in unchecked)


def checked(kernel: Kernel, name: str) -> list[str]:
    machine = Machine(Crash(kernel.path, kernel, kernel.log), memory_account(kernel))
    return [item.title for item in next(check for check in CHECKS if check.name == name).look(machine)]


def overlay(kernel: Kernel, address: int, data: bytes) -> None:
    kernel.prog.add_memory_segment(address, len(data), lambda where, count, offset, physical:
                                   data[offset : offset + count])


def test_a_stack_whose_end_was_written_over() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        task = next(item for item in kernel.tasks() if item.comm == "kauditd")
        assert checked(kernel, "stack ends") == []
        overlay(kernel, kernel.task_object(task.address).stack.value_(), b"meter-in")
        assert checked(kernel, "stack ends") == [f"The end of the stack of kauditd (pid {task.pid}) was written over"]


def test_a_frozen_file_system() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        made = kernel.prog.type("struct super_block")
        first = kernel.prog["super_blocks"].next.value_() - drgn.offsetof(made, "s_list")
        assert checked(kernel, "frozen file systems") == []
        overlay(kernel, first + drgn.offsetof(made, "s_writers.frozen"), struct.pack("<I", 4))
        (title,) = checked(kernel, "frozen file systems")
        assert title.endswith("is frozen whole")


def test_a_load_that_is_too_high() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        overlay(kernel, kernel.prog.symbol("avenrun").address, struct.pack("<3Q", 30 << 11, 0, 0))
        assert checked(kernel, "load") == ["Load average of 30.0 on 2 CPUs"]


def test_free_memory_in_pieces() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        from kdumpy.diagnosis.zones import zones

        zone = max(zones(kernel.prog), key=lambda item: item.present_pages.value_())
        assert checked(kernel, "fragmentation") == []
        for area in list(zone.free_area)[3:]:
            overlay(kernel, area.nr_free.address_of_().value_(), bytes(8))
        (title,) = checked(kernel, "fragmentation")
        assert title == f"Free memory of zone {zone.name.string_().decode()} is fragmented"
