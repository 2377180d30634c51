"""The rest of the machine: found where it is so, silent where all is well, not judged where the dump cannot tell."""

from __future__ import annotations

import re
import shlex
import struct
import time
from collections.abc import Sequence
from dataclasses import replace

import drgn
import pytest
from drgn.helpers.linux.block import for_each_disk
from drgn.helpers.linux.device import bus_for_each_dev
from drgn.helpers.linux.idr import idr_for_each
from drgn.helpers.linux.irq import for_each_irq_desc
from drgn.helpers.linux.list import list_empty, list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu

import kdumpy
import lab
from console import Console, kernel_of
from diagnosed import diagnosed
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.disks import Disks
from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.findings import CHECKS, look_around
from kdumpy.diagnosis.findings.base import Machine
from kdumpy.diagnosis.memoryuse.account import memory_account
from kdumpy.diagnosis.superblocks import device_name, super_blocks
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
    "troubled": dict.fromkeys((
        "NUMA nodes", "work queues", "block requests", "suspended devices", "failed paths", "RAID arrays",
        "frozen file systems", "unaccepted connections", "RPC calls", "NFS from itself"), "warning"),
}
MAY_BE = {"memory-leak": {"free memory"}, "troubled": {"load", "swap"}}
"""A zone at the end of its memory is below its mark or just above; the one in trouble swaps, or not."""
OF_MODULES = {"virtio queues", "suspended devices", "failed paths", "RAID arrays", "SCSI", "journals", "RPC calls",
              "NFS from itself"}
"""Checks that need types of modules, which no dump of 5.10 has."""


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_only_what_is_true_is_found(kernel: str, fault: str) -> None:
    told = {check: severity for check, severity in found(kernel, fault).items()
            if check not in MAY_BE.get(fault, ())}
    wanted = {check: severity for check, severity in KNOWN.get(fault, {}).items()
              if kernel != "5.10" or check not in OF_MODULES}
    if kernel == "5.10" and fault == "troubled":
        wanted |= {"multipath": "warning"}              # then the log says it
    assert told == wanted


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_every_check_can_be_made_on_a_whole_dump(kernel: str, fault: str) -> None:
    unchecked = {item.check: item.why for item in diagnosed(kernel, fault).unchecked}
    if kernel == "5.10":
        assert set(unchecked) <= OF_MODULES
        assert all("kernels before 5.11 have no types of their modules" in why for why in unchecked.values())
        return
    assert unchecked == {}


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


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_the_report_is_one_screen(kernel: str, fault: str) -> None:
    """With a path as kdump makes them; what is left out of it is named."""
    made = diagnosed(kernel, fault)
    made = replace(made, dump=replace(made.dump, path="/var/crash/127.0.0.1-2026-11-30-01:52:58/vmcore"))
    lines = text.render(made, width=120).splitlines()
    assert len(lines) <= 45
    found = [item for item in made.findings if item.severity != Severity.INFO]
    shown = "\n".join(lines)
    left_out = sum(item.title[:40] not in shown for item in found)
    assert not left_out or f"… and {left_out} more" in shown or f"Also found on this machine: {left_out} (" in shown


def test_who_waits_is_told_where_an_operator_asked_for_the_dump() -> None:
    shown = text.render(diagnosed("6.1", "troubled"), width=120)
    waits = shown.split("Tasks that wait and cannot be interrupted: 7\n")[1].splitlines()
    assert re.match(r"  - dd \(pid \d+\) [\d.]+ s: I/O: write of 131072 bytes at sector 0 of loop5, carried out by "
                    r"kworker/", waits[0])
    following = next(line for line in waits[1:] if line.startswith("  - "))
    assert re.match(r"  - kworker/\S+ \(pid \d+\) [\d.]+ s: percpu rwsem s_writers \(writes\) of the file system on "
                    r"loop0", following)
    assert "Tasks that wait" not in text.render(diagnosed("6.1", "hung-task"), width=120)


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


def told(kernel: str, fault: str, check: str) -> list[str]:
    return [f"{item.title}: {item.detail}" for item in diagnosed(kernel, fault).findings if item.check == check]


def beside_no_verdict(kernel: str, fault: str, check: str) -> list[str]:
    """Return what a check finds also where the verdict says so itself."""
    with kdumpy.open(lab.dump(kernel, fault).path) as opened:
        machine = Machine(Crash(opened.path, opened, opened.log), memory_account(opened))
        return [f"{item.title}: {item.detail}"
                for item in next(each for each in CHECKS if each.name == check).look(machine)]


# Which of them a dump is made of is chance: the fuller node may be swapped out, seven tasks that wait are a load.
TROUBLED = [kernel for kernel, _ in lab.panics("troubled")]


