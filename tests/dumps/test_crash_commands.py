"""The shell's commands on real dumps: values, compared with drgn and with what is known of the fault."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import drgn
import pytest
from drgn.helpers.linux.pid import find_task, for_each_task

import lab
from console import Console, kernel_of
from kdumpy.crash import registry

NAMES = sorted(registry.COMMANDS)
DRIVER = ("flaky_poll_channel", "flaky_poll_work")
"""The functions of the laboratory's driver in which null-workqueue ends."""


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_every_command_runs_and_its_json_has_the_keys_of_its_row(old: Console, name: str) -> None:
    command = registry.command(name)
    assert old(command.example).strip()
    if name in ("foreach", "repeat", "py"):         # their answer is that of what they run
        return
    rows = old.json("alias --json" if name == "alias" else f"{command.example} --json")
    assert bool(rows) == (name not in ("bpf", "ipcs", "waitq"))     # none in this dump
    for row in rows:
        assert list(row) == [field.name for field in dataclasses.fields(command.row)]


def test_the_example_sessions_of_the_help_run(old: Console) -> None:
    for name in NAMES:
        for line in re.findall(r"crash> (.*)", registry.command(name).__doc__ or ""):
            line = re.sub(r"\bff[0-9a-f]{14}\b", f"{find_task(old.prog, 1).value_():x}", line)
            if "foreach UN" in line:        # nobody hangs in this dump
                continue
            assert old(line).strip(), line


def test_bt_names_the_driver_and_the_instruction(null: Console) -> None:
    text = null("bt")
    assert re.search(r"^PID: \d+ +TASK: [0-9a-f]{16}  CPU: [01] +COMMAND: \"kworker/", text)
    assert re.search(r"^    \[exception RIP: flaky_poll_channel[.\w]*\+\d+\]$", text, re.M)
    frames = re.findall(r"^ *#\d+ \[[0-9a-f]{16}\] ([\w]+)[.\w]* at ([0-9a-f]{16})(?: \[(\w+)\])?$", text, re.M)
    assert [name for name, _, _ in frames][:3] == [*DRIVER, "process_one_work"]
    assert [module for _, _, module in frames][:3] == ["flaky", "flaky", ""]
    assert frames[-1][0] in ("ret_from_fork", "ret_from_fork_asm")
    fault = null.kernel.panic.fault if null.kernel.panic else None
    assert fault is not None
    assert int(frames[0][1], 16) == fault.pc


def test_bt_of_every_task_has_the_frames_of_drgn(null: Console) -> None:
    checked = 0
    for task in for_each_task(null.prog):
        (row,) = null.json(f"bt {task.value_():x} --json")
        try:
            expected = [frame.pc for frame in null.prog.stack_trace(task)]
        except ValueError:
            continue
        found = [frame["pc"] for frame in row["frames"]]
        assert found[: len(expected)] == expected[: len(found)]
        assert row["pid"] == task.pid.value_()
        checked += len(found) > 2
    assert checked > 40


def test_bt_a_has_a_stack_for_every_cpu(null: Console) -> None:
    rows = null.json("bt -a --json")
    assert [row["cpu"] for row in rows] == [0, 1]
    assert all(row["frames"] for row in rows)
    assert null.json("bt -c 1 --json") == rows[1:]
    assert null.json("bt -c a --json") == rows
    assert len(null.json("bt -a -n idle --json")) == sum(row["pid"] != 0 for row in rows)


def test_bt_marks_where_the_stack_of_an_interrupt_begins() -> None:
    lines = Console(kernel_of("6.1", "null-timer"))("bt").splitlines()
    mark = lines.index("--- <IRQ stack> ---")
    assert re.match(r"#?\s*#?\d+ \[\w+\] sysvec_apic_timer_interrupt at ", lines[mark - 1].strip())
    assert " asm_sysvec_apic_timer_interrupt at " in lines[mark + 1]       # on the task's own stack
    assert "[exception RIP: " in lines[mark + 2]


def test_bt_shows_raw_words_text_and_registers(null: Console) -> None:
    stack_words = null("bt -r").splitlines()[1:]
    assert len(stack_words) == null.prog["THREAD_SIZE"].value_() // 16
    assert any(DRIVER[1] in line for line in null("bt -T").splitlines())
    assert null("bt -R flaky_poll_work").startswith("PID:")
    assert null("bt -R schedule") == ""
    assert re.search(r"flaky_poll_work\+0x[0-9a-f]+ at", null("bt -s -x"))


