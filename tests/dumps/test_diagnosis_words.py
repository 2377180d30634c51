"""What a verdict says is so: its words against what the same dump shows."""

from __future__ import annotations

import re

import pytest
from drgn.helpers.linux.mm import for_each_vmap_area

import kdumpy
import lab
from diagnosed import diagnosed
from kdumpy.cli.main import main
from kdumpy.diagnosis import Diagnosis
from kdumpy.diagnosis.crashed.pointee import BEYOND, pointee
from kdumpy.diagnosis.diagnose import _frames as shown
from kdumpy.kernel.values import Frame
from kdumpy.report import text
from kdumpy.units import human_bytes


def said(found: Diagnosis) -> str:
    return " ".join((found.verdict.title, found.verdict.explanation, *found.verdict.next))


@pytest.mark.parametrize("fault", ["sysrq", "nmi", "hung-task"])
def test_nothing_is_said_to_stand_below_what_does_not(fault: str) -> None:
    assert "below" not in said(diagnosed("6.1", fault))


@pytest.mark.parametrize("fault", ["use-after-free", "use-after-free-call"])
def test_who_freed_it_is_told_and_not_asked_for(fault: str) -> None:
    found = diagnosed("6.1", fault)
    assert re.search(r"It was freed in flaky_\w+\(\) of the module flaky by process \d+", found.verdict.explanation)
    assert "slub_debug" not in " ".join(found.verdict.next)
    assert "by process" in text.render(found)           # on the one screen, too


def test_who_overwrote_a_pointer_is_not_promised() -> None:
    found = diagnosed("6.1", "general-protection")
    assert "This is a bug in the module" not in found.verdict.explanation
    assert "first suspect" in found.verdict.explanation
    assert not re.search(r"slub_debug\S* [^;]*says who", " ".join(found.verdict.next))


def test_shares_of_memory_have_one_base() -> None:
    found = diagnosed("6.1", "memory-leak")
    account = found.memory.account
    assert account is not None
    assert account.managed < account.ram
    slab = next(share.size for share in account.shares if share.name == "slab unreclaimable")
    percent = round(100 * slab / account.managed)
    assert f"took {percent} % of the {human_bytes(account.managed)} that it manages" in found.verdict.explanation
    assert any(item.title.startswith(f"{percent} % of memory are kernel objects") for item in found.findings)


def test_the_largest_cache_has_one_size() -> None:
    found = diagnosed("6.1", "memory-leak")
    size = re.search(r"; (\S+ MiB) are of the kind flaky_sample", found.verdict.explanation)
    assert size
    assert any(f"flaky_sample: {size[1]}" in item.detail for item in found.findings)


def test_free_memory_is_listed_and_its_count_explained() -> None:
    found = diagnosed("6.1", "out-of-memory")
    account = found.memory.account
    assert account is not None
    listed = next(item.detail for item in found.verdict.evidence if item.what == "memory")
    assert " free" in listed
    free = next(share.size for share in account.shares if share.name == "free")
    kept = free - sum(zone.free for zone in account.zones)
    assert ("in the CPUs' own lists" in listed) == (kept > 1 << 19)


@pytest.mark.skipif(not lab.FULL, reason="the tracked leak is in the full matrix only")
def test_a_stack_that_is_no_tasks_is_named() -> None:
    assert "Stack of the allocation of most of the objects, innermost first" in \
        text.render(diagnosed("6.1", "memory-leak-tracked"), full=True)


def test_the_number_that_was_divided_by_is_shown() -> None:
    found = diagnosed("6.1", "divide-error")
    assert re.search(r"divided by zero, which the register \w+ held", found.verdict.explanation)
    assert any(re.search(r"with %\w+ = 0x0$", item.detail) for item in found.verdict.evidence)
    assert found.panic is not None
    assert found.panic.reading is not None
    assert re.fullmatch(r"%\w+ = 0x0, read", found.panic.reading.operands[0])


def test_behind_the_end_of_a_vmalloc_area_is_not_within() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as kernel:
        areas = [area for area in for_each_vmap_area(kernel.prog) if area.vm and area.vm.nr_pages.value_() > 0]
        area = areas[0]
        begin, size = int(area.va_start.value_()), int(area.vm.nr_pages.value_()) * 4096
        assert begin + size < int(area.va_end.value_())
        inside, behind = pointee(kernel, begin + size - 8), pointee(kernel, begin + size)
        assert (inside.kind, inside.state) in (("vmalloc", None), ("stack", None))
        assert (behind.kind, behind.state) == ("vmalloc", BEYOND)
        assert f"of a vmalloc area of {size} bytes, behind its end" in behind.words


