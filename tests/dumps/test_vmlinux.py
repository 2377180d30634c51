"""The vmlinux that is made of a dump, against the kernel's own: in crash command by command, in drgn, gdb, readelf."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import follow_phys
from drgn.helpers.linux.pid import for_each_task

import kdumpy
import lab
from crashtruth import Truth, release_of, truth, vmlinux
from kdumpy.debuginfo.btf import Kind
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.notes import Machine
from kdumpy.dumpfile.sink import FileSink
from kdumpy.errors import NotInDump
from kdumpy.kernel import Kernel
from kdumpy.vmlinux.making import make_vmlinux

FAULT = "null-workqueue"
ROOT = Path(__file__).parents[2]
SAME = (
    "bt", "bt -a", "bt -f", "bt -F", "bt -e", "bt -t", "foreach bt", "ps", "ps -A", "ps -l", "ps -t", "ps -m", "log",
    "log -T", "mod", "mod -t", "files", "foreach files", "vm", "vm 1", "vm -p 1", "kmem -i", "kmem -s", "kmem -f",
    "kmem -v", "kmem -V", "kmem -z", "kmem -n", "kmem -o", "kmem -g", "kmem -h", "kmem -p", "kmem -S task_struct",
    "struct task_struct", "struct -o task_struct", "struct task_struct init_task", "struct -o sk_buff",
    "struct rq:0 runqueues", "struct list_head modules", "union thread_union", "*page", "list modules",
    "list -H modules -s module.name -l module.list", "tree -t rbtree -o vmap_area.rb_node vmap_area_root", "mount",
    "mount -f", "net", "net -n", "sys -i", "sys -c", "irq", "irq -u", "timer", "runq", "swap", "ipcs", "dev", "dev -d",
    "mach", "mach -m", "task", "sig", "whatis schedule", "whatis jiffies", "p init_task.comm", "p runqueues:0",
    "p node_states", "dis schedule", "rd linux_banner -a", "search -t flaky",
)  # fmt: skip
"""What crash answers alike, word for word."""
WITHOUT_LINES = {"sys -c"}
"""Answers with file and line behind each row, which BTF has not."""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdumpy", *map(str, words)], capture_output=True, text=True,
                          timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])})


class MadeFile:
    """A vmlinux that the command has made, and what it said."""

    def __init__(self, path: Path, dump: Path) -> None:
        self.path = path
        self.dump = dump
        before = os.times()
        answer = run("vmlinux", dump, "-o", path, "--json")
        after = os.times()
        assert answer.returncode == 0, answer.stderr
        self.cpu_seconds = after.children_user + after.children_system - before.children_user - before.children_system
        self.told: dict[str, Any] = json.loads(answer.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("vmlinux")

    @cache
    def make(kernel: str) -> MadeFile:
        return MadeFile(folder / f"vmlinux-{kernel}", lab.dump(kernel, FAULT).path)

    return make


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_it_is_made_at_once_and_small_and_private(made: Any, kernel: str) -> None:
    file = made(kernel)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.stat().st_size == file.told["bytes"] <= 60_000_000
    assert file.cpu_seconds <= 5
    assert [path.name for path in file.path.parent.iterdir() if path.name.startswith(".")] == []
    assert file.told["missing_bytes"] == 0
    assert file.told["left_out"] == {}
    assert file.told["types"] > 40_000
    assert file.told["functions"] > 30_000
    assert file.told["variables"] > 120
    assert file.told["build_id"] == open_dump(file.dump).vmcoreinfo.build_id
    if kernel != "5.10":        # its modules have no BTF
        assert file.told["modules"]["nf_conntrack"] > 300


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_readelf_finds_nothing_wrong(made: Any, kernel: str) -> None:
    if not shutil.which("readelf"):
        pytest.skip("readelf is not installed")
    file = made(kernel)
    answer = subprocess.run(["readelf", "-W", "-h", "-l", "-S", "-n", "--debug-dump=abbrev,info", str(file.path)],
                            capture_output=True, text=True, errors="replace", timeout=120)
    assert answer.returncode == 0
    assert answer.stderr == ""
    assert f"Build ID: {file.told['build_id']}" in answer.stdout
    assert "DW_TAG_compile_unit" in answer.stdout
    assert re.search(r"DW_AT_name +: .*task_struct$", answer.stdout, re.M)


def symbols_of(path: Path) -> dict[tuple[str, int], str]:
    """Return nm's letter of each symbol and address."""
    text = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^([0-9a-f]{16}) (\w) (\S+)$", text, re.M)
    return {(name, int(address, 16)): letter for address, letter, name in found}