def test_bt_f_shows_the_words_between_the_frames(null: Console) -> None:
    (row,) = null.json("bt -FF --json")
    assert len(row["data"]) == len(row["frames"])
    seen = [word for frame in row["data"] for word in frame]
    assert len(seen) > 20
    assert all(null.prog.read_u64(word["address"]) == word["value"] for word in seen)
    slots = [frame["slot"] for frame in row["frames"][1:] if frame["stack"] == "TASK"]
    assert set(slots) <= {word["address"] for word in seen}        # each frame's return address is among them
    assert any(word["cache"] == "task_struct" and word["object"].startswith("task ") for word in seen)
    assert "[" in null("bt -F")
    assert null("bt -f").count("flaky_poll_work") == 1


def test_bt_e_finds_the_registers_of_the_fault(null: Console) -> None:
    (row,) = null.json("bt -e --json")
    panic = null.kernel.panic
    assert panic is not None
    assert any(frame["registers"]["rip"] == panic.registers["rip"] and frame["registers"]["rsp"] ==
               panic.registers["rsp"] and not frame["user"] for frame in row["found"])
    stacks = null.json("bt -E -c 0 --json")
    assert {"IRQ", "NMI", "DF"} <= {stack["stack"] for stack in stacks}
    assert {stack["cpu"] for stack in stacks} == {0}
    assert "CPU 0 NMI EXCEPTION STACK:" in null("bt -E -c 0")


def test_bt_begins_where_it_is_told(null: Console) -> None:
    (row,) = null.json("bt --json")
    second = row["frames"][2]
    (begun,) = null.json(f"bt -I {second['pc']:x} --json")
    assert [frame["pc"] for frame in begun["frames"]] == [frame["pc"] for frame in row["frames"][2:]]
    (begun,) = null.json(f"bt -S {second['slot']:x} --json")
    assert [frame["pc"] for frame in begun["frames"]] == [frame["pc"] for frame in row["frames"][2:]]
    assert "does not lie on the stack" in null.fails("bt -S 1000")


def test_bt_o_shows_every_return_address_and_can_be_made_the_way(null: Console) -> None:
    exact = {frame["pc"] for frame in null.json("bt --json")[0]["frames"][1:]}
    old_way = null("bt -o")
    assert exact <= {int(match, 16) for match in re.findall(r" at ([0-9a-f]{16})", old_way)}
    assert null("bt -O") == "bt: use old bt method by default\n"
    assert null("bt") == old_way
    assert null.json("bt --json")[0]["text"]
    assert null("bt -O") == "bt: use new bt method by default\n"
    assert not null.json("bt --json")[0]["text"]


def test_ps_is_what_drgn_counts(null: Console) -> None:
    rows = null.json("ps --json")
    tasks = {task.value_(): task for task in for_each_task(null.prog)}
    assert {row["task"] for row in rows if row["pid"]} == set(tasks)
    assert sum(row["pid"] == 0 for row in rows) == 2
    for row in rows:
        if row["pid"]:
            assert row["command"] == tasks[row["task"]].comm.string_().decode()
    assert [row["active"] for row in rows].count(True) == 2
    (init,) = null.json("ps 1 --json")
    assert (init["pid"], init["ppid"], init["kernel_thread"]) == (1, 0, False)
    assert init["rss_kb"] > 0
    assert init["vsz_kb"] >= init["rss_kb"]
    threads, users = null.json("ps -k --json"), null.json("ps -u --json")
    assert len(threads) + len(users) == len(rows)
    assert null.json("ps khungtaskd --json")[0]["command"] == "khungtaskd"
    assert {row["command"] for row in null.json("ps '^kworker/' --json")} == \
        {row["command"] for row in rows if row["command"].startswith("kworker/")}
    assert null.json("ps --state ID --json") == [row for row in rows if row["state"] == "ID"]
    assert re.search(r"^> +\d+ +\d+ +[01]  [0-9a-f]{16}  RU .*\[kworker/", null("ps"), re.M)


def test_log_is_the_whole_log_and_tells_the_fault(null: Console) -> None:
    text = null("log")
    assert text.startswith("[    0.000000] Linux version ")
    assert "BUG: kernel NULL pointer dereference" in text
    assert null.json("log --json")[0]["seconds"] == 0
    assert "Linux version" in null("log -t").splitlines()[0]
    assert not null("log -t").startswith("[")
    assert re.match(r"\[\w{3} \w{3} +\d+ \d\d:\d\d:\d\d UTC 20\d\d\] Linux", null("log -T"))
    assert re.match(r"\[ +0.000000\] <[0-7]>Linux", null("log -m"))


