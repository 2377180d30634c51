"""The options of crash that drgn's commands lack, on real dumps: each held against drgn, memory or the fault."""

from __future__ import annotations

import os
import re
from pathlib import Path

import drgn
import pytest
from drgn.helpers.linux.fs import for_each_file
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import follow_phys, for_each_vma, for_each_vmap_area
from drgn.helpers.linux.pid import find_task, for_each_task

from brokendump import Broken
from console import Console, kernel_of
from kdumpy.crash import registry
from kdumpy.crash.startup import startup_files


def test_mach_tells_the_machine(null: Console) -> None:
    facts = {row["name"]: row["value"] for row in null.json("mach --json")}
    assert facts["MACHINE TYPE"] == "x86_64"
    assert facts["CPUS"] == "2"
    assert facts.get("HZ", "250") == "250"      # 7.2 has no variable that tells
    assert facts["PAGE SIZE"] == "4096"
    assert int(facts["KERNEL VMEMMAP BASE"], 16) == null.prog["vmemmap"].value_()
    assert re.fullmatch(r"\d{4} Mhz", facts["PROCESSOR SPEED"])
    extents = null.json("mach -m --json")
    assert all(row["start"] < row["end"] for row in extents)
    assert sum(row["end"] - row["start"] for row in extents if row["value"] == "E820_RAM") > 256 << 20
    assert null("mach -c").count("x86_vendor_id = \"") == 2
    assert "OPAL" in null.fails("mach -o")


def test_pte_explains_entries(old: Console) -> None:
    assert old("pte d8e067").splitlines()[1].split() == ["d8e067", "d8e000", "(PRESENT|RW|USER|ACCESSED|DIRTY)"]
    # Offset 5104 of swap file 0, as pgtable_64.h stores it.
    swapped = (~5104 << 14 & (1 << 64) - 1) >> 5
    (row,) = old.json(f"pte {swapped:x} --json")
    assert (row["physical"], row["offset"]) == (None, 5104)
    assert "no hexadecimal" in old.fails("pte xyz")


def test_fuser_finds_who_uses_a_file(null: Console) -> None:
    users = {row["pid"]: row["usage"] for row in null.json("fuser /bin/busybox --json")}
    assert "mmap" in users[1]
    (first, *_) = null.json("files 1 --json")
    inode = first["files"][0]["inode"]
    assert 1 in {row["pid"] for row in null.json(f"fuser {inode:x} --json")}
    assert "no task uses" in null.fails("fuser /no/such/file")


def test_mount_i_lists_the_dirty_inodes_and_no_others(null: Console) -> None:
    (data,) = null.json("mount -i /data --json")
    dirty = {inode["path"] for inode in data["dirty"]}
    assert {"messages", "recipe"} <= dirty <= {"messages", "recipe", "image", "swap"}     # what the guest wrote
    root = null.json("mount -i / --json")[0]["dirty"]
    listed = drgn.Object(null.prog, "struct super_block *", value=data["superblock"]).s_inodes
    inodes = {inode.value_() for inode in list_for_each_entry("struct inode", listed.address_of_(), "i_sb_list")}
    assert {inode["inode"] for inode in data["dirty"]} < inodes
    assert len(root) < 60


def test_net_s_shows_the_sockets_of_a_task(null: Console) -> None:
    found = [row for task in for_each_task(null.prog) if task.mm
             for row in null.json(f"net -s {task.value_():x} --json") if row["sockets"]]
    assert found
    for row in found:
        assert row["problem"] == ""
        files = dict(for_each_file(find_task(null.prog, row["pid"])))
        for entry in row["sockets"]:
            assert files[entry["fd"]].private_data.value_() == entry["socket"]
            assert drgn.Object(null.prog, "struct socket *", value=entry["socket"]).sk.value_() == entry["sock"]
    listening = next(entry for row in found for entry in row["sockets"] if entry["family"].startswith("INET"))
    assert re.fullmatch(r"[0-9a-f.:]+-\d+", listening["source"])
    some = found[0]
    assert null.json(f"net -s -R {some['sockets'][0]['fd']} {some['pid']} --json")[0]["sockets"]
    assert "struct sock {" in null(f"net -S {some['pid']}")
    assert "struct socket {" in null(f"net -S {some['pid']}")
    assert {row["name"] for row in null.json("net --json")} >= {"lo"}
    assert null.json("net -n 1 --json") == null.json("net --json")
    assert null("net -N 7f000001") == "1.0.0.127\n"
    assert "FAMILY:TYPE" in null(f"foreach {some['pid']} net -s")