@pytest.mark.parametrize(("check", "wanted"), [
    ("block requests", (r"loop5 did not answer a request for \d+\.\d s: \d+ requests? in flight; the oldest is a "
                        r"write of \d+ bytes at sector \d+ of loop5",
                        r"sda did not answer a request for \d+\.\d s: 2 requests in flight; the oldest is a read of "
                        r"4096 bytes at sector (0|64) of sda")),
    ("suspended devices", (r"The mapped device dm-\d \(held\) is suspended: 8 bios wait for it",)),
    ("failed paths", (r"1 of 2 paths of dm-\d \(paths\) have failed: 7:8",)),
    ("RAID arrays", (r"The array md7 \(raid1\) lacks 1 of 2 disks: ",)),
    ("frozen file systems", (r"The file system on loop0 is frozen whole: ",)),
    ("work queues", (r"The work queue clog_belt stands still for \d+\.\d s: 5 works wait behind clog_sort_letter\(\), "
                     r"which kworker/\S+ \(pid \d+\) runs and sleeps in",)),
    ("unread sockets", (r"A socket received all that it may keep, and nobody reads it: UDP 0\.0\.0\.0:\d+ of tftp "
                        r"\(pid \d+\) \([\d.]+ KiB\)",)),
    ("unaccepted connections", (r"A socket has as many connections waiting as it may, and nobody accepts them: "
                                r"TCP \[::\]:8001 of nc \(pid \d+\) \(\d+\)",)),
    ("RPC calls", (r"The server 127\.0\.0\.1 did not answer a call for \d+\.\d s: 1 call in flight; the oldest is a "
                   r"call of nfs",)),
    ("NFS from itself", (r"The NFS server 127\.0\.0\.1 is this machine itself: .*",)),
    ("NUMA nodes", (r"The memory of NUMA node 1 is used up: [\d.]+ MiB of \S+ MiB are free; node 0 has \S+ MiB",)),
])
def test_a_machine_in_trouble(check: str, wanted: tuple[str, ...]) -> None:
    for kernel in TROUBLED:
        if kernel == "5.10" and check in OF_MODULES:
            continue
        found = told(kernel, "troubled", check)
        assert len(found) == len(wanted), (kernel, found)
        assert all(any(re.fullmatch(pattern, title) for title in found) for pattern in wanted), (kernel, found)


def test_disks_that_are_offline() -> None:
    """The healthy SCSI and NVMe disks of the machine in trouble, made to be in another state."""
    with kdumpy.open(lab.dump("6.1", "troubled").path) as kernel:
        assert checked(kernel, "SCSI") == checked(kernel, "NVMe") == []
        prog = kernel.prog
        disks = {disk.disk_name.string_(): disk for disk in for_each_disk(prog)}
        device = drgn.cast("struct scsi_device *", disks[b"sda"].queue.queuedata)
        overlay(kernel, device.sdev_state.address_of_().value_(),
                struct.pack("<I", prog.constant("SDEV_OFFLINE").value_()))
        overlay(kernel, device.host.host_failed.address_of_().value_(), struct.pack("<I", 3))
        host = int(device.host.host_no.value_())
        assert checked(kernel, "SCSI") == ["The SCSI disk sda is offline",
                                           f"The SCSI host {host} is mending errors (state running)"]
        name = next(name for name in disks if name.startswith(b"nvme"))
        paths = [disk for disk in disks.values() if symbol(prog, disk.fops.value_()) == "nvme_bdev_ops"]
        controller = drgn.cast("struct nvme_ns *", paths[0].private_data).ctrl
        overlay(kernel, controller.state.address_of_().value_(),
                struct.pack("<I", prog.constant("NVME_CTRL_DEAD").value_()))
        assert name.startswith(b"nvme0")
        assert checked(kernel, "NVMe") == ["The NVMe controller nvme0 is dead"]


@pytest.mark.parametrize("name", TROUBLED)
def test_the_shell_counts_the_requests_that_the_diagnosis_finds(name: str) -> None:
    """Among them, on the newest, those behind reserved tags."""
    console = Console(kernel_of(name, "troubled"))
    counted = {row["name"]: row["total"] for row in console.json("dev -D --json")}
    assert counted == {disk.name: len(disk.requests) for disk in Disks(console.kernel, None).all if disk.requests}
    assert counted["sda"] == 2


@pytest.mark.parametrize(("member", "value"), [("depth", (1 << 32) - 1), ("shift", 31), ("map_nr", 1 << 20)])
def test_a_damaged_bitmap_of_requests_is_told(member: str, value: int) -> None:
    with kdumpy.open(lab.dump("6.1", "troubled").path) as kernel:
        assert "sda" in {disk.name for disk in Disks(kernel, None).all}
        assert "the requests of sda" not in kernel.problems
        disk = next(disk for disk in for_each_disk(kernel.prog) if disk.disk_name.string_() == b"sda")
        bitmap = disk.queue.tag_set.tags[0].bitmap_tags.sb
        overlay(kernel, bitmap.member_(member).address_of_().value_(), struct.pack("<I", value))
        started = time.process_time()
        assert "sda" in {disk.name for disk in Disks(kernel, None).all}
        assert "larger than any can be" in kernel.problems["the requests of sda"]
        assert time.process_time() - started < 5


