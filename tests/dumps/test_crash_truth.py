"""Our commands against crash 8.0.2 with the kernel's DWARF, on the same dump: values, not spacing.

Where the two differ, docs/crash-commands.md says why, and the test here names the difference.
"""

from __future__ import annotations

import re

import drgn
import pytest

from console import Console, kernel_of
from crashtruth import Truth, truth, words

SAME = ("bt -e", "mach -m", "pte d8e067", "whatis -o list_head", "irq -b", "swap", "mod -t", "runq", "runq -t",
        "runq -T", "list module.list -s module.state -H modules",
        "tree -t rbtree -o vmap_area.rb_node -p vmap_area_root", "runq -m", "mount", "irq -u", "irq -s",
        "irq -s -c 0", "dev -i", "dev -p", "sig -l", "sig", "sig -s fffc000a000a0000", "timer", "ipcs",
        "task -R pid,prio", "ptov 1000", "kmem -h", "kmem -p", "kmem -s", "kmem -o", "search -V 57ac6e9d",
        "kmem -v", "kmem -z", "kmem -n", "kmem -g", "kmem -g 100004", "eval -bl 0x8000", "eval 0xffffffff8005ca9e",
        "eval 10k", "eval (0x10 * 3)", "eval ~3", "eval -1", "rd -R init_task 6", "rd -8 -R init_task 17", "runq -g",
        "whatis list_head.next", "whatis pid_t", "whatis spinlock_t", "whatis pid_type", "whatis u64",
        "struct -o task_struct.comm", "irq -d", "rd -p 1000 4", "rd -d init_task 4", "list -H (modules)",
        "kmem -s list", "kmem -s -I dentry,inode_cache", "kmem -m lru,flags", "kmem -m flags,_refcount")
ONE_LINE = ("ptob 1000", "btop 1000fff", "ascii 62696c2f7273752f", "ascii 80ff7f000a1b")
"""Answers that are the same line by line."""
VALUES = ("p runqueues", "p current_task:a", "p -x runqueues:1", "p linux_banner", "p -x (int)-1", "p -x (char)-1",
          "p (struct list_head *)&modules", "p *(struct list_head *)&modules@2", "p *(unsigned char *)linux_banner@16",
          "p init_task.tasks.next->next", "p &init_task", "p init_mm.cpu_bitmap", "p saved_command_line",
          "p mem_section", "p/x init_task.flags", "p/c 65", "p/t 10", "p/o 8", "p/u -1", "p/z 5", "p/x init_task.comm",
          "p/a init_task.tasks.next", "p -x init_task.thread_info", "p vermagic", "p jiffies", "p kmem_cache",
          "whatis kmem_cache")
CODE = ("dis schedule", "dis bpf_check", "dis tcp_sendmsg_locked", "dis vsnprintf", "dis copy_page_to_iter")
OF_CPUS = ("kmem -S=0 task_struct", "kmem -S=a task_struct", "kmem -sS task_struct")
OTHERS = (*CODE, "sys -c", "mod", "net", "whatis -m task_struct", "log", "files",
          "ps", "ps -t", "ps -l", "ps -m", "bt", "bt -a", "bt -F", "kmem -i",
          "kmem -f", "kmem -V", "kmem -S task_struct", "search -k -c flaky_sample", "ascii", "ptov b0c0:a",
          "rd -S init_task 40", "rd -SS init_task 40")


@pytest.fixture(scope="module")
def crash() -> Truth:
    return truth("6.1", "null-workqueue", (*SAME, *ONE_LINE, *VALUES, *OF_CPUS, *OTHERS))


@pytest.fixture(scope="module")
def ours() -> Console:
    return Console(kernel_of("6.1", "null-workqueue"))


@pytest.mark.parametrize("line", SAME)
def test_the_answer_is_that_of_crash(crash: Truth, ours: Console, line: str) -> None:
    # crash leaves gdb's comma behind a member that is shown alone, the last one's too.
    expected, found = ([text.removesuffix(",") for text in words(lines)]
                       for lines in (crash(line), ours(line).splitlines()))
    assert len(expected) > 1
    assert len(found) == len(expected)
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == []


@pytest.mark.parametrize("line", ONE_LINE)
def test_the_line_is_that_of_crash(crash: Truth, ours: Console, line: str) -> None:
    assert words(ours(line).splitlines()) == words(crash(line))
    assert len(crash(line)) == 1


@pytest.mark.parametrize("line", VALUES)
def test_the_value_is_that_of_crash(crash: Truth, ours: Console, line: str) -> None:
    expected, found = (re.sub(r"\$\d+ =", "$ =", "\n".join(words(lines)))
                       for lines in (crash(line), ours(line).splitlines()))
    assert expected
    assert found == expected


def test_ascii_has_the_table_of_crash_without_its_mistakes(crash: Truth, ours: Console) -> None:
    # crash has ' and `, - and _ in each other's place.
    expected, found = ("\n".join(words(lines)) for lines in (crash("ascii"), ours("ascii").splitlines()))
    assert len(expected.splitlines()) == 18
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == [
        ("`", "'"), ("'", "`"), ("-", "_"), ("_", "-")]


def test_ptov_has_the_offsets_of_crash(crash: Truth, ours: Console) -> None:
    assert words(ours("ptov b0c0:a").splitlines()) == words(crash("ptov b0c0:a"))
    assert len(crash("ptov b0c0:a")) == 4


@pytest.mark.parametrize("line", ["rd -S init_task 40", "rd -SS init_task 40"])
def test_rd_names_what_crash_names(crash: Truth, ours: Console, line: str) -> None:
    # crash takes a section's name, .data, for a symbol.
    found = [text.replace("__start_init_task", ".data") for text in words(ours(line).splitlines())]
    assert found == words(crash(line))
    assert any("task_struct]" in text for text in found)


@pytest.fixture(scope="module")
def older() -> Console:
    return Console(kernel_of("5.10", "null-workqueue"))


def test_files_and_vtop_of_a_process_are_those_of_crash(older: Console) -> None:
    """On 5.10, where crash finds the processes."""
    files = older.json("files 1 --json")[0]["files"]
    (init,) = older.json("ps 1 --json")
    program = drgn.Object(older.prog, "struct task_struct *", value=init["task"]).mm.exe_file
    inode = program.f_inode.value_()
    lines = ["files 1", "files -c 1", f"files -d {files[0]['dentry']:x}", f"files -d {files[-1]['dentry']:x}",
             f"files -p {inode:x}", f"files -p {files[0]['inode']:x}", "vtop -c 1 400000", f"vtop {init['task']:x}",
             f"vtop {older.prog.symbol('init_task').address:x}", "kmem -v", "kmem -z", "kmem -n", "kmem -g",
             f"kmem {init['task'] + 24:x}", f"kmem {inode:x}", f"kmem {files[0]['file']:x}", "kmem 1000000",
             "foreach files -c", "bt -f 1", "bt -F 1", "bt -t 1", "bt -T 1", "bt -o 1", "bt -r 1", "foreach active ps",
             "foreach 0 ps", "foreach RU ps -l", "foreach 1 2 net -s", "bt 0x1", "foreach files -R nsole",
             "foreach 1 files -R /dev"]
    crash = truth("5.10", "null-workqueue", lines)
    for line in lines:
        expected, found = words(crash(line)), words(older(line).splitlines())
        assert len(expected) > 1, line
        assert found == expected, line


@pytest.mark.parametrize("line", ["ps", "ps -t", "ps -l", "ps -m"])
def test_ps_has_the_lines_of_crash(crash: Truth, ours: Console, line: str) -> None:
    # crash finds three tasks of this kernel, and no parent of theirs.
    found, lines = ({re.sub(r"^(..\s*\d+)\s+-?\d+ ", r"\1 ", text.rstrip()) for text in part}
                    for part in (ours(line).splitlines(), crash(line)))
    assert len(lines) >= 3
    assert lines - found == set()