def real(kernel: str) -> Path:
    debug = vmlinux(release_of(lab.dump(kernel, FAULT).path))
    if debug is None:
        pytest.skip(f"no vmlinux with DWARF: python -m kdumpy.vm debug {kernel}")
    return debug


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_every_symbol_is_where_the_linker_put_it(made: Any, kernel: str) -> None:
    if not shutil.which("nm"):
        pytest.skip("nm is not installed")
    ours, theirs = symbols_of(made(kernel).path), symbols_of(real(kernel))
    assert len(ours) > 80_000
    assert ours.keys() - theirs.keys() == set()
    # Not all that nm calls code is: 7.2 has data that can be executed. What lies behind was given back after booting.
    end = next(address for name, address in ours if name == "_etext")
    code = [symbol for symbol, letter in theirs.items() if letter in "tT" and symbol in ours and symbol[1] <= end]
    assert len(code) > 35_000
    assert [symbol for symbol in code if ours[symbol] not in "tT"] == []


@cache
def own_answers() -> Truth:
    return truth("6.1", FAULT, SAME)


@cache
def answers(made_path: Path, dump: Path) -> Truth:
    return Truth(dump, made_path, SAME)


@pytest.mark.parametrize("line", SAME)
def test_crash_answers_as_with_the_kernel_s_own_vmlinux(made: Any, line: str) -> None:
    expected = own_answers()(line)
    file = made("6.1")
    found = answers(file.path, file.dump)(line)
    if line in WITHOUT_LINES:
        expected, found = ([re.sub(r" +\.\./.*", "", text).rstrip() for text in lines]
                           for lines in (expected, found))
    assert [pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]] == []
    assert len(found) == len(expected) > 0


def test_crash_says_the_same_of_the_system(made: Any) -> None:
    def plain(lines: list[str]) -> list[str]:
        return [line for line in lines if "KERNEL:" not in line]

    file = made("6.1")
    commands = ("sys",)
    assert plain(Truth(file.dump, file.path, commands)("sys")) == plain(truth("6.1", FAULT, commands)("sys"))


def test_it_serves_for_another_boot_of_the_same_kernel(made: Any) -> None:
    commands = ("bt", "ps", "mod", "kmem -i", "kmem -s", "log", "mount", "files", "net")
    expected = truth("6.1", "sysrq", commands)
    found = Truth(lab.dump("6.1", "sysrq").path, made("6.1").path, commands)
    assert {line: found(line) for line in commands} == {line: expected(line) for line in commands}


def test_crash_starts_faster_and_quietly(made: Any) -> None:
    file, debug = made("6.1"), real("6.1")
    if not shutil.which("crash"):
        pytest.skip("crash is not installed")

    def seconds(path: Path) -> float:
        before = os.times()
        answer = subprocess.run(["crash", "-s", str(path), str(file.dump)], input="q\n", capture_output=True, text=True,
                                timeout=120)
        assert answer.returncode == 0
        assert "inconsistency" not in answer.stdout + answer.stderr     # the banners agree
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert seconds(file.path) < seconds(debug) / 2


def test_modules_types_are_there_and_hide_none_of_the_kernel_s(made: Any) -> None:
    file = made("6.1")
    assert file.told["renamed"] == {"nf_conntrack": ["nf_nat_manip_type"]} | {
        name: names for name, names in file.told["renamed"].items() if name != "nf_conntrack"}
    commands = ("struct nf_conntrack_helper", "struct dm_table", "whatis module")
    crash = Truth(file.dump, file.path, commands)
    assert crash("struct nf_conntrack_helper")[0] == "struct nf_conntrack_helper {"
    assert crash("struct nf_conntrack_helper")[-1].startswith("SIZE: ")
    assert crash("struct dm_table")[0] == "struct dm_table {"


def opened(kernel: str, debug: Path) -> drgn.Program:
    prog = drgn.Program()
    prog.set_core_dump(str(lab.dump(kernel, FAULT).path))
    prog.set_enabled_debug_info_finders([])
    prog.load_debug_info([str(debug)])
    return prog


def frames(prog: drgn.Program, task: drgn.Object) -> list[int]:
    return [frame.pc for frame in prog.stack_trace(task) if not frame.is_inline]


