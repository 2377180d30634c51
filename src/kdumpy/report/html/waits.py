"""The wait graph, laid out: who waits for which lock, and who holds it.

A task waits for one lock and a lock has one holder, so what hangs together has at most one circle. The circle is
drawn as a ring of two rows, and the tasks that only wait stand to the left of what they wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kdumpy.diagnosis.model import Blocked, BlockedFacts, TaskFacts, Wait
from kdumpy.report.words import task_words, wait_words

MOST_TASKS = 24
"""Tasks that are drawn; the list beside the picture has all."""
_WIDTH, _HEIGHT, _COLUMN, _ROW, _MARGIN = 196, 50, 262, 78, 14
"""Pixels: a box, from column to column, from row to row, around all."""

_SMALL = 30
"""Characters of the small line that a box has room for."""


@dataclass
class Box:
    """A task or a lock."""

    key: str
    title: str
    words: str
    kind: str
    """task, holder (it holds a lock and does not itself wait), lock."""
    circle: bool = False
    x: int = 0
    y: int = 0

    width = _WIDTH
    height = _HEIGHT


@dataclass
class Arrow:
    """From a task to the lock that it waits for, or from a lock to its holder."""

    begin: Box
    end: Box
    circle: bool

    @property
    def kind(self) -> str:
        """waits, or held."""
        return "held" if self.begin.kind == "lock" else "waits"

    @property
    def path(self) -> str:
        """The line, as SVG's path data."""
        a, b = self.begin, self.end
        if abs(a.x - b.x) < _WIDTH and a is not b:              # one above the other
            down = b.y > a.y
            x1, x2 = a.x + _WIDTH // 2, b.x + _WIDTH // 2
            y1, y2 = (a.y + _HEIGHT, b.y - 4) if down else (a.y, b.y + _HEIGHT + 4)
            return f"M{x1},{y1}C{x1},{(y1 + y2) // 2} {x2},{(y1 + y2) // 2} {x2},{y2}"
        right = b.x > a.x
        x1, x2 = (a.x + _WIDTH, b.x - 4) if right else (a.x, b.x + _WIDTH + 4)
        y1, y2 = a.y + _HEIGHT // 2, b.y + _HEIGHT // 2
        middle = (x1 + x2) // 2
        return f"M{x1},{y1}C{middle},{y1} {middle},{y2} {x2},{y2}"


@dataclass
class Graph:
    """The picture."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    width: int = 0
    height: int = 0
    left_out: int = 0
    """Waiting tasks that are not drawn."""
    words: str = ""
    """What the picture tells, for those who cannot see it."""


def draw(blocked: Blocked) -> Graph | None:
    """Lay the graph out; None where nobody waits for a known lock."""
    waiting = [item for item in blocked.tasks if item.waits_for]
    if not waiting:
        return None
    circling = {pid for circle in blocked.circles for pid in circle}
    waiting.sort(key=lambda item: item.task.pid not in circling)
    alike = _alike(waiting, circling)
    waiting = [item for item in waiting if item.task.pid in alike]
    graph = Graph(left_out=sum(alike[item.task.pid] for item in waiting[MOST_TASKS:]))
    waiting = waiting[:MOST_TASKS]
    boxes: dict[str, Box] = {}
    following: dict[str, str] = {}
    for item in waiting:
        _add(item, boxes, following, circling, {other.task.pid for other in waiting})
        if alike[item.task.pid] > 1:
            boxes[f"task {item.task.pid}"].title = f"{item.task.comm} +{alike[item.task.pid] - 1}"
    height = 0
    for group in _groups(boxes, following):
        height = _place(group, boxes, following, height)
    graph.boxes = list(boxes.values())
    graph.arrows = [Arrow(boxes[begin], boxes[end], boxes[begin].circle and boxes[end].circle)
                    for begin, end in following.items()]
    graph.width = max(box.x for box in graph.boxes) + _WIDTH + _MARGIN
    graph.height = height
    graph.words = "; ".join(_told(waiting))
    return graph


def _alike(waiting: list[BlockedFacts], circling: set[int]) -> dict[int, int]:
    """Return how many tasks each drawn one stands for, by thread id: those with its stack that wait as it does.

    Tasks that are in a circle, or that others wait for, stand for themselves.
    """
    owners = {item.waits_for.owner.pid for item in waiting if item.waits_for and item.waits_for.owner}
    first: dict[tuple[object, ...], int] = {}
    found: dict[int, int] = {}
    for item in waiting:
        wait = item.waits_for
        if wait is None:
            continue
        thing = wait.lock_address if wait.owner or wait.kind != "completion" else 0
        key = (wait.kind, thing, wait.owner, tuple(frame.partition("+")[0] for frame in item.trace))
        alone = not item.trace or item.task.pid in circling or item.task.pid in owners
        chosen = item.task.pid if alone else first.setdefault(key, item.task.pid)
        found[chosen] = found.get(chosen, 0) + 1
    return found


def _told(waiting: list[BlockedFacts]) -> Iterator[str]:
    for item in waiting:
        if item.waits_for:
            yield f"{task_words(item.task)} waits for the {wait_words(item.waits_for)}"


def _add(item: BlockedFacts, boxes: dict[str, Box], following: dict[str, str], circling: set[int],
         waiting: set[int]) -> None:
    wait = item.waits_for
    if wait is None:
        return
    task, lock = f"task {item.task.pid}", f"lock {wait.lock_address}"
    boxes[task] = _task_box(task, item.task, item.seconds, circling)
    boxes.setdefault(lock, Box(lock, *_lock_words(wait), "lock"))
    following[task] = lock
    if wait.owner is None:
        return
    owner = f"task {wait.owner.pid}"
    if owner not in boxes:
        boxes[owner] = _task_box(owner, wait.owner, None, circling)
        boxes[owner].kind = "task" if wait.owner.pid in waiting else "holder"
    following[lock] = owner
    if item.task.pid in circling and wait.owner.pid in circling:
        boxes[lock].circle = True


def _lock_words(wait: Wait) -> tuple[str, str]:
    """Return a lock's name in two short lines: of what belongs to something, its own name and whose it is."""
    begin, found, end = wait.lock.partition(" of the ") if wait.kind != "I/O" else wait.lock.rpartition(" of ")
    if not found:
        return wait.lock, wait.kind
    if wait.kind == "I/O":
        title, words = end.removeprefix("the "), f"I/O: {begin.partition(' at sector ')[0]}"
    else:
        title, words = begin, f"of the {end}"
    return title, words if len(words) <= _SMALL else words[:_SMALL - 1] + "…"


