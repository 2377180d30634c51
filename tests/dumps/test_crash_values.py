"""Values as crash and gdb show them: variables of every CPU, arrays of unknown length, gdb's words; on real dumps."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from drgn.helpers.linux.percpu import per_cpu_ptr

import kdumpy
import lab
from console import Console
from crashtruth import release_of, vmlinux
from kdumpy.crash.completion import ShellCompleter


@pytest.fixture(scope="module")
def debugged() -> Iterator[Console]:
    """With the kernel's DWARF beside it."""
    path = lab.dump("5.10", "null-workqueue").path
    debug = vmlinux(release_of(path))
    if debug is None:
        pytest.skip(f"no vmlinux with DWARF of {release_of(path)}: python -m kdumpy.vm debug 5.10")
    with kdumpy.open(path, vmlinux=[debug]) as kernel:
        yield Console(kernel)


@pytest.mark.parametrize("name", ["do_exit", "sched_clock", "schedule", "complete_and_exit", "panic"])
def test_with_dwarf_a_function_has_the_place_of_its_symbol(debugged: Console, name: str) -> None:
    """DWARF has two of sched_clock, and of do_exit also a declaration without a place."""
    place = debugged.prog.symbol(name).address
    assert debugged.json(f"p {name} --json")[0]["address"] == place
    assert debugged.json(f"p (unsigned long){name} --json")[0]["value"] == place
    assert debugged(f"x/2i {name}").startswith(f"{place:#x} <{name}>:")


def test_with_dwarf_a_symbol_is_told_once(debugged: Console) -> None:
    for name in ("schedule", "do_exit", "jiffies"):
        assert [row["name"] for row in debugged.json(f"sym {name} --json")] == [name]
    before, this, after = debugged.json("sym -p -n do_exit --json")
    assert before["address"] < this["address"] < after["address"]
    every = [(row["address"], row["name"]) for row in debugged.json("sym -q sched_clock --json")]
    assert len(every) == len(set(every)) > 1


def test_a_variable_of_every_cpu_is_told_by_where_it_lies(null: Console) -> None:
    places = [per_cpu_ptr(null.prog["runqueues"].address_of_(), cpu).value_() for cpu in (0, 1)]
    assert null("p runqueues").splitlines() == [
        "PER-CPU DATA TYPE:", "  struct rq runqueues;", "PER-CPU ADDRESSES:", *(
            f"  [{cpu}]: {place:x}" for cpu, place in enumerate(places))]
    assert [row["address"] for row in null.json("p runqueues --json")] == places
    assert "every CPU has this of its own" in null.fails("p runqueues.nr_running")


def test_a_pointer_of_every_cpu_has_its_type_in_front(old: Console) -> None:
    current = old.json("p current_task:a --json")
    assert old.prog.crashed_thread().object.value_() in [row["value"] for row in current]
    assert re.fullmatch(rf"per_cpu\(current_task, 1\) = \$\d+ = \(struct task_struct \*\) {current[1]['value']:#x}\n",
                        old("p current_task:1"))


def test_an_array_whose_length_the_dump_does_not_tell_is_shown(null: Console) -> None:
    banner = null.prog.read_c_string(null.prog.symbol("linux_banner").address).decode()
    assert null.json("p linux_banner --json")[0]["text"] == f'"{banner.strip()}\\n"'
    offsets = null.json("p __per_cpu_offset --json")[0]["text"]
    assert offsets.startswith(f"{{{null.prog['__per_cpu_offset'][0].value_()}, ")
    # Its name in 7.2 is flexible_array.
    name = "cpu_bitmap" if null.prog.type("struct mm_struct").has_member("cpu_bitmap") else "flexible_array"
    bitmap = null.prog["init_mm"].member_(name).address_
    offset = bitmap - null.prog.symbol("init_mm").address
    assert null(f"p init_mm.{name}").endswith(
        f" = {bitmap:#x} <init_mm+{offset}>\n" if name == "cpu_bitmap" else f' = {bitmap:#x} ""\n')