def test_sys_says_what_crashed_and_why(null: Console) -> None:
    facts = {row["name"]: row["value"] for row in null.json("sys --json")}
    assert facts["CPUS"] == "2"
    assert facts["RELEASE"] == null.kernel.system.release
    assert facts["PANIC"].startswith('"BUG: kernel NULL pointer dereference, address: ')
    assert re.fullmatch(r"x86_64  \(\d{4} Mhz\)", facts["MACHINE"])
    assert facts["MEMORY"] == "639.5 MB"        # of 640 MiB, which the firmware takes a part of
    assert f"MEMORY SIZE: {facts['MEMORY']}" in null("mach")
    assert int(facts["TASKS"]) == len(null.json("ps --json"))
    assert "OE" in null("sys -t")
    if "sys -c" and null.kernel.system.release.startswith(("5.10", "6.1.")):
        assert "__x64_sys_read" in null("sys -c")


def test_mod_lists_the_driver_with_its_taints(null: Console) -> None:
    rows = {row["name"]: row for row in null.json("mod --json")}
    assert rows["flaky"]["taints"] == "OE"
    assert rows["virtio_blk"]["taints"] == ""
    assert "net_failover" in rows["failover"]["used_by"]
    assert rows["flaky"]["base"] <= null.prog.symbol("flaky_poll_work").address \
        < rows["flaky"]["base"] + rows["flaky"]["size"]
    assert null("mod -t").splitlines() == ["NAME   TAINTS", "flaky  OE"]
    assert "no module" in null.fails("mod nothing")


def test_sym_goes_both_ways(null: Console) -> None:
    address = null.prog.symbol("schedule").address
    assert null("sym schedule") == f"{address:016x} (T) schedule\n"
    assert null(f"sym {address + 5:x}") == f"{address + 5:016x} (T) schedule+5\n"
    assert null("sym flaky_poll_work").endswith("flaky_poll_work [flaky]\n")
    near = null.json("sym -p -n schedule --json")
    assert [row["name"] for row in near].index("schedule") == 1
    assert near[0]["address"] < near[1]["address"] < near[2]["address"]
    assert {row["module"] for row in null.json("sym -m flaky --json")} == {"flaky"}
    names = [row["name"].split(".")[0] for row in null.json("sym -q flaky_poll --json")]
    assert set(DRIVER) <= set(names)
    assert "neither a symbol" in null.fails("sym no_such_symbol")
    assert "no symbol holds" in null.fails("sym 12345")


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_dis_of_a_variable_takes_no_more_than_one_instruction(kernel: str) -> None:
    console = Console(kernel_of(kernel, "null-workqueue"))
    assert len(console.json("dis init_task --json")) == 1
    assert len(console.json("dis schedule --json")) > 20
    assert len(console.json("dis flaky_poll_work --json")) > 20


def test_dis_marks_where_the_kernel_died(null: Console) -> None:
    rows = null.json("dis flaky_poll_work --json")
    assert rows[0]["address"] == null.prog.symbol("flaky_poll_work").address
    for first, second in itertools.pairwise(rows):
        assert second["address"] == first["address"] + len(first["bytes"]) // 2
    data = b"".join(bytes.fromhex(row["bytes"]) for row in rows)
    assert data == null.prog.read(rows[0]["address"], len(data))
    targets = {row["target"].split(".")[0] for row in rows if "call" in row["text"]}
    assert "flaky_poll_channel" in targets
    panic = null.kernel.panic
    assert panic is not None
    assert panic.fault is not None
    reverse = null.json(f"dis -r {panic.fault.pc:x} --json")
    assert reverse[-1]["address"] == panic.fault.pc
    assert [row["fault"] for row in reverse].index(True) == len(reverse) - 1
    assert "<== the kernel died here" in null(f"dis {panic.fault.pc:x}")
    assert len(null.json("dis schedule 5 --json")) == 5
    forward = null.json(f"dis -f {rows[3]['address']:x} --json")
    assert forward == rows[3:]
    assert null("dis -b schedule 1").split("\t")[1].strip() == null.json("dis schedule 1 --json")[0]["bytes"]


