"""Hundreds of tasks that wait in the same way are told, and drawn, once."""

from __future__ import annotations

from kdumpy.diagnosis.model import Blocked, BlockedFacts, TaskFacts, Wait
from kdumpy.report.families import families
from kdumpy.report.html import waits

CROWD, LONELY = ("__schedule+0x10", "vfs_write+0x20"), ("__schedule+0x18", "down_write+0x4")


def task(pid: int, lock: int, trace: tuple[str, ...] = CROWD, owner: TaskFacts | None = None) -> BlockedFacts:
    return BlockedFacts(TaskFacts(pid, f"task-{pid}", pid), float(1000 - pid),
                        Wait(f"lock {lock}", lock, "rwsem", owner), trace)


def test_tasks_with_one_stack_are_a_family() -> None:
    found = families(Blocked(101, (task(1, 7, LONELY), *(task(pid, 8) for pid in range(2, 102))), ()))
    assert [family.size for family in found] == [100, 1]
    assert found[0].title == "100 tasks with one stack: task-2 (pid 2), task-3 (pid 3), task-4 (pid 4), …"
    assert found[0].words == "rwsem lock 8, its holder is not known"
    assert found[1].title == "task-1 (pid 1)"


def test_what_differs_is_counted() -> None:
    found = families(Blocked(3, tuple(task(pid, pid) for pid in (1, 2, 3)), ()))
    assert found[0].words == "3 different things (rwsem); the first: rwsem lock 1, its holder is not known"


def test_a_crowd_is_one_box_and_its_holder_another() -> None:
    owner = TaskFacts(500, "holder", 500)
    graph = waits.draw(Blocked(60, tuple(task(pid, 8, owner=owner) for pid in range(1, 61)), ()))
    assert graph is not None
    assert [box.title for box in graph.boxes if box.kind == "task"] == ["task-1 +59"]
    assert graph.left_out == 0
    apart = waits.draw(Blocked(30, tuple(task(pid, pid, owner=owner) for pid in range(1, 31)), ()))
    assert apart is not None
    assert apart.left_out == 30 - waits.MOST_TASKS


def test_whom_others_wait_for_is_drawn_by_itself() -> None:
    first, second = task(1, 8), task(2, 8)
    waiting = task(3, 9, LONELY, owner=second.task)
    graph = waits.draw(Blocked(3, (first, second, waiting), ()))
    assert graph is not None
    assert {box.title for box in graph.boxes if box.kind == "task"} == {"task-1", "task-2", "task-3"}