def test_kmem_i_has_the_numbers_of_crash(crash: Truth, ours: Console) -> None:
    def numbers(lines: list[str]) -> dict[str, list[str]]:
        return {match[1]: match[2].split() for line in lines
                if (match := re.match(r" *([A-Z ]+?) +(\d+.*?)(?: of .*| +----)?$", line))}

    expected, found = numbers(crash("kmem -i")), numbers(ours("kmem -i").splitlines())
    # crash counts a slab of several pages as one page, and reads vm_committed_as wrongly.
    for name in expected.keys() - {"SLAB", "COMMITTED"}:
        assert found[name] == expected[name], name
    assert expected.keys() == found.keys()


def test_kmem_v_has_the_counters_of_crash_and_those_of_numa(crash: Truth, ours: Console) -> None:
    expected, found = words(crash("kmem -V")), words(ours("kmem -V").splitlines())
    assert len(expected) > 100
    assert found[:len(expected)] == expected
    assert found[len(expected)] == "VM_NUMA_EVENT:"


def test_kmem_f_has_the_lists_of_crash(crash: Truth, ours: Console) -> None:
    def lists(lines: list[str]) -> dict[str, tuple[int, int]]:
        return {match[2]: (int(match[3]), int(match[4])) for line in lines
                if (match := re.match(r" *(\d+) +\d+k +([0-9a-f]{16}) +(\d+) +(\d+)$", line))}

    expected, found = lists(crash("kmem -f")), lists(ours("kmem -f").splitlines())
    assert len(expected) > 50
    assert {head: found.get(head) for head in expected} == expected     # ours has the CPUs' lists too


def test_kmem_s_names_the_objects_of_crash(crash: Truth, ours: Console) -> None:
    lines = crash("kmem -S task_struct")
    listed = {match[1] for line in lines if (match := re.match(r" *\[([0-9a-f]{16})\]$", line))}
    (row,) = ours.json("kmem -S task_struct --json")
    used = {f"{entry['address']:016x}" for slab in row["details"] for entry in slab["objects"] if not entry["free"]}
    assert listed
    assert listed <= used       # crash lists no full slabs
    assert len(used) == row["allocated"]


@pytest.mark.parametrize("line", OF_CPUS)
def test_kmem_s_has_the_slabs_of_cpus_and_nodes_of_crash(crash: Truth, ours: Console, line: str) -> None:
    """Each with its counts; crash calls all free objects of a CPU's slab its cache, and lists no full slabs."""
    def told(lines: list[str]) -> set[str]:
        whole = "\n".join(text.split("  (cpu")[0] for text in words(lines) if text != "(not tracked)")
        return {part.strip() for part in re.split(r"\n(?=[A-Z]|SLAB)", whole.partition("NODE 0 FULL")[0])}

    expected, found = told(crash(line)), told(ours(line).splitlines())
    assert len(expected) > 4
    assert {re.sub(r" \(cpu . cache\)", "", part) for part in expected} == {
        re.sub(r" \(cpu . cache\)", "", part) for part in found}


def test_search_finds_the_text_that_crash_finds(crash: Truth, ours: Console) -> None:
    expected = {line.split(":")[0] for line in crash("search -k -c flaky_sample")}
    found = {line.split(":")[0] for line in ours("search -k -c flaky_sample").splitlines()}
    # crash reads what lies below the image's begin as if the image reached there: aliases that no page table has.
    start = ours.prog.symbol("_text").address
    aliases = {address for address in expected if 0xffffffff80000000 <= int(address, 16) < start}
    assert expected - aliases <= found


def frames(lines: list[str]) -> list[str]:
    """Return `[address] function at pc` of every frame."""
    return [" ".join(match[1].split()) for line in lines if (match := re.match(r" *#\d+ (\[.*)$", line))]


def test_bt_has_the_frames_and_registers_of_crash(crash: Truth, ours: Console) -> None:
    expected, found = frames(crash("bt")), frames(ours("bt").splitlines())
    # crash begins at machine_kexec, ours at the fault: what lies above the fault is the way to the dump.
    assert found[1:] == expected[-len(found) + 1:]
    lines = words(crash("bt"))
    begin = next(number for number, line in enumerate(lines) if line.startswith("[exception RIP"))
    registers = words(ours("bt").splitlines())[1:]
    assert registers[:8] == lines[begin:begin + 8]