def test_vm_p_says_where_each_page_is(null: Console) -> None:
    task = find_task(null.prog, 1)
    (row,) = null.json("vm -p 1 --json")
    pages = {page["virtual"]: page["physical"] for area in row["areas"] for page in area["pages"]}
    assert len(pages) == sum(vma.vm_end.value_() - vma.vm_start.value_() for vma in for_each_vma(task.mm)) // 4096
    in_memory = [(virtual, physical) for virtual, physical in pages.items() if physical is not None]
    assert len(in_memory) > 50
    for virtual, physical in in_memory[::7]:
        assert follow_phys(task.mm, virtual).value_() == physical
    area = row["areas"][0]
    assert null.json(f"vm -P {area['vma']:x} 1 --json")[0]["areas"] == [area]
    assert re.search(r"FILE: /bin/busybox  OFFSET: [0-9a-f]+$", null("vm -p 1"), re.M)
    (given,) = null.json(f"vm -M {task.mm.value_():x} --json")
    assert [one["vma"] for one in given["areas"]] == [one["vma"] for one in row["areas"]]
    assert null("vm -f 75") == "75: (READ|EXEC|MAYREAD|MAYWRITE|MAYEXEC)\n"


@pytest.mark.parametrize("reference", ["busybox", "/bin/busybox", "bin/b"])
def test_vm_r_takes_a_part_of_a_path(null: Console, reference: str) -> None:
    (all_areas,), (row,) = null.json("vm 1 --json"), null.json(f"vm -R {reference} 1 --json")
    assert row["areas"] == [area for area in all_areas["areas"] if area["file"] == "/bin/busybox"]
    assert 1 < len(row["areas"]) < len(all_areas["areas"])
    assert null.json("vm -R b 1 --json") == []          # a number, of no area


def test_kmem_s_of_cpus_refuses_what_is_no_cpu(null: Console) -> None:
    assert "no CPU 9" in null.fails("kmem -S=9 task_struct")
    assert "no list of CPUs" in null.fails("kmem -S=x task_struct")


def test_dis_is_written_as_the_gnu_disassembler_does_and_tells_the_registers(null: Console) -> None:
    panic = null.kernel.panic
    assert panic is not None
    assert panic.fault is not None
    name = panic.fault.symbol       # with the compiler's suffix, if it has one
    row = next(row for row in null.json(f"dis {name} --json") if row["fault"])
    assert row["registers"]
    assert row["registers"].items() <= panic.registers.items()
    assert 0 in row["registers"].values()       # the NULL pointer
    assert re.search(r"mov    \(%r\w+\),%e\w+  <== the kernel died here: \w+=0", null(f"dis {name}"))
    null("set 1")
    task = find_task(null.prog, 1)
    start = next(vma.vm_start.value_() for vma in for_each_vma(task.mm) if vma.vm_flags & 4)
    good, _, errors = null.attempt(f"dis -u {start:x} 2")
    assert good or "page" in errors or "memory" in errors       # level 31 leaves users' pages out


def test_struct_p_follows_pointers_and_f_reads_the_file(null: Console) -> None:
    task = find_task(null.prog, 1)
    text = null(f"struct -p task_struct.mm,pid {task.value_():x}")
    assert re.match(r"  struct mm_struct \*mm = 0x[0-9a-f]+\n  -> \{\n", text)
    assert "pid = 1," in text
    assert "pgd = " in text
    data = null.kernel.path.read_bytes()[:16]
    (row,) = null.json("struct -f list_head 0 --json")
    assert f"{int.from_bytes(data[:8], 'little'):#x}" in row["text"]
    (line,) = null.json("rd -f 0 2 --json")
    assert b"".join(value.to_bytes(8, "little") for value in line["values"]) == data
    assert null("struct list_head -c 2 modules").count("next = ") == 2
    assert "Xen" in null.fails("rd -m 0")