def layout(made: drgn.Type) -> tuple[int, list[tuple[str | None, int, int | None]]]:
    return made.size, [(member.name, member.bit_offset, member.bit_field_size) for member in made.members or ()]


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_drgn_reads_it_as_it_reads_the_kernel_s_own(made: Any, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRGN_DISABLE_PLUGINS", "*")
    ours, theirs = opened(kernel, made(kernel).path), opened(kernel, real(kernel))
    tasks = {task.value_(): task for task in for_each_task(ours)}
    reference = {task.value_(): task for task in for_each_task(theirs)}
    assert tasks.keys() == reference.keys()
    assert len(tasks) > 40
    assert {address: frames(ours, task) for address, task in tasks.items()} == {
        address: frames(theirs, task) for address, task in reference.items()}
    assert [frame.pc for frame in ours.crashed_thread().stack_trace()] == [
        frame.pc for frame in theirs.crashed_thread().stack_trace() if not frame.is_inline]
    with kdumpy.open(lab.dump(kernel, FAULT).path) as opened_alone:
        types = opened_alone.debuginfo.types
        assert types is not None
        names = list(types.btf.index.names[Kind.STRUCT])
        percpu = list(types.btf.index.percpu)
    different, equal = [], 0
    for name in names:
        try:
            expected = theirs.type(f"struct {name}")
        except LookupError:
            continue
        if layout(ours.type(f"struct {name}")) == layout(expected):
            equal += 1
        else:
            different.append(name)
    # A few names stand for different structs in different files; which one is "the" struct is arbitrary.
    assert len(different) < 25, different
    assert equal > 5000
    wrong, compared = {}, 0
    for name in percpu:
        if len(theirs.symbols(name)) > 1:
            continue  # statics of one name in two files: which of them is "the" variable is arbitrary
        found, expected_variable = ours.variable(name), theirs.variable(name)
        if (found.address_, drgn.sizeof(found)) != (expected_variable.address_, drgn.sizeof(expected_variable)):
            wrong[name] = (found, expected_variable)
        compared += 1
    assert wrong == {}
    assert compared >= 0.9 * len(percpu)
    assert percpu or kernel == "5.10"  # whose BTF names no variable


def gdb(*words: object) -> str:
    if not shutil.which("gdb"):
        pytest.skip("gdb is not installed")
    commands = [part for word in words for part in ("-ex", str(word))]
    return subprocess.run(["gdb", "-nx", "-batch", *commands], capture_output=True, text=True, timeout=120,
                          check=True).stdout


def test_gdb_reads_types_code_and_data(made: Any) -> None:
    text = gdb(f"file {made('6.1').path}", "ptype struct list_head", "whatis schedule", "p init_task.comm",
               "p sizeof(struct task_struct)", "p (enum pid_type)1", "x/2i schedule", "p linux_banner",
               "whatis runqueues", "whatis pageflag_names")
    assert "struct list_head *next;" in text
    assert "type = void (void)" in text
    assert '"swapper/0' in text
    assert "PIDTYPE_TGID" in text
    assert "<schedule>:" in text
    assert '"Linux version 6.1' in text
    assert "type = struct rq" in text
    assert "type = const struct trace_print_flags [25]" in text


def test_gdb_reads_the_memory_of_a_dump_with_it(made: Any, tmp_path: Path) -> None:
    """An ELF dump with virtual addresses, as /proc/vmcore has them, and the file moved as the command says."""
    file = made("6.1")
    core = tmp_path / "core"
    assert run("convert", file.dump, core, "--to", "elf").returncode == 0
    map_image(core, open_dump(file.dump).vmcoreinfo.number("phys_base"))
    slide = file.told["kaslr_offset"]
    assert slide
    text = gdb(f"symbol-file -o {slide:#x} {file.path}", f"core-file {core}", "p init_task.comm",
               "p init_uts_ns.name.release", "p modules.next != 0", "info symbol &schedule")
    assert '"swapper/0' in text
    assert f'"{release_of(file.dump)}' in text
    assert "schedule in section .text" in text


def map_image(core: Path, phys_base: int) -> None:
    """Give the segments of an ELF dump the addresses at which the kernel's image is mapped."""
    data = bytearray(core.read_bytes())
    (programs,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for at in range(programs, programs + size * count, size):
        kind, _, _, _, physical = struct.unpack_from("<IIQQQ", data, at)
        if kind == 1:
            struct.pack_into("<Q", data, at + 16, (0xffffffff80000000 + physical - phys_base) % (1 << 64))
    core.write_bytes(data)


def leave_out(core: Path, pages: set[int]) -> None:
    """Take pages (physical addresses) out of an ELF dump: a new table of segments behind the data, with gaps."""
    data = bytearray(core.read_bytes())
    (programs,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    table = []
    for at in range(programs, programs + size * count, size):
        kind, flags, offset, virtual, physical, filed, memory, align = struct.unpack_from("<IIQQQQQQ", data, at)
        gaps = sorted(page for page in pages if kind == 1 and physical <= page < physical + filed)
        begin = physical
        for page in (*gaps, physical + filed):
            if page > begin or not filed:
                table.append((kind, flags, offset + begin - physical, virtual + begin - physical, begin, page - begin,
                              page - begin if filed else memory, align))
            begin = page + 4096
    struct.pack_into("<Q", data, 32, len(data))
    struct.pack_into("<H", data, 56, len(table))
    core.write_bytes(data + b"".join(struct.pack("<IIQQQQQQ", *row) for row in table))


def test_what_the_dump_lacks_is_zero_and_told(kernel: Kernel, tmp_path: Path) -> None:
    core, prog = tmp_path / "core", kernel.prog
    assert run("convert", lab.dump("6.1", FAULT).path, core, "--to", "elf").returncode == 0
    types = next(iter(list_for_each_entry("struct btf_module", prog["btf_modules"].address_of_(), "list")))
    name = types.module.name.string_().decode()
    code = prog.symbol("schedule").address & -4096
    leave_out(core, {int(follow_phys(prog["init_mm"].address_of_(), address)) & -4096
                     for address in (code, code + 4096, types.btf.data.value_())})
    answer = run("vmlinux", core, "-o", tmp_path / "vmlinux")
    assert answer.returncode == 1
    assert re.search(r"not in the dump, so zero: 8\.0 KiB of [\d.]+ MiB of code and data", answer.stdout)
    assert re.search(rf"left out: types of modules, {name}\b", answer.stdout)
    assert gdb(f"file {tmp_path / 'vmlinux'}", "ptype struct list_head").startswith("type = struct list_head {")


@pytest.fixture
def kernel() -> Any:
    with kdumpy.open(lab.dump("6.1", FAULT).path) as opened_kernel:
        yield opened_kernel


def test_pages_of_code_that_are_missing_are_counted(kernel: Kernel, tmp_path: Path) -> None:
    start = kernel.prog.symbol("schedule").address & -4096

    def lost(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("excluded", address)

    kernel.prog.add_memory_segment(start, 0x3000, lost)
    with FileSink(tmp_path / "vmlinux") as sink:
        made = make_vmlinux(kernel, sink)
    assert made.missing_bytes == 0x3000
    assert made.left_out == {}


@pytest.mark.parametrize("part", ["symbols", "types"])
def test_without_symbols_or_types_the_package_is_named(kernel: Kernel, tmp_path: Path, part: str) -> None:
    kernel.debuginfo.missing[part] = "the page is missing"
    with FileSink(tmp_path / "vmlinux") as sink, pytest.raises(NotInDump, match=r"linux-image-6\.1.*-dbg") as raised:
        make_vmlinux(kernel, sink)
    assert raised.value.why == "the page is missing"


def test_another_machine_is_refused_by_name(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.dump, "machine", Machine.AARCH64)
    with FileSink(tmp_path / "vmlinux") as sink, pytest.raises(NotInDump, match=r"x86-64 dumps only.*aarch64"):
        make_vmlinux(kernel, sink)


def test_progress_reaches_the_end(kernel: Kernel, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    with FileSink(tmp_path / "vmlinux") as sink:
        made = make_vmlinux(kernel, sink, lambda *numbers: told.append(numbers))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1] == (made.bytes, made.bytes, made.bytes)
    assert len(told) > 10


@pytest.mark.parametrize(("words", "code", "said"), [
    (("-o", "-"), 2, "standard output"), ((), 2, "-o"), (("-o", "there"), 2, "--force"),
    (("-o", "no/such/folder"), 3, "no/such"),
])
def test_wrong_usage_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...],
                                         code: int, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("mine")
    answer = run("vmlinux", lab.dump("6.1", FAULT).path, *words)
    assert answer.returncode == code
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert (tmp_path / "there").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