def symbol(prog: drgn.Program, address: int) -> str:
    return str(prog.symbol(address).name)


def test_pools_of_workers_that_stand_still() -> None:
    """Of the processor that a task does not give back: its works wait, only not for long enough yet."""
    with kdumpy.open(lab.dump("6.1", "soft-lockup").path) as kernel:
        prog = kernel.prog
        assert checked(kernel, "worker pools") == []
        pools = [drgn.cast("struct worker_pool *", entry)
                 for _, entry in idr_for_each(prog["worker_pool_idr"].address_of_())]
        waiting = [pool for pool in pools if not list_empty(pool.worklist.address_of_())]
        assert waiting
        stood = int(prog["jiffies_64"].value_()) - 250 * 45
        overlay(kernel, waiting[0].watchdog_ts.address_of_().value_(), struct.pack("<Q", stood))
        (title,) = checked(kernel, "worker pools")
        assert title == f"The workers of CPU {int(waiting[0].cpu.value_())} did nothing for 45.0 s"


@pytest.mark.parametrize("kernel", [name for name, _ in lab.panics("rcu-stall")])
def test_a_grace_period_that_does_not_end(kernel: str) -> None:
    (title,) = beside_no_verdict(kernel, "rcu-stall", "RCU")
    assert re.match(r"An RCU grace period goes on for \d+\.\d s: (it waits for CPU \d|every CPU was through)", title)
    (title,) = beside_no_verdict(kernel, "rcu-stall", "timers")
    assert re.match(r"CPU \d ran no timers for \d+\.\d s: it was in the kernel: ", title)


@pytest.mark.parametrize("kernel", [name for name, _ in lab.panics("unanswered-call")])
def test_a_processor_that_does_not_answer(kernel: str) -> None:
    (title,) = beside_no_verdict(kernel, "unanswered-call", "function calls")
    assert re.fullmatch(r"CPU (\d) does not do what other CPUs asked it for: CPU (?!\1)\d waits for it; it was in the "
                        r"kernel: flaky_spin_irqs_off", title)


def test_interrupts_that_nobody_answers() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        lines = dict(for_each_irq_desc(kernel.prog))
        number = next(number for number, line in lines.items() if line.action)
        assert checked(kernel, "interrupts") == []
        state = lines[number].core_internal_state__do_not_mess_with_it.address_of_().value_()
        overlay(kernel, state, struct.pack("<I", 2))
        assert checked(kernel, "interrupts") == [f"The kernel gave up interrupt {number}: nobody had answered it"]
        overlay(kernel, state, struct.pack("<I", 0))
        overlay(kernel, lines[number].tot_count.address_of_().value_(), struct.pack("<I", 2_000_000_000))
        seconds = kernel.system.uptime_s
        assert seconds is not None
        assert checked(kernel, "interrupts") == (
            [f"Interrupt {number} came {2_000_000_000 / seconds:,.0f} times a second"] if seconds > 30 else [])


def test_a_host_that_does_not_answer() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        assert checked(kernel, "virtio queues") == []
        prog = kernel.prog
        bus = drgn.Object(prog, "struct bus_type", address=prog.symbol("virtio_bus").address)
        device = next(iter(bus_for_each_dev(bus.address_of_())))
        virtual = drgn.container_of(device, "struct virtio_device", "dev")
        queue = next(iter(list_for_each_entry("struct virtqueue", virtual.vqs.address_of_(), "list")))
        overlay(kernel, queue.num_free.address_of_().value_(), bytes(4))
        name = queue.name.string_().decode()
        assert checked(kernel, "virtio queues") == [f"The queue {name} of virtio0 is full"]


def test_a_file_system_that_lost_what_was_written() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        assert checked(kernel, "lost writes") == checked(kernel, "journals") == []
        blocks = {device_name(block): block for block in super_blocks(kernel.prog)}
        overlay(kernel, blocks["loop0"].s_wb_err.address_of_().value_(), struct.pack("<I", 0x1005))
        assert checked(kernel, "lost writes") == ["Data could not be written to the file system on loop0"]
        journal = drgn.Object(kernel.prog, "struct ext4_sb_info *", blocks["vda"].s_fs_info.value_()).s_journal
        overlay(kernel, journal.j_flags.address_of_().value_(), struct.pack("<Q", 0x002))
        assert checked(kernel, "journals") == ["The journal of the file system on vda was given up"]