def test_tree_shows_positions_and_order(null: Console) -> None:
    if not null.prog.symbols("vmap_area_root"):
        assert "neither a symbol" in null.fails("tree vmap_area_root")      # 6.9 has a tree for each node
        return
    expected = [area.value_() for area in for_each_vmap_area(null.prog)]
    rows = null.json("tree -t rbtree -l -p -o vmap_area.rb_node vmap_area_root --json")
    assert [row["address"] for row in rows] == expected
    assert len({row["position"] for row in rows}) == len(rows)
    first = null.json("tree -p -o vmap_area.rb_node vmap_area_root --json")[0]
    assert first["position"] == "root"
    node = first["address"] + drgn.offsetof(null.prog.type("struct vmap_area"), "rb_node")
    assert len(null.json(f"tree -N -o vmap_area.rb_node {node:x} --json")) == len(rows)
    assert "va_start = " in null("tree -o vmap_area.rb_node -s vmap_area.va_start vmap_area_root")


def test_a_tree_that_runs_in_a_circle_ends_with_where(broken: Broken) -> None:
    first, second = broken.json("tree -p -o vmap_area.rb_node vmap_area_root --json")[:2]
    at = drgn.offsetof(broken.prog.type("struct vmap_area"), "rb_node")
    broken.write_word(second["address"] + at + 16, first["address"] + at)      # its left child is its parent
    good, text, errors = broken.attempt("tree -o vmap_area.rb_node vmap_area_root")
    assert not good
    assert f"{first['address']:x}" in text      # what was read stands
    assert "leads back to a node" in errors
    assert "root/l/l" in errors
    assert broken("sys")


def test_a_list_that_runs_in_a_circle_ends_with_where(broken: Broken) -> None:
    third = broken.prog["modules"].next.next.next.value_()
    second = broken.prog["modules"].next.next.value_()
    broken.write_word(third, second)
    good, text, errors = broken.attempt("list -B -H modules")
    assert not good
    assert f"{third:x}" in text         # what was read stands
    assert "runs in a circle" in errors, errors
    assert f"{second:x}" in errors
    assert broken("sys")


def test_whatis_lists_types_by_size_and_member(null: Console) -> None:
    rows = {row["name"]: row["size"] for row in null.json("whatis -r 64-72 -m task_struct --json")}
    assert rows
    assert all(64 <= size <= 72 for size in rows.values())
    assert "core_thread" in {row["name"] for row in null.json("whatis -m task_struct --json")}
    assert null("whatis list_head") == null("struct list_head")
    assert null("whatis -o list_head") == null("struct -o list_head")
    assert null("whatis pid_t").strip().startswith("typedef")
    assert "no type or symbol" in null.fails("whatis nothing_of_that_name")


def test_sys_c_selects_by_name_and_number(old: Console) -> None:
    assert {row["value"] for row in old.json("sys -c readlink --json")} == {"__x64_sys_readlink",
                                                                            "__x64_sys_readlinkat"}
    assert old.json("sys -c 1 --json") == [{"name": "1", "value": "__x64_sys_write"}]
    assert "cannot be made to panic" in old.fails("sys -panic")


def test_log_tells_what_waits(null: Console) -> None:
    for line, reasons in (("log -a", ("no audit",)), ("log -s", ("no buffers", "no message waits"))):
        good, text, errors = null.attempt(line)
        assert (good and text) or any(reason in errors for reason in reasons)


def test_what_a_dump_cannot_do_is_answered_with_the_way_to_go(old: Console) -> None:
    for name in ("wr", "gdb", "map"):
        assert "Instead:" in old(f"{name} anything at all")


def test_repeat_repeats_and_ends(old: Console) -> None:
    assert old("repeat -n 3 sys -t") == old("sys -t") * 3
    assert "would not end" in old.fails("repeat sys -t")
    assert "failed" in old.attempt("repeat -n 2 bt 99999")[2]


def test_variables_of_crash_are_taken(old: Console) -> None:
    assert old("set print_max 3") == "print_max: 3\n"
    names = {row["name"] for row in old.json("set -v --json")}
    assert {"radix", "scroll", "print_max", "zero_excluded", "redzone"} <= names
    assert "is on or off" in old.fails("set hash maybe")


EXTENSION = '''
from dataclasses import dataclass
from kdumpy.crash.command import Command

@dataclass(frozen=True)
class Row:
    """A number."""
    number: int

class Answer(Command[Row]):
    """Say how many tasks there are.

    Example:
        crash> answer
    """
    names = ("answer",)
    example = "answer"
    row = Row

    def rows(self, session, options):
        yield Row(sum(1 for _ in session.kernel.tasks()))

COMMAND = Answer()
'''


