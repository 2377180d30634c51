"""The graph of waits as a value: edges, circles with both lock orders, roots, and families of equal stacks."""

from __future__ import annotations

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.facts.waits import LockOrder, WaitCircle, WaitEdge, WaitFamily, WaitGraph, WaitRoot
from kdumpy.diagnosis.waits.locks import BlockedTask, LockWait, Waits
from kdumpy.diagnosis.waits.spinning import Spin
from kdumpy.diagnosis.waits.waitwords import holds
from kdumpy.kernel import Stack, Task

_MOST_EDGES = 512
_MOST_FAMILIES = 32
_MOST_FRAMES = 24
_FAMILY_FRAMES = 12
"""Frames that must be equal for two tasks to be of one family."""


def wait_graph(waits: Waits) -> WaitGraph:
    """Return who waits for whom."""
    edges: dict[int, WaitEdge] = {}
    ends: dict[int, tuple[Task, list[int]]] = {}
    for start in waits.blocked:
        item: BlockedTask | None = start
        passed: list[int] = []
        while item is not None and item.task.pid not in passed and len(edges) < _MOST_EDGES:
            if item.waits_for is None:
                break
            passed.append(item.task.pid)
            edges.setdefault(item.task.pid, _edge(item, item.waits_for))
            owner = item.waits_for.owner
            if owner is None:
                break
            following = waits.sleeper(owner)
            if following is None or following.waits_for is None or following.waits_for.owner is None:
                if owner.pid not in passed:
                    waiters = ends.setdefault(owner.pid, (owner, []))[1]
                    waiters += [pid for pid in passed if pid not in waiters]
                if following is not None and following.waits_for is not None:
                    edges.setdefault(owner.pid, _edge(following, following.waits_for))
                break
            item = following
    for spin in waits.spins.all:
        if spin.cpu.task is not None:       # idle tasks, which spin in interrupts, are all called 0
            edges[spin.cpu.task.pid or -1 - spin.cpu.number] = _spin_edge(spin, spin.cpu.task)
    roots = [_root(waits, task, waiters) for task, waiters in ends.values()]
    return WaitGraph(tuple(edges.values()), tuple(_circle(circle) for circle in waits.circles),
                     tuple(sorted(roots, key=lambda root: (-len(root.waiters), root.pid))), _families(waits))


def _edge(item: BlockedTask, wait: LockWait) -> WaitEdge:
    owner = wait.owner
    return WaitEdge(
        item.task.pid, item.task.comm, wait.kind, wait.mode, wait.name, wait.address, owner.pid if owner else None,
        owner.comm if owner else None, bool(owner) and wait.certain, _function(item.stack),
        round(item.seconds, 1) if item.seconds is not None else None, wait.note)


def _spin_edge(spin: Spin, task: Task) -> WaitEdge:
    holder = spin.holder
    owner = holder.task if holder else None
    note = f"CPU {spin.cpu.number} spins" + (f"; taken in {holder.frame.function}()" if holder else "")
    return WaitEdge(task.pid, task.comm, spin.kind, "", spin.name, spin.address, owner.pid if owner else None,
                    owner.comm if owner else None, owner is not None, _function(Stack(spin.frames)), None, note)


def _function(stack: Stack) -> str:
    frame = culprit.choose(stack.frames).frame
    return (frame.function or "") if frame else ""


def _circle(circle: tuple[BlockedTask, ...]) -> WaitCircle:
    orders = []
    for number, item in enumerate(circle):
        held = circle[number - 1].waits_for         # what the one before waits for is what this one holds
        orders.append(LockOrder(item.task.pid, item.task.comm, _function(item.stack),
                                (held.name or held.kind) if held else "",
                                (item.waits_for.name or item.waits_for.kind) if item.waits_for else ""))
    return WaitCircle(tuple(orders))


def lock_orders(circle: tuple[BlockedTask, ...]) -> str:
    """Return the orders in which the tasks of a circle take its locks, in a line."""
    held = (circle[number - 1].waits_for for number in range(len(circle)))
    return "; ".join(f"{order.comm} in {order.function}() {holds(lock) if lock else 'holds'} "
                     f"{order.holds} and wants {order.wants}"
                     for order, lock in zip(_circle(circle).orders, held, strict=True))


def _root(waits: Waits, task: Task, waiters: list[int]) -> WaitRoot:
    stack = waits.kernel.stack(task)
    sleeper = waits.sleeper(task)
    if task.on_cpu:
        doing = f"runs on CPU {task.cpu}"
    elif sleeper is not None and sleeper.waits_for is not None:
        wait = sleeper.waits_for
        doing = f"waits for the {wait.kind} {wait.name}".rstrip() + ", and nobody is known to hold that"
    else:
        doing = f"sleeps (state {task.state})"
    function = _function(stack)
    return WaitRoot(task.pid, task.comm, task.state, tuple(waiters), f"{doing}, in {function}()" if function else doing,
                    tuple(str(frame) for frame in stack.frames[:_MOST_FRAMES] if not frame.user))


def _families(waits: Waits) -> tuple[WaitFamily, ...]:
    groups: dict[tuple[str, ...], list[BlockedTask]] = {}
    for item in waits.blocked:
        names = tuple(frame.function or "?" for frame in item.stack.frames if not frame.user)
        groups.setdefault(names[:_FAMILY_FRAMES], []).append(item)
    found = []
    for names, items in groups.items():
        things = {f"{item.waits_for.kind} {item.waits_for.name}".rstrip() for item in items if item.waits_for}
        words = things.pop() if len(things) == 1 else f"{len(things)} different things" if things else ""
        found.append(WaitFamily(len(items), tuple(item.task.pid for item in items), words, names))
    return tuple(sorted(found, key=lambda family: (-family.count, family.trace))[:_MOST_FAMILIES])
