"""Dumps of arm64 kernels on this machine, whatever its own processor: frames, log, tasks, modules, verdict.

The default run takes two dumps: of the kernel that is hardest to read, Debian's 6.1, whose kallsyms lists functions
only; and of one with pages of 16 KiB and addresses of 52 bits. What they say is held against what the guest itself
printed: its list of processes and modules before the crash, its oops. With KDUMPY_MATRIX=full every fault on every
arm64 kernel of the laboratory is held against DWARF.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest

import kdumpy
import lab
from console import Console
from kdumpy.debuginfo import attach
from kdumpy.debuginfo.variables import DECLARATIONS
from kdumpy.diagnosis import diagnose
from kdumpy.dumpfile.paging import KernelMemory
from kdumpy.kernel import Kernel
from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import LabDump, Recipe
from withdwarf import alone, every_task, frames, same_type, with_dwarf

KERNEL = "6.1-arm64"
BIG_PAGES = "6.12-arm64-16k"
BOTH = pytest.mark.parametrize("kernel", [KERNEL, BIG_PAGES])
FULL = pytest.mark.skipif(not lab.FULL, reason="the full matrix: KDUMPY_MATRIX=full")


@pytest.fixture
def _without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRGN_DISABLE_PLUGINS", "*")


def _telling(recipe: Recipe) -> Recipe:
    """The guest says what it runs before it crashes."""
    said = "echo LAB listing; ps; lsmod; echo LAB listed; sleep 1; "
    return replace(recipe, fault=replace(recipe.fault, trigger=said + recipe.fault.commands()))


@cache
def made(kernel: str = KERNEL) -> LabDump:
    return laboratory.dump(kernel, "null-workqueue", progress=print, recipe=_telling)


@cache
def opened(kernel: str = KERNEL) -> Kernel:
    return kdumpy.open(made(kernel).path)


@cache
def listing(kernel: str) -> str:
    return made(kernel).console.read_text().replace("\r", "").split("LAB listing\n")[1].split("LAB listed\n")[0]


def test_variables_are_known_where_types_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened()        # before: all tests share it
    monkeypatch.setattr(attach, "_LARGEST_BTF", 1)
    with kdumpy.open(made().path) as kernel:
        assert "impossible size" in kernel.debuginfo.missing["types"]
        for name in ("init_task", "init_mm", "jiffies"):
            assert kernel.prog.symbol(name).address == whole.prog.symbol(name).address


@BOTH
def test_the_verdict_is_right(kernel: str) -> None:
    verdict = diagnose(opened(kernel)).verdict
    assert (verdict.cause, verdict.confidence) == ("null-dereference", "certain")
    assert verdict.culprit is not None
    assert (verdict.culprit.function, verdict.culprit.module) == ("flaky_poll_channel", "flaky")


@BOTH
def test_the_frames_are_those_of_the_kernels_own_trace_and_the_caller_that_it_leaves_out(kernel: str) -> None:
    panic = opened(kernel).panic
    assert panic is not None
    found = [f"{frame.function}+{frame.offset:#x}" for frame in panic.stack.frames]
    log = made(kernel).dmesg.read_text()
    trace = log.split("Call trace:")[1].split("Code:")[0]
    printed = re.findall(r"\] +(\S+\+0x[0-9a-f]+)/", trace)
    assert len(printed) > 4
    assert [name for name in found if name not in printed] == re.findall(r"lr : (\S+\+0x[0-9a-f]+)/", log)
    assert [name for name in found if name in printed] == printed
    assert found[0].startswith("flaky_poll_channel+")
    assert found[1].startswith("flaky_poll_work+")


@BOTH
def test_the_registers_are_those_that_the_kernel_printed(kernel: str) -> None:
    panic = opened(kernel).panic
    assert panic is not None
    printed = dict(re.findall(r"\b(x\d+|sp|pstate) ?: ([0-9a-f]{8,16})\b", made(kernel).dmesg.read_text()))
    assert len(printed) == 32
    assert {name: panic.registers[name] for name in printed} == {name: int(text, 16) for name, text in printed.items()}


@BOTH
def test_the_log_is_what_the_console_showed(kernel: str) -> None:
    lines = [line.split("] ", 1)[1] for line in made(kernel).console.read_text().replace("\r", "").splitlines()
             if re.match(r"\[ +\d+\.\d+\] ", line)]
    crash = next(number for number, line in enumerate(lines) if "Starting crashdump kernel" in line)
    found = [line.split("] ", 1)[1] for record in opened(kernel).log for line in record.lines()]
    shown = iter(found)         # debug lines are in the log and not on the console: the rest is, in the same order
    assert crash > 200
    assert [line for line in lines[: crash + 1] if line not in shown] == []


@BOTH
def test_the_tasks_are_those_that_the_guest_listed(kernel: str) -> None:
    printed = {int(pid): comm for pid, comm in re.findall(r"^ *(\d+) \w+ +(.+)$", listing(kernel), re.M)}
    found = {task.pid: task.comm for task in opened(kernel).tasks()}
    assert len(printed) > 40
    # The shell that lists has ended since, and a worker of the kernel may have.
    assert [comm for pid, comm in printed.items() if pid not in found
            and "trigger" not in comm and "kworker" not in comm and comm != "sleep 1"] == []
    threads = {pid: comm.strip("[]") for pid, comm in printed.items() if comm.startswith("[") and "kworker" not in comm}
    assert {pid: found[pid][:15] for pid in threads} == {pid: comm[:15] for pid, comm in threads.items()}


@BOTH
def test_the_modules_are_those_that_the_guest_listed(kernel: str) -> None:
    printed = dict(re.findall(r"^(\w+) +(\d+) +\d", listing(kernel), re.M))
    assert len(printed) > 10
    assert {module.name for module in opened(kernel).modules} == printed.keys()


@BOTH
def test_the_cpus_that_the_panic_stopped_are_there(kernel: str) -> None:
    assert [cpu.number for cpu in opened(kernel).cpus] == [0, 1]
    assert opened(kernel).system.cpus == 2


def test_what_kallsyms_does_not_list_is_known_and_said() -> None:
    info = opened().debuginfo
    assert set(info.missing) == {"symbols of variables"}
    assert "no CONFIG_KALLSYMS_ALL" in info.missing["symbols of variables"]
    prog = opened().prog
    assert prog["init_task"].comm.string_() == b"swapper/0"
    assert prog["modules"].next.next.prev.value_() == prog["modules"].next.value_()


@pytest.mark.parametrize("line", ["bt -a", "ps", "log", "mod", "sys", "p jiffies", "struct task_struct.pid",
                                  "dis flaky_poll_work", "kmem -i", "runq", "foreach bt", "files 1", "mount", "vm 1",
                                  "sym flaky_poll_work", "rd init_task 4", "mach", "irq", "timer", "net", "kmem -s"])
@BOTH
def test_the_shell_answers(kernel: str, line: str) -> None:
    assert Console(opened(kernel))(line)


@BOTH
def test_the_stack_of_a_program_ends_with_the_registers_of_its_system_call(kernel: str) -> None:
    console = Console(opened(kernel))
    (trace,) = console.json("bt 1 --json")
    user = trace["frames"][-1]
    assert user["stack"] == "USER"
    assert user["registers"]["syscallno"] == user["registers"]["x8"] == 260     # wait4 (asm-generic/unistd.h)
    areas = [area for row in console.json("vm 1 --json") for area in row["areas"]]
    assert any(area["start"] <= user["pc"] < area["end"] for area in areas)
    for option in ("", "-t", "-o"):
        assert console(f"bt {option} 1").splitlines()[-1].startswith("    ORIG_X0: ")
    (found,) = console.json("bt -e 1 --json")
    assert [(frame["user"], frame["registers"]) for frame in found["found"]] == [(True, user["registers"])]
    kernel_thread = console.json("bt 2 --json")[0]["frames"]
    assert all(frame["stack"] != "USER" for frame in kernel_thread)


@BOTH
def test_saved_registers_are_found_on_the_stack_of_the_fault(kernel: str) -> None:
    console = Console(opened(kernel))
    panic = opened(kernel).panic
    assert panic is not None
    (trace,) = console.json("bt -e --json")
    assert any(frame["registers"].items() <= panic.registers.items() and frame["registers"]["pc"] == panic.fault.pc
               for frame in trace["found"] if panic.fault)
    assert all(not frame["user"] for frame in trace["found"])
    assert {(row["cpu"], row["stack"]) for row in console.json("bt -E --json")} == {
        (cpu, name) for cpu in (0, 1) for name in ("IRQ", "OVERFLOW")}


@BOTH
def test_entries_of_page_tables_are_explained(kernel: str) -> None:
    console = Console(opened(kernel))
    pc = console.json("bt 1 --json")[0]["frames"][-1]["pc"]
    (walk,) = console.json(f"vtop -c 1 -u {pc:x} --json")
    (row,) = console.json(f"pte {walk['entries'][-1]['entry']:x} --json")
    assert row["physical"] == walk["page"]
    assert {"VALID", "USER", "RDONLY", "AF", "PXN"} <= set(row["flags"])
    assert "UXN" not in row["flags"]                    # it is code
    assert "the page is not present" in console.fails("pte 3f2")
    assert f"{row['pte']:x}  {row['physical']:x}" in console(f"vtop -c 1 -u {pc:x}")
    for wrong in ("10000000000000000", "-1"):
        assert "entries have 64 bits" in console.fails(f"pte {wrong}")


@BOTH
def test_search_finds_each_place_once_though_the_image_lies_in_vmalloc_s_range(kernel: str) -> None:
    opened_dump = opened(kernel)
    found = [row["address"] for row in Console(opened_dump).json("search 57ac6e9d --json")]     # STACK_END_MAGIC
    assert len(found) > 50
    assert found == sorted(set(found))
    assert [address for address in found if opened_dump.prog.read_u64(address) != 0x57ac6e9d] == []



def test_addresses_are_translated_by_tables_of_any_size_of_page() -> None:
    kernel = opened(BIG_PAGES)
    assert kernel.dump.page_size == 16384
    init_task = kernel.prog.symbol("init_task").address
    lines = Console(kernel)("vtop init_task").splitlines()
    assert lines[1].split() == [f"{init_task:x}", f"{KernelMemory(kernel.dump).translate(init_task):x}"]
    # 52 bits of address in pages of 16 KiB: four levels, of which the top one has 32 entries.
    assert [line.split(":")[0].strip() for line in lines if "=>" in line] == ["level0", "level1", "level2", "level3"]


ARM64 = [(kernel, fault) for kernel in lab.ARM64_KERNELS for fault in lab.ARM64_FAULTS]


@FULL
@pytest.mark.usefixtures("_without_the_plugin")
@pytest.mark.parametrize(("kernel", "fault"), ARM64)
def test_all_frames_of_all_tasks_equal_those_with_dwarf(kernel: str, fault: str) -> None:
    ours = kdumpy.open(lab.dump(kernel, fault).path)
    theirs = with_dwarf(kernel, fault)
    tasks, reference = every_task(ours.prog), every_task(theirs)
    assert len(reference) > 40
    assert tasks.keys() == reference.keys()
    wrong = {}
    for address, task in reference.items():
        found = [frame.pc for frame in ours.stacks.of(tasks[address]).frames if not frame.inline]
        expected = frames(theirs, task)
        if expected[0] == 0:        # after a jump to nowhere drgn gives the call, and kdumpy where it would return to
            found[1] -= 4
        if found != expected:
            wrong[task.comm.string_().decode()] = (found, expected)
    assert wrong == {}


@FULL
@pytest.mark.usefixtures("_without_the_plugin")
@pytest.mark.parametrize(("kernel", "fault"), ARM64)
def test_every_verdict_is_right(kernel: str, fault: str) -> None:
    dump = lab.dump(kernel, fault)
    kernel_of_dump = kdumpy.open(dump.path)
    assert [cpu.number for cpu in kernel_of_dump.cpus] == [0, 1]        # later kernels take stopped ones off the mask
    verdict = diagnose(kernel_of_dump).verdict
    assert verdict.cause == dump.fault.cause
    if dump.fault.culprits:
        assert verdict.culprit is not None
        assert verdict.culprit.function in dump.fault.culprits
        assert verdict.culprit.module == dump.fault.module


@FULL
@pytest.mark.usefixtures("_without_the_plugin")
@pytest.mark.parametrize("kernel", lab.ARM64_KERNELS)
def test_every_variable_has_the_address_and_type_that_dwarf_says(kernel: str) -> None:
    ours, _ = alone(kernel, "sysrq")
    theirs = with_dwarf(kernel, "sysrq")
    wrong, equal = {}, 0
    for name in DECLARATIONS:
        try:
            expected, found = theirs.variable(name), ours.variable(name)
        except LookupError:
            continue        # what is not known of a kernel without CONFIG_KALLSYMS_ALL is not there, and never wrong
        if found.address_ == expected.address_ and (same_type(found.type_, expected.type_) or name in OTHER_LENGTH):
            equal += 1
        else:
            wrong[name] = f"{found.type_.type_name()}; DWARF: {expected.type_.type_name()}"
    assert wrong == {}
    assert equal > 90


OTHER_LENGTH = {"cpu_bit_bitmap", "swapper_spaces", "nr_swapper_spaces"}
"""Arrays as long as the kernel's configuration makes them; without the symbol's size the length is not known."""


@FULL
@pytest.mark.usefixtures("_without_the_plugin")
def test_every_symbol_that_kallsyms_lacks_is_where_the_debug_package_says() -> None:
    ours, info = alone(KERNEL, "sysrq")
    theirs = with_dwarf(KERNEL, "sysrq")
    assert info.symbols is not None
    others = info.symbols.others(ours)
    compared = {symbol.name: (symbol.address, {known.address for known in theirs.symbols(symbol.name)})
                for symbol in others if symbol.name != "node_online_map"}      # a macro, in VMCOREINFO by that name
    assert len(compared) > 900
    assert {name: places for name, places in compared.items() if places[0] not in places[1]} == {}