def test_extend_loads_a_command_and_forgets_it(old: Console, tmp_path: Path) -> None:
    file = tmp_path / "answer.py"
    file.write_text(EXTENSION)
    try:
        assert "loaded: answer" in old(f"extend {file}")
        assert old.json("answer --json")[0]["number"] == sum(1 for _ in old.kernel.tasks())
        assert str(file) in old("extend")
        assert "forgotten: answer" in old(f"extend -u {file}")
        old.fails("answer")
    finally:
        registry.EXTENSIONS.clear()
    (tmp_path / "bad.py").write_text("1 / 0")
    assert "ZeroDivisionError" in old.fails(f"extend {tmp_path / 'bad.py'}")
    (tmp_path / "none.py").write_text("")
    assert "has no command" in old.fails(f"extend {tmp_path / 'none.py'}")
    (tmp_path / "lib.so").write_bytes(b"")
    assert "Python files" in old.fails(f"extend {tmp_path / 'lib.so'}")


def test_python_that_fails_when_more_is_asked_for_says_how(old: Console) -> None:
    good, shown, errors = old.attempt("py (1 // x for x in (1, 0))")
    assert (good, shown) == (False, "1\n")
    assert errors == "kdumpy: py: ZeroDivisionError: integer division or modulo by zero: in <genexpr>\n"
    assert old("py (exit() for x in (1, 0))") == ""         # leaves the code, and not the shell
    assert old("py 6 * 7") == "42\n"


def test_a_crashrc_that_others_can_write_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    (home / ".config" / "kdumpy").mkdir(parents=True)
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(work)
    assert list(startup_files()) == []
    own, theirs = home / ".crashrc", work / ".crashrc"
    for path in (home / ".config" / "kdumpy" / "crashrc", own, theirs):
        path.write_text("alias kt ps -k\n")
        path.chmod(0o644)
    assert [refusal for _, refusal in startup_files()] == ["", "", ""]
    theirs.chmod(0o666)
    assert [refusal for _, refusal in startup_files()] == ["", "", "others can write to it"]
    theirs.unlink()
    theirs.symlink_to("/proc/self/status")          # root's own, says what a stranger's program was given
    assert [refusal for _, refusal in startup_files()] == ["", "", ""]
    if os.getuid() == 0:                            # only root can make a link another one's
        os.lchown(theirs, 65534, 65534)
        assert [refusal for _, refusal in startup_files()] == ["", "", "it belongs to another user"]


def test_ps_shows_families_times_and_limits_as_values(null: Console) -> None:
    tasks = {row["pid"]: row for row in null.json("ps -I --json")}
    assert 0 not in tasks
    for row in null.json("ps -p --json"):
        if row["pid"]:
            assert row["related"][0]["pid"] == 0
            assert row["related"][-1]["pid"] == tasks[row["pid"]]["ppid"]
    children = {row["pid"]: {one["pid"] for one in row["related"]} for row in null.json("ps -c --json")}
    assert children[2] == {pid for pid, row in tasks.items() if row["ppid"] == 2}
    for row in null.json("ps -g --json"):
        if row["pid"]:
            assert {one["pid"] for one in row["related"]} == {
                task.pid.value_() for task in for_each_task(null.prog)
                if task.tgid.value_() == row["pid"] != task.pid.value_()}
    last = null.json("ps -l --json")
    assert [row["last_run_ns"] for row in last] == sorted((row["last_run_ns"] for row in last), reverse=True)
    assert {row["cpu"] for row in null.json("ps -m -C 1 --json")} == {1}
    (limits,) = null.json("ps -r 1 --json")
    files = find_task(null.prog, 1).signal.rlim[7]      # RLIMIT_NOFILE
    assert limits["limits"][7] == {"name": "NOFILE", "current": files.rlim_cur.value_(),
                                   "maximum": files.rlim_max.value_()}
    (times,) = null.json("ps -t 1 --json")
    assert 0 < times["start_ns"] < times["start_ns"] + times["run_ns"]
    assert sum(row["tasks"] for row in null.json("ps -S --json")) == len(null.json("ps --json"))
    real_time = null.json("ps -Y -y FIFO --json")
    assert real_time
    assert all(row["policy"] == "FIFO" and row["priority"] < 100 for row in real_time)
    stacks = [row for row in null.json("ps -s -I --json") if row["stack"]]
    for row in stacks:
        base = find_task(null.prog, row["pid"]).stack.value_()
        # A task that has died has no stack any more.
        assert base < row["stack"] < base + null.prog["THREAD_SIZE"].value_() or row["active"] or not base
    assert len(stacks) >= len(tasks) - 2
    assert "-C goes with" in null.fails("ps -C 0")
    assert "cannot be shown together" in null.fails("ps -p -c")
    assert "no scheduling policy" in null.fails("ps -y QUICK")
    (none,) = null.json("ps -a 2 --json")
    assert none["problem"] == "no user stack"


