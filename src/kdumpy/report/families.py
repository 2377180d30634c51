"""Blocked tasks grouped by stack: hundreds that wait in the same way are told once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdumpy.diagnosis.model import Blocked, BlockedFacts
from kdumpy.report.words import task_words, wait_words

_NAMED = 3
"""Tasks of a family that are named."""


class Family(NamedTuple):
    """Tasks with one stack, the longest wait first."""

    tasks: tuple[BlockedFacts, ...]
    words: str
    """What they wait for; empty where that is not known."""

    @property
    def title(self) -> str:
        """`vforked-0 (pid 196)`, or `71 tasks: vforked-0 (pid 196), vforked-4 (pid 273), …`."""
        names = ", ".join(task_words(item.task) for item in self.tasks[:_NAMED])
        if len(self.tasks) == 1:
            return names
        return f"{len(self.tasks)} tasks with one stack: {names}" + (", …" if len(self.tasks) > _NAMED else "")

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.tasks)

    @property
    def first(self) -> BlockedFacts:
        """The task that waits longest."""
        return self.tasks[0]


def families(blocked: Blocked) -> list[Family]:
    """Return the blocked tasks by stack: the largest family first, of equals the one that waits longest."""
    groups: dict[tuple[str, ...], list[BlockedFacts]] = {}
    for item in blocked.tasks:
        groups.setdefault(tuple(_function(frame) for frame in item.trace) or (str(item.task.pid),), []).append(item)
    found = [Family(tuple(items), _waited_for(items)) for items in groups.values()]
    return sorted(found, key=lambda family: -len(family.tasks))


def _function(frame: str) -> str:
    return frame.partition("+")[0]


def _waited_for(items: Sequence[BlockedFacts]) -> str:
    waits = [item.waits_for for item in items if item.waits_for]
    if not waits:
        return ""
    if len({(wait.kind, wait.lock_address) for wait in waits}) == 1:
        return wait_words(waits[0])
    kinds = sorted({wait.kind for wait in waits})
    return f"{len(waits)} different things ({', '.join(kinds)}); the first: {wait_words(waits[0])}"
