"""What the shell tells of stacks: the words between frames, the raw words, on real dumps."""

from __future__ import annotations

import re

from drgn.helpers.linux.pid import find_task, for_each_task
from drgn.helpers.linux.sched import idle_task

from brokendump import Broken
from console import Console, kernel_of
from kdumpy.crash.stack import StackFrame
from kdumpy.crash.stacktext import stack_text


def test_a_pointer_into_the_middle_of_a_task_names_the_task_and_how_far(null: Console) -> None:
    idle = (idle_task(null.prog, cpu) for cpu in range(2))
    tasks = {task.value_(): task for task in (*for_each_task(null.prog), *idle)}
    size = null.shell.session.slabs.named("task_struct").object_size     # the type has room that no task takes
    seen = 0
    for frames in null.json("bt -FF 1 --json"):
        for word in (word for frame in frames["data"] for word in frame if word["cache"] == "task_struct"):
            inside = [(task, word["value"] - begin) for begin, task in tasks.items()
                      if begin <= word["value"] < begin + size]
            if not inside:
                assert not word["object"]           # between two tasks
                continue
            ((task, offset),) = inside
            name = f'task {task.pid.value_()} "{task.comm.string_().decode()}"'
            assert word["object"] == (f"{name} +{offset}" if offset else name)
            seen += 1
    assert seen


def test_memory_that_is_zero_is_no_idle_task(old: Console) -> None:
    middle = find_task(old.prog, 1).value_() - 16
    assert "there is no task at" in old.fails(f"bt {middle:x}")
    assert old("bt 0").count("PID: 0 ") == 2


def test_the_stack_of_a_switched_out_task_begins_with_the_registers_that_it_saved(null: Console) -> None:
    begun = {row["pid"]: row for row in null.json("ps -s --json")}
    seen = 0
    for task in for_each_task(null.prog):
        row = begun[task.pid.value_()]
        if row["active"]:
            continue
        pointer = task.thread.sp.value_()
        assert row["stack"] == pointer
        (trace,) = null.json(f"bt -f {task.value_():x} --json")
        first, data = trace["frames"][0], trace["data"][0]
        assert (first["function"], first["slot"]) == ("__schedule", pointer)
        if data:
            saved = null.prog.type("struct inactive_task_frame").size - 8
            assert data[0]["address"] == pointer + 8
            assert {word["address"]: word["value"] for word in data}[pointer + saved] == first["pc"]
            seen += 1
    assert seen > 30


def test_the_words_of_a_panic_on_an_interrupts_stack_begin_there_and_go_on_with_the_tasks() -> None:
    console = Console(kernel_of("6.1", "null-timer"))
    frames = console.json("bt --json")[0]["frames"]
    for option in ("-t", "-o", "-T"):
        (row,) = console.json(f"bt {option} --json")
        assert [text["stack"] for text in row["text"]] == ["IRQ", "TASK"]
        words = {word["address"]: word["value"] for text in row["text"] for word in text["words"]}
        assert all(console.prog.read_u64(address) == value for address, value in words.items())
        returns = {frame["slot"]: frame["pc"] for frame in frames if not frame["registers"]}
        assert returns.items() <= words.items()
        lines = console(f"bt {option}").splitlines()
        at = lines.index("--- <IRQ stack> ---")
        assert sum("[exception RIP: flaky_watchdog_check+" in line for line in lines[:at]) == 1
        assert sum("[exception RIP: " in line for line in lines[at:]) == 1
        assert "flaky_watchdog_tick" in "\n".join(lines[:at])
    assert re.search(r"^ {14}START: flaky_watchdog_check at [0-9a-f]{16}$", console("bt -t"), re.M)
    whole, above = (len(console(f"bt {option}").splitlines()) for option in ("-T", "-t"))
    assert whole > above + 10


def test_the_text_of_a_task_from_user_space_ends_with_its_registers_and_names_pointers_to_functions(
        null: Console) -> None:
    trace = null("bt 1").splitlines()
    registers = trace[next(at for at, line in enumerate(trace) if line.startswith("    RIP: ")):]
    for option in ("-t", "-T", "-o"):
        lines = null(f"bt {option} 1").splitlines()
        assert lines[-len(registers):] == registers
        assert any("child_wait_callback" in line for line in lines) == (option != "-o")
    assert null("bt -t 1").splitlines()[1].startswith("              START: __schedule at ")


def test_the_raw_words_have_the_names_of_symbols(null: Console) -> None:
    lines = null("bt -r 1").splitlines()[1:]
    assert len(lines) == null.prog["THREAD_SIZE"].value_() // 16
    assert any("do_wait+" in line for line in lines)
    assert any("child_wait_callback " in line or line.endswith("child_wait_callback") for line in lines)


def test_a_stack_that_leads_nowhere_is_told_by_each_way_to_look_at_it(broken: Broken) -> None:
    task = find_task(broken.prog, 1)
    good = broken("bt -t 1").splitlines()
    broken.write_word(task.stack.address_of_().value_(), 0xdeadbeef_cafebabe)
    _, text, errors = broken.attempt("bt -v")
    assert "No stack overflows" not in text
    assert "1 stack could not be checked" in errors
    assert f"{task.value_():x}" in errors
    for option in ("-r", "-T", "-t"):
        assert "16384 bytes at deadbeefcafebabe are not in the dump" in broken(f"bt {option} 1")
    assert set(good) & {line for line in broken("bt -t 1").splitlines() if "] do_wait at" in line}   # by the frames


def test_a_stack_that_has_overflowed_is_told(broken: Broken) -> None:
    assert broken("bt -v") == "No stack overflows detected\n"
    task = find_task(broken.prog, 1)
    broken.write_word(task.stack.value_(), 0)
    assert re.findall(r"^PID: (\d+)", broken("bt -v"), re.M) == ["1"]


def test_a_trace_that_leads_anywhere_is_not_searched_all_the_way(old: Console) -> None:
    task = find_task(old.prog, 1)
    (trace,) = old.json("bt 1 --json")
    wild = [StackFrame(trace["frames"][0]["pc"], sp, "schedule", 0, None, None, False, "UNKNOWN", slot=sp)
            for sp in (0xff00000000000000, 0xff00000000000040, 0xfffffffffffff000, 0xff00000000001000)]
    found = stack_text(old.shell.session, task, 0, wild)
    assert [text.frames for text in found] == [(0, 1), (2,), (3,), ()]
    assert sum(size for text in found for _, size in text.missing) < 1000
    assert found[-1].stack == "TASK"


def test_the_words_of_a_stack_that_overflowed_are_those_of_the_task() -> None:
    console = Console(kernel_of("6.1", "stack-overflow"))
    (row,) = console.json("bt -t --json")
    assert [text["stack"] for text in row["text"]] == ["TASK"]
    assert sum(word["symbol"].startswith("flaky_walk_tree") for word in row["text"][0]["words"]) > 20
    assert "UNKNOWN" not in console("bt -t")
