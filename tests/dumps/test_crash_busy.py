"""`runq -g` and `net -a` on a guest with task groups and neighbours. Its dumps are for the full matrix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import drgn
import pytest
from drgn.helpers.linux.cgroup import cgroup_path
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.net import neigh_table_for_each_neighbor
from drgn.helpers.linux.sched import cfs_rq_for_each_entity, cpu_rq

import busy_guest
import kdumpy
import lab
from brokendump import Broken
from console import Console
from crashtruth import Truth, release_of, vmlinux, words

pytestmark = pytest.mark.skipif(not lab.FULL, reason="a guest of its own: KDUMPY_MATRIX=full")


@pytest.fixture(scope="module", params=lab.KERNELS)
def busy(request: pytest.FixtureRequest) -> Iterator[Console]:
    with kdumpy.open(busy_guest.dump(request.param).path) as kernel:
        yield Console(kernel)


def _groups(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in group["entries"]:
        if "entries" in entry:
            yield entry
            yield from _groups(entry)


def test_runq_g_shows_the_groups_with_their_tasks(busy: Console) -> None:
    rows = busy.json("runq -g --json")
    assert [row["cpu"] for row in rows] == [0, 1]
    assert [row["problem"] for row in rows] == ["", ""]
    root = busy.prog["root_task_group"]
    tasks = {row["pid"]: row for row in busy.json("ps --json")}
    running, waiting = set[str](), 0
    for row in rows:
        assert row["fair"]["group"] == root.address_
        assert row["current"] == busy.json(f"runq -c {row['cpu']} --json")[0]["current"]
        queued = [group for group, depth, _, is_task in cfs_rq_for_each_entity(
            cpu_rq(busy.prog, row["cpu"]).cfs.address_of_()) if not is_task]
        groups = list(_groups(row["fair"]))
        assert {group.my_q.value_() for group in queued} <= {group["queue"] for group in groups}
        for group in groups:
            made = drgn.Object(busy.prog, "struct task_group *", value=group["group"])
            assert cgroup_path(made.css.cgroup).decode().endswith(f"/{group['name']}")
            members = [entry for entry in group["entries"] if "pid" in entry]
            for member in members:
                assert drgn.Object(busy.prog, "struct task_struct *",
                                   value=member["task"]).sched_task_group == made
                assert tasks[member["pid"]]["command"] == member["command"]
            if members:
                running.add(group["name"])
            assert group["throttled"] == (group["name"] == "tight"), group["name"]
        waiting += len(row["real_time"]["entries"])
    assert {"inner", "tight"} <= running      # whatever the scheduler chose at this moment
    assert waiting == 2
    text = busy("runq -g")
    assert "<tight> (THROTTLED)" in text
    assert "RT_RQ: " in text
    assert text.count("[ 92] PID: ") == 2


def test_net_a_shows_the_neighbours(busy: Console) -> None:
    rows = {row["address"]: row for row in busy.json("net -a --json")}
    assert {row["neighbour"] for row in rows.values()} == {
        neighbour.value_() for table in ("arp_tbl", "nd_tbl")
        for neighbour in neigh_table_for_each_neighbor(busy.prog[table].nht)}
    known = rows["192.0.2.7"]
    assert (known["type"], known["hardware_address"], known["device"], known["state"]) == (
        "ETHER", "02:00:5e:00:53:07", "dummy0", ["PERMANENT"])
    assert rows["192.0.2.9"]["state"] in (["FAILED"], ["INCOMPLETE"])       # nobody is there
    assert rows["ff02::2"]["hardware_address"] == "33:33:00:00:00:02"
    assert busy.json("net -a |: where state=PERMANENT |: json") == [known]


def test_crash_says_the_same_of_an_older_kernel() -> None:
    """crash 8.0.2 finds the tasks of 5.10; it has neither waiting real-time tasks nor IPv6."""
    path = busy_guest.dump("5.10").path
    debug = vmlinux(release_of(path))
    if debug is None:
        pytest.skip("the kernel's DWARF is not there")
    crash = Truth(path, debug, ("runq -g", "net -a"))
    with kdumpy.open(path) as kernel:
        ours = Console(kernel)
        found = words(ours("net -a").splitlines())
        assert [line for line in found if "::" not in line] == words(crash("net -a"))
        lines = words(ours("runq -g").splitlines())
    more = [number for number, line in enumerate(lines) if "RT_RQ" in line or line.startswith("[ 92]")]
    assert len(more) == 3
    assert [line for number, line in enumerate(lines) if number not in more] == words(crash("runq -g"))


def test_groups_that_hold_each_other_and_neighbours_in_a_circle_end() -> None:
    console = Broken(busy_guest.dump("6.1").path)
    entity = next(entity for cpu in (0, 1) for entity, depth, _, is_task in cfs_rq_for_each_entity(
        cpu_rq(console.prog, cpu).cfs.address_of_()) if not is_task and depth == 1)
    console.write_word(entity.my_q.address_of_().value_(), entity.parent.my_q.value_())
    neighbour = next(iter(neigh_table_for_each_neighbor(console.prog["arp_tbl"].nht)))
    console.write_word(neighbour.next.address_of_().value_(), neighbour.value_())
    start = time.process_time()
    assert "hold themselves" in console("runq -g")
    good, text, errors = console.attempt("net -a")
    assert not good
    assert f"{neighbour.value_():016x}" in text
    assert "runs in a circle" in errors
    groups = list(list_for_each_entry("struct task_group", console.prog["task_groups"].address_of_(), "list"))
    console.write_word(groups[1].list.next.address_of_().value_(), groups[1].list.address_of_().value_())
    assert "circle" in console("runq -g")
    assert time.process_time() - start < 20
    console.close()
