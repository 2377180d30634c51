"""Words that the text and the page share."""

from __future__ import annotations

from kdumpy.diagnosis.model import OWNED, Diagnosis, FrameFacts, TaskFacts, Wait
from kdumpy.units import human_bytes

TAIL_CALL = ("(tail call): it ended in a jump to the function above it and left no frame, so bt does not show it; the "
             "call instruction in the function below names it.")
_SAID = ("I/O", "page lock")
"""Kinds of wait for what has no name of its own but is described."""
_KINDS = {"RCU": "RCU grace period", "SRCU": "grace period of SRCU"}
_BY = {"work": "run by", "I/O": "carried out by", "RCU": "held up by"}


def task_words(task: TaskFacts) -> str:
    """Return a task as name and number."""
    return f"{task.comm} (pid {task.pid})" if task.pid else "the idle task"


def jumped(frame: FrameFacts) -> bool:
    """Tell whether a frame is on no stack: its function ended in a jump to the one above it."""
    return frame.symbol is not None and frame.offset is None and not frame.inline and not frame.symbol.startswith("(")


def memory_words(diagnosis: Diagnosis, noun: str = " memory") -> str:
    """Return `639.5 MiB memory (402.0 MiB of it managed)`: the shell's `sys` says the first, `kmem -i` the second."""
    managed, account = diagnosis.system.memory_bytes, diagnosis.memory.account
    if account is None:
        return f"{human_bytes(managed)}{noun}" if managed else ""
    return f"{human_bytes(account.ram)}{noun} ({human_bytes(account.managed)} of it managed)"


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