def test_bt_a_lacks_only_the_stale_frames_of_crash(crash: Truth, ours: Console) -> None:
    expected, found = frames(crash("bt -a")), frames(ours("bt -a").splitlines())
    callers = [frame for frame in found if "flaky_poll_channel" not in frame]
    assert len(callers) > 10
    assert [frame for frame in callers if frame not in expected] == []


def test_bt_f_names_the_slabs_and_symbols_of_crash(crash: Truth, ours: Console) -> None:
    def data(lines: list[str]) -> dict[str, list[str]]:
        return {match[1]: match[2].split() for line in lines
                if (match := re.match(r" +([0-9a-f]{16}): (.*)$", line))}

    expected, found = data(crash("bt -F")), data(ours("bt -F").splitlines())
    assert len(found) > 10
    assert [address for address in found if address in expected and found[address] != expected[address]] == []
    assert len(found.keys() & expected.keys()) > 8


@pytest.mark.parametrize("line", CODE)
def test_dis_is_the_code_of_crash(crash: Truth, ours: Console, line: str) -> None:
    """Instruction by instruction, with the names of what jumps and operands lead to."""
    def plain(text: str) -> str:
        # A displacement of 0 that takes up a byte is not written by ours; nor that a nop is ftrace's.
        text = re.sub(r"\b0x0\(", "(", text).removesuffix(" [FTRACE NOP]")
        # crash cuts what the compiler adds to a name, and of several names of an address takes another.
        return re.sub(r" <[\w.]+(\+\d+)?>$", "", text) if line != "dis schedule" else text

    expected, found = words(crash(line)), words(ours(line).splitlines())
    assert len(expected) > 30
    assert [pair for pair in zip(map(plain, found), map(plain, expected), strict=True) if pair[0] != pair[1]] == []


def test_sys_c_has_the_system_calls_of_crash(crash: Truth, ours: Console) -> None:
    expected = [line.split()[:2] for line in crash("sys -c")[1:]]
    found = [line.split()[:2] for line in ours("sys -c").splitlines()[1:]]
    assert len(expected) > 400
    # A call without arguments has two names of one address: __do_sys_getpid (crash) and __x64_sys_getpid (ours).
    def plain(names: list[list[str]]) -> list[list[str]]:
        return [[number, re.sub(r"^__(?:x64|do)_|_sys_ni_syscall$", "", name)] for number, name in names]

    different = [pair for pair in zip(plain(found), plain(expected), strict=True) if pair[0] != pair[1]]
    assert len(different) <= 12, different


def test_mod_and_net_name_the_same_things(crash: Truth, ours: Console) -> None:
    for line in ("mod",):
        expected, found = ({text.split()[0] for text in lines if re.match(r" *[0-9a-f]{16} ", text)}
                           for lines in (crash(line), ours(line).splitlines()))
        assert len(expected) > 5
        assert found == expected, line
    devices = {(row["device"], row["name"]) for row in ours.json("net --json")}
    assert {(int(line.split()[0], 16), line.split()[1]) for line in crash("net")[1:]} == devices


def test_log_has_the_lines_of_crash(crash: Truth, ours: Console) -> None:
    expected, found = words(crash("log")), words(ours("log").splitlines())
    assert len(expected) > 100
    assert [one for one, other in zip(found, expected, strict=True) if one != other] == []


def test_whatis_finds_the_structures_of_crash(crash: Truth, ours: Console) -> None:
    expected = {line.split()[1] for line in crash("whatis -m task_struct")[1:]}
    found = {row["name"] for row in ours.json("whatis -m task_struct --json")}
    assert len(expected) > 100
    assert expected <= found        # ours has unions too, and types that modules bring


def test_files_of_the_panic_task_are_those_of_crash(crash: Truth, ours: Console) -> None:
    def files(lines: list[str]) -> set[tuple[str, ...]]:
        return {tuple(line.split()[:4]) for line in lines if re.match(r" *\d+ +[0-9a-f]{16} ", line)}

    assert files(ours("files").splitlines()) == files(crash("files"))