def _task_box(key: str, task: TaskFacts, seconds: float | None, circling: set[int]) -> Box:
    words = f"pid {task.pid}" + (f", waits {seconds:.1f} s" if seconds is not None else "")
    return Box(key, task.comm, words, "task", task.pid in circling)


def _groups(boxes: dict[str, Box], following: dict[str, str]) -> list[list[str]]:
    """Return what hangs together, the circles first."""
    group_of: dict[str, int] = {}
    for start in boxes:
        path, key = [], start
        while key and key not in group_of and key not in path:
            path.append(key)
            key = following.get(key, "")
        number = group_of.get(key, len(set(group_of.values())))
        group_of.update(dict.fromkeys(path, number))
    groups: dict[int, list[str]] = {}
    for key, number in group_of.items():
        groups.setdefault(number, []).append(key)
    return sorted(groups.values(), key=lambda group: not any(boxes[key].circle for key in group))


def _place(group: list[str], boxes: dict[str, Box], following: dict[str, str], top: int) -> int:
    """Give the boxes of a group their places; return where the next group may begin."""
    ring = _ring(group, following)
    root = [] if ring else [next(key for key in group if key not in following)]
    waiters: dict[str, list[str]] = {}
    for key in group:
        if key in following and key not in ring:
            waiters.setdefault(following[key], []).append(key)
    deepest = max(_depths(ring or root, waiters).values())
    left = _MARGIN + deepest * _COLUMN
    cursor = top + _MARGIN
    if ring:
        half = len(ring) // 2
        for number, key in enumerate(ring):
            lower = number >= half
            column = len(ring) - 1 - number if lower else number
            boxes[key].x, boxes[key].y = left + column * _COLUMN, cursor + (int(_ROW * 1.5) if lower else 0)
        bottom = cursor + int(_ROW * 1.5) + _ROW
        # Whoever only waits for a lock of the ring stands below it, to the left.
        for key in ring:
            for waiter in waiters.get(key, []):
                bottom = _tree(waiter, boxes, waiters, left - _COLUMN, bottom)
        return bottom
    return _tree(root[0], boxes, waiters, left, cursor)


def _ring(group: list[str], following: dict[str, str]) -> list[str]:
    path: list[str] = []
    key = group[0]
    while key in following and key not in path:
        path.append(key)
        key = following[key]
    ring = path[path.index(key):] if key in path else []
    return ring if not ring or ring[0].startswith("task") else ring[1:] + ring[:1]


def _depths(roots: list[str], waiters: dict[str, list[str]]) -> dict[str, int]:
    depths = dict.fromkeys(roots, 0)
    line = list(roots)
    for key in line:
        for waiter in waiters.get(key, []):
            if waiter not in depths:
                depths[waiter] = depths[key] + 1
                line.append(waiter)
    return depths


def _tree(key: str, boxes: dict[str, Box], waiters: dict[str, list[str]], x: int, y: int) -> int:
    """Place a box and, in the columns to its left, who waits for it; return the first free row below."""
    boxes[key].x = x
    below = y
    for waiter in waiters.get(key, []):
        below = _tree(waiter, boxes, waiters, x - _COLUMN, below)
    rows = [boxes[waiter].y for waiter in waiters.get(key, [])]
    boxes[key].y = (rows[0] + rows[-1]) // 2 if rows else y
    return max(below, y + _ROW)