def test_a_stall_with_interrupts_off_is_told_as_one() -> None:
    found = diagnosed("6.1", "rcu-stall").verdict.explanation
    assert "It loops there with interrupts off" in found
    assert "or was starved" not in found


@pytest.mark.skipif(not lab.FULL, reason="spinlocks that are held are in the full matrix only")
@pytest.mark.parametrize("kernel", ["6.12", "6.1-arm64"])
def test_whom_a_cpu_spins_for_is_told_also_where_it_gave_no_registers(kernel: str) -> None:
    found = diagnosed(kernel, "spin-held")
    assert found.verdict.culprit is not None
    assert found.verdict.culprit.function in ("tardy_wait_sensor", "tardy_grip")
    assert found.verdict.culprit.function in found.verdict.explanation
    assert found.signature.parts[4] == "tardy_grip"


@pytest.mark.parametrize(("fault", "ran"), [
    ("null-workqueue", "a work queue (flaky_poll_work), in kernel thread kworker/"),
    ("null-timer", "a timer (flaky_watchdog_tick), which had interrupted "),
    ("bad-address", "the system call write of process sh (pid "),
])
def test_what_ran_the_code_is_told(fault: str, ran: str) -> None:
    assert f"It ran in {ran}" in diagnosed("6.1", fault).verdict.explanation


@pytest.mark.skipif(not lab.FULL, reason="dumps of the full matrix")
@pytest.mark.parametrize(("kernel", "fault", "ran"), [
    ("6.1", "mirrored-belt", "a work queue (addrconf_dad_work), in kernel thread kworker/"),
    ("6.12", "same-lever", "an irq_work (points_chip), which had interrupted process sh "),
    ("6.1", "wrong-side", "a timer (loom_at_whistle), which had interrupted process sh "),
    ("6.12", "half-tasklet", "a tasklet, in kernel thread ksoftirqd/"),
])
def test_what_ran_the_culprit_s_code_is_not_what_noticed(kernel: str, fault: str, ran: str) -> None:
    assert f"It ran in {ran}" in diagnosed(kernel, fault).verdict.explanation


def test_lines_of_source_of_a_module_that_no_server_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own file is asked for, which drgn takes beside the kernel's only: alone it is refused with that reason."""
    assert diagnosed("6.1", "null-workqueue").verdict.next[-1].endswith("--vmlinux VMLINUX --vmlinux flaky.ko.")
    path = lab.dump("6.1", "null-workqueue").path
    assert main(["report", str(path), "--vmlinux", str(path.parent / "flaky.ko")]) == 1
    assert "a module's file is used beside the kernel's own" in capsys.readouterr().err


@pytest.mark.parametrize(("fault", "words"), [
    ("answer-locked", "waits for the completion kmalloc-512 object+0xa8 that kworker/"),
    ("nmi", "Stopped by an NMI of unknown origin"),
    ("bug", "The condition stands in the module's own source, which its vendor has: flaky_control.c:11."),
])
def test_what_is_told_reads_well(fault: str, words: str) -> None:
    assert words in said(diagnosed("6.1", fault))


def test_only_what_called_the_kernel_is_user_space() -> None:
    """An address that code jumped to stands above the kernel's frames: a process could have it, but none called."""
    inner, called, outer = (Frame(0x700001004, None, None, None, user=True), Frame(1 << 63, "pull", 22, "attic"),
                            Frame(0x47B7A0, None, None, None, user=True))
    assert [frame.symbol for frame in shown((inner, called, outer), None)] == [None, "pull", "(user space)"]


def test_what_was_taken_off_null_is_told_as_that() -> None:
    found = diagnosed("6.1", "empty-head")
    assert re.search(r"\(register \w+ was 0xf{13}\w{3}: NULL less 0x20, as container_of\(\) takes",
                     found.verdict.explanation)


@pytest.mark.skipif(not lab.FULL, reason="dumps of the full matrix")
@pytest.mark.parametrize(("fault", "told"), [
    ("late-account", "(register rdi was 0x18: NULL and the offset of a member). The pointer was read from "
                     "loom_accounts+0x8 [loom]."),
    ("no-almanac", "(register rdi was 0x10: NULL and the offset of a member). In the source that is mast->almanac."),
    ("two-strippers", "(register rdi was 0x0). The pointer was read from hive_sheets+0x28 [hive]."),
    ("blind-register", "through a pointer that was NULL. The pointer was read from vane_mast+0x70 [vane]."),
])
def test_which_pointer_was_null_is_told(fault: str, told: str) -> None:
    found = diagnosed("6.12", fault)
    assert told in found.verdict.explanation
    assert not [item for item in found.verdict.evidence if item.what == "the pointer in the source"
                and "+0x" in item.detail]
