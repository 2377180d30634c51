"""Words that the text and the page share."""

from __future__ import annotations

from kdumpy.diagnosis.model import OWNED, TaskFacts, Wait

_SAID = ("I/O", "page lock")
"""Kinds of wait for what has no name of its own but is described."""
_KINDS = {"RCU": "RCU grace period", "SRCU": "grace period of SRCU"}
_BY = {"work": "run by", "I/O": "carried out by", "RCU": "held up by"}


def task_words(task: TaskFacts) -> str:
    """Return a task as name and number."""
    return f"{task.comm} (pid {task.pid})" if task.pid else "the idle task"


def wait_words(wait: Wait) -> str:
    """Return what a task waits for: `mutex flaky+0x10 [flaky], held by flaky_collect (pid 142)`."""
    kind = _KINDS.get(wait.kind, wait.kind)
    parts = [f"{kind}{':' if wait.kind in _SAID else ''} {wait.lock}".rstrip()]
    if wait.owner:
        parts.append(f"{_BY.get(wait.kind, 'held by')} {task_words(wait.owner)}")
    elif wait.kind in OWNED:
        parts.append("its holder is not known")
    if wait.note:
        parts.append(wait.note)
    return ", ".join(parts)