def test_struct_shows_layouts_and_values(null: Console) -> None:
    assert null("struct list_head") == (
        "struct list_head {\n    struct list_head *next;\n    struct list_head *prev;\n}\nSIZE: 16\n")
    assert null("list_head -o").splitlines()[1] == "     [0] struct list_head *next;"
    made = null.prog.type("struct task_struct")
    offsets = dict(re.findall(r"\[(\d+)\] .*?(\w+)(?:\[\d*\])?;", null("struct -o task_struct"))[::-1])
    assert offsets[str(drgn.offsetof(made, "pid"))] == "pid"
    assert offsets[str(drgn.offsetof(made, "comm"))] == "comm"
    task = find_task(null.prog, 1)
    assert null(f"task_struct.pid,comm {task.value_():x}") == '  pid = 1,\n  comm = "init"\n'
    assert null(f"struct task_struct.pid -l task_struct.tasks {task.tasks.address_of_().value_():x}") == "  pid = 1\n"
    head = null.prog["modules"]
    assert null("struct list_head modules").startswith(
        f"struct list_head {{\n  next = {head.next.value_():#x} <")
    assert f"[{head.address_ + 8:x}] struct list_head *prev;" in null("struct list_head -o modules")
    assert [row["cpu"] for row in null.json("struct rq.nr_running runqueues:a --json")] == [0, 1]
    raw = null.json(f"struct -r list_head {head.address_:x} --json")[0]["text"]
    assert f"{head.next.value_():016x} {head.prev.value_():016x}" in raw
    assert null("struct -x list_head").endswith("SIZE: 0x10\n")
    assert null("*list_head") == null("struct list_head")
    for line in ("struct nothing", "struct list_head.nothing", "struct list_head 0", "union list_head",
                 "struct list_head modules x", "struct list_head modules 0"):
        null.fails(line)


def test_a_whole_task_struct_is_laid_out(null: Console) -> None:
    text = null("task 1")
    assert '\n  comm = "init",\n' in text
    assert "\n  mm = 0x" in text
    assert text.count("{") == text.count("}")
    assert null("task -R pid 1").splitlines()[1] == "  pid = 1"
    assert "no member" in null.fails("task -R nothing")


def test_p_evaluates(null: Console) -> None:
    assert re.fullmatch(r'\$\d+ = "swapper/0"\n', null("p init_task.comm"))
    count = null.prog["nr_cpu_ids"].value_()
    assert re.fullmatch(rf"nr_cpu_ids = \$\d+ = {count}\n", null("p nr_cpu_ids"))
    assert null("p nr_cpu_ids + 1").endswith(f" = {count + 1}\n")
    assert null("p -x nr_cpu_ids").endswith(f" = {count:#x}\n")
    assert null.json("p init_task.tasks.next --json")[0]["text"].startswith(
        f"{null.prog['init_task'].tasks.next.value_():#x}")
    assert [row["cpu"] for row in null.json("p runqueues:a --json")] == [0, 1]
    assert "no per-CPU variable" in null.fails("p init_task:0")
    assert "no variable" in null.fails("p nothing_of_this_name")


def test_rd_reads(null: Console) -> None:
    address = null.prog.symbol("linux_banner").address
    banner = null.prog.read_c_string(address)
    assert null("rd -a linux_banner").splitlines()[0] == f"{address:016x}:  {banner[:60].decode()}"
    (row,) = null.json(f"rd {address:x} 2 --json")
    assert b"".join(value.to_bytes(8, "little") for value in row["values"]) == banner[:16]
    assert null("rd linux_banner 2").endswith("   Linux version " + banner[14:16].decode() + "\n")
    assert [row["values"][0] for row in null.json("rd -8 linux_banner --json")] == [banner[0]]
    assert "modules" in null("rd -s modules 2") or "__this_module" in null("rd -s modules 2")
    task = find_task(null.prog, 1).value_()
    physical = int(null("drgn hex(virt_to_phys(find_task(1)))").strip().strip("'"), 16)
    assert null.json(f"rd -p {physical:x} 4 --json")[0]["values"] == null.json(f"rd {task:x} 4 --json")[0]["values"]
    assert "no memory at" in null.fails("rd 0")
    assert "at most" in null.fails("rd linux_banner 99999999999")


def test_rd_writes_a_file_as_asked(old: Console, tmp_path: Path) -> None:
    old(f"rd -r {tmp_path / 'out'} linux_banner 13")
    assert (tmp_path / "out").read_bytes() == b"Linux version"


def test_files_and_vm_of_init(null: Console) -> None:
    (row,) = null.json("files 1 --json")
    assert (row["root"], row["cwd"]) == ("/", "/")
    assert {file["path"] for file in row["files"]} >= {"/dev/console"}
    assert {file["fd"]: file["type"] for file in row["files"]}[0] == "CHR"
    assert "No open files" in null("files 2")
    assert null("files -R /dev/console 1").count("/dev/console") == 3
    (vm,) = null.json("vm 1 --json")
    init = find_task(null.prog, 1)
    assert vm["mm"] == init.mm.value_()
    assert vm["total_kb"] == init.mm.total_vm.value_() * 4
    assert len(vm["areas"]) == init.mm.map_count.value_()
    names = [area["file"] for area in vm["areas"]]
    assert "[stack]" in names
    assert any("busybox" in name for name in names)
    assert sum(area["end"] - area["start"] for area in vm["areas"]) // 1024 == vm["total_kb"]
    assert null.json("vm 2 --json")[0]["mm"] == 0