def test_tree_shows_the_entries_and_nodes_of_a_maple_tree() -> None:
    console = Console(kernel_of("6.12", "null-workqueue"))
    task = find_task(console.prog, 1)
    tree = task.mm.mm_mt.address_of_().value_()
    areas = [vma.value_() for vma in for_each_vma(task.mm)]
    rows = console.json(f"tree -t maple -v {tree:x} --json")
    assert [row["address"] for row in rows if row["node"] is None] == areas
    nodes = [row["node"] for row in rows if row["node"]]
    assert nodes[0]["path"] == []
    assert (nodes[0]["first"], nodes[0]["last"]) == (0, (1 << 64) - 1)
    assert f"node {nodes[0]['address']:#x} depth 0 type {nodes[0]['kind']} parent " in console(f"tree -t m -v {tree:x}")
    text = console(f"tree -t maple -p -s vm_area_struct.vm_start {tree:x}")
    assert re.search(r"^  index: 2  position: root/\d+.*\n  vm_start = \d+$", text, re.M)
    assert "is for maple trees" in console.fails(f"tree -v {tree:x}")


def test_options_without_a_meaning_say_why(old: Console) -> None:
    for option in ("-d flaky", "-D", "-r", "-R", "-o", "-g"):
        assert "has no meaning here: " in old.fails(f"mod {option}")
    assert "rustfilt" in old.fails("log -R")
    assert "Instead: " in old("s390dbf")
    assert "panic again" in old.fails("sys -panic")
    assert "cannot be made the active one" in old.fails("set -a 1")


def test_files_n_counts_the_pages_of_a_file_by_node(null: Console) -> None:
    (row,) = null.json("files 1 --json")
    inode = row["files"][0]["inode"]
    found = next(value["inode"] for mount in null.json("mount -f --json") for value in mount["files"]
                 if drgn.Object(null.prog, "struct inode *", value=value["inode"]).i_mapping.nrpages)
    (node,) = null.json(f"files -n {found:x} --json")
    pages = drgn.Object(null.prog, "struct inode *", value=found).i_mapping.nrpages.value_()
    assert (node["node"], node["pages"]) == (0, pages)
    assert f"{found:016x} {pages:>8}" in null(f"files -n {found:x}")
    assert "no inode" in null.fails(f"files -n {inode + 64:x}")


def test_waitq_names_who_waits(null: Console) -> None:
    task = find_task(null.prog, 1)
    queue = task.signal.wait_chldexit.address_of_().value_()
    (row,) = null.json(f"waitq {queue:x} --json")
    assert (row["pid"], row["task"]) == (1, task.value_())      # init waits for its children
    assert row["function"] == "child_wait_callback"
    assert null.json(f"waitq signal_struct.wait_chldexit {task.signal.value_():x} --json") == [row]
    assert null(f"waitq {queue:x}").startswith("PID: 1 ")
    assert "is empty" in null("waitq log_wait")
    assert "STRUCT.MEMBER" in null.fails("waitq a b c")


def test_dev_lists_devices_regions_and_disks(null: Console) -> None:
    rows = null.json("dev --json")
    assert {(row["kind"], row["name"]) for row in rows} >= {("character", "mem"), ("character", "ttyS")}
    assert any(row["operations"] == "virtblk_fops" for row in rows)
    regions = null.json("dev -i --json")
    assert any(row["kind"] == "memory" and row["name"] == "Kernel code" for row in regions)
    assert {(row["vendor_id"], row["type"]) for row in null.json("dev -p --json")} >= {(0x1af4, "ENDPOINT")}
    disks = {row["name"]: row for row in null.json("dev -d --json")}
    assert "vda" in disks
    assert null.json("dev -D --json") == [row for row in disks.values() if row["total"]]
    assert "FILE goes with -v" in null.fails("dev x")
