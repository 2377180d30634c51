"""Values as crash and gdb show them: variables of every CPU, arrays of unknown length, gdb's words; on real dumps."""

from __future__ import annotations

import re

import pytest
from drgn.helpers.linux.percpu import per_cpu_ptr

from console import Console


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