def test_kmem_i_adds_up(null: Console) -> None:
    rows = {row["name"]: row for row in null.json("kmem -i --json")}
    assert not [row for row in rows.values() if row["problem"]]
    assert rows["FREE"]["pages"] + rows["USED"]["pages"] == rows["TOTAL MEM"]["pages"]
    assert rows["TOTAL MEM"]["bytes"] == null.kernel.system.memory_bytes
    assert "of TOTAL MEM" in null("kmem -i")


def test_set_changes_the_context_for_every_command(null: Console) -> None:
    assert "(PANIC)" in null("set")
    assert "PID: 1\n" in null("set 1")
    assert null("bt").startswith("PID: 1 ")
    assert null("sig").startswith("PID: 1 ")              # drgn's command follows
    assert "CPU: 1" in null("set -c 1")
    null("set radix 16")
    assert null("p nr_cpu_ids").strip().endswith("0x2")
    assert "swappiness" not in null("set -v")
    null("set radix 10")
    assert "(PANIC)" in null("set -p")
    for line in ("set 99999", "set nothing", "set radix 7", "set -c 77"):
        null.fails(line)


def test_foreach_runs_for_the_tasks_that_are_meant(null: Console) -> None:
    assert null("foreach bt").count("PID: ") == len(null.json("ps --json"))
    assert null("foreach user vm").count("PID: ") == len(null.json("ps -u --json"))
    assert null("foreach active bt").count("PID: ") == len(null.json("ps -A --json"))
    assert null("foreach 1 files").count("PID: ") == 1
    assert null("foreach kthreadd task -R pid").splitlines()[1] == "  pid = 2"
    assert "wants a command" in null.fails("foreach 1")
    assert "no task" in null.fails("foreach 99999 bt")


def test_drgns_own_commands_serve_where_we_have_none(null: Console) -> None:
    assert "task_struct" in null("kmem -s")
    assert "/dev/console" in null("dev") or "ttyS" in null("dev")
    assert null.json("bt -V --json")[0]["line"].startswith("PID:")
    assert null("bt -f").startswith("PID:")
    assert "unrecognized arguments" in null.fails("kmem ff -Z")


def test_bt_shows_the_number_of_the_system_call_and_where_an_nmi_came_from(null: Console) -> None:
    waiting = null("bt 1")
    assert f"ORIG_RAX: {61:016x}  CS: 0033" in waiting      # wait4: init waits for its children
    lines = Console(kernel_of("6.1", "nmi"))("bt").splitlines()
    mark = lines.index("--- <NMI exception stack> ---")
    assert lines[mark - 1].startswith("    ORIG_RAX: ffffffffffffffff  CS: 0010")      # the NMI's own registers
    assert " end_repeat_nmi at " in next(line for line in reversed(lines[:mark]) if line.startswith(" #"))


def test_words_stand_in_any_order_as_in_crash(null: Console) -> None:
    assert null("list -H modules module.list |: head 2") == null("list module.list -H modules |: head 2")
    assert null("dis (schedule+5) 2") == null("dis schedule+5 2")
    assert null("p/x init_task.flags").split("= ")[-1].startswith("0x")
    assert "come out of the dump all the same" in null.fails("mod -s flaky")


@pytest.mark.parametrize("line", [
    "foreach bt", "foreach vm", "foreach files -R 1", "foreach net", "foreach sig", "kmem -p", "search 57ac6e9d",
    "search -w 57ac6e9d"])
def test_what_is_shared_out_is_what_one_process_says(null: Console, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("commands.foreach._LOT", 8), ("memory.finding._LOT", 512), ("memory.pages._PAGES", 8192)):
        monkeypatch.setattr(f"kdumpy.crash.{name}", size)
    assert null("set workers 1") == "workers: 1\n"
    alone = null(line)
    assert null("set workers 3") == "workers: 3\n"
    assert null(line) == alone
    assert "from 1 to" in null.fails("set workers 0")


def test_filters_behind_kmem_p_get_a_row_a_page(old: Console) -> None:
    text = old("kmem -p")
    assert old("kmem -p |: where physical=0x1000") == "".join(text.splitlines(keepends=True)[index] for index in (0, 2))
    assert old("kmem -p |: count").split()[-1] == str(text.count("\n") - 1)