def test_names_that_do_not_exist() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        assert checked(kernel, "negative dentries") == []
        counter = per_cpu(kernel.prog["nr_dentry_negative"], 0)
        others = int(per_cpu(kernel.prog["nr_dentry_negative"], 1).value_())
        overlay(kernel, counter.address_, struct.pack("<q", 5_000_000 - others))
        (title,) = checked(kernel, "negative dentries")
        assert title == "The kernel remembers 5,000,000 names of files that do not exist"


def test_many_that_wait_for_one_lock() -> None:
    with kdumpy.open(lab.dump("6.1", "hung-task").path) as kernel:
        crash = Crash(kernel.path, kernel, kernel.log)
        machine = Machine(crash, None)
        crowds = next(check for check in CHECKS if check.name == "contended locks")
        assert list(crowds.look(machine)) == []
        assert crash.waits is not None
        (one,) = (item for item in crash.waits.blocked if item.waits_for)
        crash.waits.blocked = (one,) * 9                # as many tasks more with the same wait
        (found,) = crowds.look(machine)
        assert re.fullmatch(r"9 tasks wait for the mutex flaky\+0x\w+ \[flaky\]", found.title)
        assert found.detail.startswith("held by flaky_collect (pid ")


def test_a_check_says_what_it_lacks() -> None:
    """A dump whose types are lost: what needs them is not judged, and says why."""
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        machine = Machine(Crash(kernel.path, kernel, kernel.log), None)
        assert machine.lacks("struct request") == machine.lacks("variable workqueues") == ""
        assert machine.lacks("struct that_is_none").startswith("struct that_is_none is described nowhere in this dump")
        assert machine.lacks("variable no_such_thing") == "variable no_such_thing is described nowhere in this dump"
        assert machine.lacks("the account of memory") == "the counters of memory are not in the dump"


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
        from kdumpy.diagnosis.memoryuse.zones import zones

        zone = max(zones(kernel.prog), key=lambda item: item.present_pages.value_())
        assert checked(kernel, "fragmentation") == []
        for area in list(zone.free_area)[3:]:
            overlay(kernel, area.nr_free.address_of_().value_(), bytes(8))
        (title,) = checked(kernel, "fragmentation")
        assert title == f"Free memory of zone {zone.name.string_().decode()} is fragmented"


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_the_report_is_one_screen_of_a_small_terminal_too(kernel: str, fault: str) -> None:
    """80 columns and 45 lines with the prompt's; what is wider than the terminal counts as it stands there."""
    diagnosis = diagnosed(kernel, fault)
    lines = text.render(diagnosis, width=80, cut=True).splitlines()
    assert sum(-(-max(1, len(line)) // 80) for line in lines) <= 44
    begin = " ".join(" ".join(lines).split())
    assert " ".join(diagnosis.verdict.title.split()) in begin
    assert f"confidence {diagnosis.verdict.confidence}" in begin
    assert "What to do 1. " in begin
    assert "kdumpy report $VMCORE --full" in begin
    # Where nobody's screen is small, nothing is cut off.
    assert " …" not in " ".join(line for line in text.render(diagnosis, width=80).splitlines()
                                if not line.lstrip().startswith("…") and not line.endswith("more"))


@pytest.mark.parametrize("fault", ["rcu-stall", "soft-lockup", "hard-lockup", "double-free", "stack-overflow"])
def test_the_verdict_is_no_further_trouble(fault: str) -> None:
    """What a crash brings about by itself does not stand beside it."""
    titles = [item.title for item in diagnosed("6.1", fault).findings if item.severity != "info"]
    assert titles == []


@pytest.mark.skipif(not lab.FULL, reason="dumps of the full matrix")
@pytest.mark.parametrize(("kernel", "fault"), [
    ("6.1", "machine-check-cache"), ("newest", "double-free-debug"), ("6.1", "deep"),
    ("6.1", "stuck-bit")])
def test_the_verdict_is_no_further_trouble_either(kernel: str, fault: str) -> None:
    titles = [item.title for item in diagnosed(kernel, fault).findings if item.severity != "info"]
    assert titles == []


def test_a_taint_from_before_the_crash_is_told() -> None:
    """The lines of the event show the taint before it."""
    with kdumpy.open(lab.dump("6.1", "soft-lockup").path) as kernel:
        def tainted(log: Sequence[LogRecord]) -> list[str]:
            found, _ = look_around(Crash(kernel.path, kernel, log), None)
            return [item.detail for item in found if item.check == "taint" and item.severity == "warning"]

        assert tainted(kernel.log) == []
        before = [replace(record, text=re.sub(r"(Tainted: G +)", r"\1 L ", record.text))
                  for record in kernel.log]
        assert tainted(before) == ["taint flag L"]