def test_a_symbol_longer_than_64_kib_holds_its_addresses(null: Console) -> None:
    symbol = null.prog.symbol("__per_cpu_offset")
    assert null(f"sym {symbol.address + 24:x}").endswith("__per_cpu_offset+24\n")
    assert null.prog.symbol(symbol.address + 0xFFF8).name == "__per_cpu_offset"
    assert null.prog.symbol(symbol.address + 0x10000).name != "__per_cpu_offset"


def test_values_are_asked_for_again(old: Console) -> None:
    first = old.json("p init_task.tasks.next --json")[0]
    assert old(f"p ${first['number']}").endswith(f" = (struct list_head *) {first['value']:#x}\n")
    assert old("p $->next == $$->next").endswith(" = 1\n")
    assert "'p' has shown" in old.fails("p $999")


@pytest.mark.parametrize(("typed", "meant"), [
    ("print nr_cpu_ids", "p nr_cpu_ids"), ("output nr_cpu_ids", "p nr_cpu_ids"), ("gdb p nr_cpu_ids", "p nr_cpu_ids"),
    ("gdb p/x nr_cpu_ids", "p/x nr_cpu_ids"), ("ptype struct list_head", "whatis struct list_head"),
    ("x/3i schedule", "dis schedule 3"), ("x/4gx &init_task", "rd -x init_task 4"), ("x/s linux_banner",
    "rd -a linux_banner"), ("x/2wd &init_task", "rd -32 -d init_task 2"), ("info symbol schedule", "sym schedule"),
    ("disassemble schedule", "dis schedule"), ("x/3i schedule | head -1", "dis schedule 1")])
def test_words_of_gdb_are_answered(old: Console, typed: str, meant: str) -> None:
    def without_number(text: str) -> str:
        return re.sub(r"\$\d+", "$", text)

    assert without_number(old(typed)) == without_number(old(meant))


def test_what_only_gdb_can_do_says_so(old: Console) -> None:
    for line in ("gdb", "gdb info registers", "info threads", "gdb gdb p 1"):
        assert "Instead: " in old(line)
    assert "gdb's" in old.fails("printf 1")
    for line in ("x", "x/3q schedule", "x/999999999x schedule", "x 1 +", "p/q 1", "x/3i nothing_of_this_name"):
        old.fails(line)


def test_a_list_shows_all_that_is_asked_for_and_takes_any_start(old: Console) -> None:
    rows = old.json("list module.list -s module.name -s module.state -H (modules) --json")
    assert [row["address"] for row in rows] == [
        row["address"] for row in old.json("list -H modules -o module.list --json")]
    assert rows[0]["text"].splitlines() == ['  name = "flaky"', "  state = MODULE_STATE_LIVE"]
    offset = old.prog["init_task"].tasks.address_ - old.prog["init_task"].address_
    everybody = old.json(f"list -H init_task+{offset} -o task_struct.tasks --json")
    assert {row["pid"] for row in old.json("ps --json")} >= {
        old.kernel.task_object(row["address"]).pid.value_() for row in everybody}
    assert len(everybody) > 40


def test_search_takes_lengths_and_expressions_as_crash_does(old: Console) -> None:
    start = old.prog.symbol("init_task").address
    found = old.json("search -s init_task -l 1000 0 --json")
    assert max(row["address"] for row in found) < start + 1000
    assert old.json("search -s init_task -l 0x3e8 0 --json") == found
    assert {row["value"] for row in old.json("search -s init_task -l 10k (init_task) --json")} == {start}
    assert "no number" in old.fails("search -s init_task -l zz 0")


@pytest.mark.parametrize(("line", "answer"), [
    ("whatis list_head.next", "struct list_head {\n     [0] struct list_head *next;\n}\n"),
    ("whatis pid_t", "typedef int pid_t;\nSIZE: 4\n"), ("whatis int", "SIZE: 4\n"),
    ("whatis init_task.tasks", "struct list_head\n"),
    ("whatis atomic_t", "typedef struct {\n    int counter;\n} atomic_t;\nSIZE: 4\n"),
    ("whatis module_state", "enum module_state {\n    MODULE_STATE_LIVE = 0\n    MODULE_STATE_COMING = 1\n"
     "    MODULE_STATE_GOING = 2\n    MODULE_STATE_UNFORMED = 3\n};\n"),
    ("struct -o list_head.prev", "struct list_head {\n     [8] struct list_head *prev;\n}\n")])
