"""Which tasks `foreach` and `ps` take, and how they show many, on real dumps."""

from __future__ import annotations

import re

import pytest
from drgn.helpers.linux.pid import find_task, for_each_task
from drgn.helpers.linux.sched import idle_task

from console import Console, kernel_of

CPUS = (0, 1)


def idle(console: Console) -> list[int]:
    return [idle_task(console.prog, cpu).value_() for cpu in CPUS]


def test_foreach_takes_the_idle_tasks_too(null: Console) -> None:
    everyone = [row["task"] for row in null.json("ps --json")]
    assert everyone[:2] == idle(null)
    assert len(everyone) == 2 + sum(1 for _ in for_each_task(null.prog))
    assert [row["task"] for row in null.json("foreach bt --json")] == everyone
    for chosen in ("0", "0x0", "RU kernel 0", "'^swapper/'"):
        assert [row["task"] for row in null.json(f"foreach {chosen} task -R pid --json")] == idle(null)
    assert [row["task"] for row in null.json("foreach swapper/1 bt --json")] == idle(null)[1:]
    running = {row["task"] for row in null.json("ps -A --json")}
    assert {row["task"] for row in null.json("foreach active bt --json")} == running
    assert not set(idle(null)) & {row["task"] for row in null.json("foreach user bt --json")}
    assert set(idle(null)) < {row["task"] for row in null.json("foreach kernel bt --json")}


def test_foreach_gleader_takes_processes_and_no_kernel_threads(null: Console) -> None:
    found = [row["pid"] for row in null.json("foreach gleader ps --json")]
    assert found == [row["pid"] for row in null.json("ps -u -G --json")]
    assert 1 in found
    assert 2 not in found


def test_foreach_ps_makes_one_table(null: Console) -> None:
    assert null("foreach ps") == null("ps")
    assert null("foreach ps -l") == null("ps -l")
    assert null("foreach user ps -S").count("\n") == len({row["state"] for row in null.json("ps -u --json")})
    lines = null("foreach 1 2 ps |: where pid < 9").splitlines()
    assert [line.split()[0] for line in lines] == ["PID", "1", "2"]


@pytest.mark.parametrize("line", ["set", "vtop {user}", "net -n"])
def test_foreach_names_the_task_whose_answer_does_not(old: Console, line: str) -> None:
    stack = old.json("vm 1 --json")[0]["areas"][0]["start"]
    other = next(row["pid"] for row in old.json("ps -u --json") if row["pid"] != 1)
    lines = old(f"foreach 1 {other} {line.format(user=f'{stack:x}')}").splitlines()
    heads = [at for at, text in enumerate(lines) if text.startswith("PID: ") and "COMMAND: " in text]
    assert [lines[at].split()[1] for at in heads] == ["1", str(other)]
    assert heads[0] == 0
    assert lines[heads[1] - 1] == ""


def test_foreach_net_shows_sockets_once_a_task(null: Console) -> None:
    assert null("foreach 1 2 net") == null("foreach 1 2 net -s")
    assert "NET_DEVICE" not in null("foreach user net")


def test_single_quotes_make_a_regular_expression() -> None:
    console = Console(kernel_of("6.1", "deadlock"))
    named = sorted(row["command"] for row in console.json("ps --json") if "flaky_c" in row["command"])
    assert named
    for line in ("ps 'flaky_c' --json", "foreach 'flaky_c' ps --json"):
        assert sorted(row["command"] for row in console.json(line)) == named
    for line in ("ps flaky_c --json", 'ps "flaky_c" --json'):       # a name, of which there is none
        assert "there is no task 'flaky_c'" in console.fails(line)
    assert "there is no task 'flaky_c'" in console.fails("foreach flaky_c ps")
    assert [row["command"] for row in console.json(f"ps '{named[0]}' --json")] == named[:1]


@pytest.mark.parametrize("line", [
    "ps 99999", "ps nosuch", "ps 1,22", "ps 1 99999", "ps -p nosuch", "ps -t 1 99999", "ps -g 99999", "ps -r 99999",
    "ps -a nosuch", "ps 1 99999 |: count", "foreach 1 99999 ps", "foreach 99999 bt", "foreach user nosuch task -R pid"])
def test_a_task_that_is_not_there_is_told_and_the_others_are_shown(old: Console, line: str) -> None:
    good, text, errors = old.attempt(line)
    name = re.search(r"99999|nosuch|1,22", line)
    assert not good
    assert name
    assert f"there is no task '{name[0]}'" in errors
    assert errors.count("\n") == 1
    assert bool(re.search(r"\b1\b", text)) == (" 1 " in line)


def test_nobody_in_a_state_or_like_a_regular_expression_is_an_answer(null: Console) -> None:
    assert null("foreach TR bt") == null("foreach TR ps") == ""
    assert null.json("foreach TR bt --json") == null.json("ps --state TR --json") == null.json("ps '^zz' --json") == []


@pytest.mark.parametrize("line", ["foreach files -R null", "foreach bt -R schedule", "foreach user vm -R busybox"])
def test_an_empty_line_stands_between_tasks_and_nowhere_else(null: Console, line: str) -> None:
    """The first tasks have nothing to show: idle ones."""
    text = null(line)
    assert text.startswith("PID: ")
    assert text.count("\n\nPID: ") + 1 == len(re.findall("^PID: ", text, re.MULTILINE)) > 2
    assert "\n\n\n" not in text


def test_a_process_id_may_be_hexadecimal(old: Console) -> None:
    pid = next(row["pid"] for row in old.json("ps --json") if row["pid"] > 9)
    task = find_task(old.prog, pid).value_()
    for text in (f"{pid:#x}", f"0X{pid:x}"):
        assert [row["task"] for row in old.json(f"ps {text} --json")] == [task]
        assert [row["task"] for row in old.json(f"bt {text} --json")] == [task]
        assert [row["task"] for row in old.json(f"foreach {text} bt --json")] == [task]
    assert "there is no task with process id 1048575" in old.fails("bt 0xfffff")
    assert "neither a process id" in old.fails("bt zz")


def test_an_idle_task_has_no_parent(null: Console) -> None:
    rows = {row["task"]: row for row in null.json("ps --json")}
    assert [rows[task]["ppid"] for task in idle(null)] == [0, 0]
    assert rows[find_task(null.prog, 1).value_()]["ppid"] == 0