def test_whatis_tells_what_stands_behind_a_name(old: Console, line: str, answer: str) -> None:
    assert old(line) == answer


def test_a_member_is_declared_as_in_c(null: Console) -> None:
    text = null("struct -o task_struct.comm")
    assert " char comm[16];" in text
    assert "SIZE" not in text
    assert "no member" in null.fails("whatis task_struct.nothing")
    assert "no type or symbol" in null.fails("whatis nothing_of_this_name")


def test_the_context_is_told_in_words_of_crash(null: Console) -> None:
    assert "output radix: 16 (hex)" in null("set hex")
    assert null("p nr_cpu_ids").endswith("0x2\n")
    assert "output radix: 10 (decimal)" in null("set dec")
    assert re.search(r"STATE: TASK_(INTERRUPTIBLE|RUNNING)$", null("set 1"), re.M)
    assert " (1 of 2)  [THREAD_INFO: " in null("set 0") or " (2 of 2)  [THREAD_INFO: " in null("set 0")
    null("set -p")


def test_memory_of_a_file_or_of_no_address_space_is_told_as_crash_does(null: Console) -> None:
    assert null("rd -f 0 1").startswith("0:  ")
    assert null("rd -p 1000").startswith("1000:  ")
    assert null("rd -d nr_cpu_ids").split() == [f"{null.prog.symbol('nr_cpu_ids').address:016x}:",
                                                str(null.prog.read_u64(null.prog.symbol("nr_cpu_ids").address))]


def test_data_is_not_disassembled_to_its_end(old: Console) -> None:
    assert len(old("dis init_task").splitlines()) == 1
    assert len(old("dis schedule").splitlines()) > 10


def test_symbols_of_a_module_stand_between_its_begin_and_end(old: Console) -> None:
    lines = old("sym -m flaky").splitlines()
    assert lines[0].endswith(" MODULE START: flaky")
    assert lines[-1].endswith(" MODULE END: flaky")
    assert old("sym -M").count("MODULE START: ") == len(old.json("mod --json"))


def test_caches_complete_behind_kmem_s(old: Console) -> None:
    assert list(ShellCompleter(old.shell.session).names(["kmem", "-s"], "task_st")) == ["task_struct"]


def test_lines_are_run_again(old: Console) -> None:
    console = Console(old.kernel)
    assert console("p 5 + 1") == "$1 = 6\n"
    assert console("r") == "$2 = 6\n"
    console("sym schedule")
    assert console("r p") == "$3 = 6\n"
    assert console("h").splitlines() == [
        "[1] p 5 + 1", "[2] p 5 + 1", "[3] sym schedule", "[4] p 5 + 1", "[5] h"]
    assert console("r 3") == console("sym schedule")
    assert [row["line"] for row in console.json("h --json")][-1] == "h --json"
    for line in ("r 99", "r nothing"):
        assert "no line of this session" in console.fails(line)
    assert "r NUMBER" in console("help input")
    assert ">> FILE" in console("help output")


def test_x_needs_an_address_and_no_type(null: Console) -> None:
    place = null.prog.symbol("flaky_poll_work").address
    assert null("x/2i flaky_poll_work").startswith(f"{place:#x} <flaky_poll_work>:")
    assert null("x/2gx flaky_poll_work+8") == null("x/2gx &flaky_poll_work + 8") == null(f"rd -64 -x {place + 8:x} 2")
    assert "there is no gdb in this shell" in null("gdb list schedule")


def test_addresses_of_user_space_look_like_addresses(null: Console) -> None:
    starts = [area["start"] for area in null.json("vm 1 --json")[0]["areas"]]
    assert null("vm 1 |: columns areas.start").split()[1:] == [f"{start:016x}" for start in starts]


def test_the_length_of_a_tick_is_known(null: Console) -> None:
    """Debian's kernels have CONFIG_HZ=250; 7.2 has no tick_nsec."""
    assert re.search("^ +HZ: 250$", null("mach"), re.MULTILINE)
