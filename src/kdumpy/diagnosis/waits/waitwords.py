"""What tasks wait for, in sentences and as evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdumpy.diagnosis.evidence import in_a_line
from kdumpy.diagnosis.memory import symbol_at
from kdumpy.diagnosis.model import OWNED, Evidence
from kdumpy.diagnosis.waits.locks import BlockedTask, LockWait
from kdumpy.diagnosis.waits.waiting import FILE_IN_USE, IRQ_THREAD, THREAD
from kdumpy.kernel.values import Task

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash

_KINDS = {"rwsem": "read-write semaphore", "rwlock": "read-write spinlock", "RCU": "end of an RCU grace period",
          "SRCU": "end of a grace period of the SRCU domain", "work": "end of a work", "I/O": "end of I/O",
          THREAD: "end of the thread", IRQ_THREAD: "end of the thread", FILE_IN_USE: "end of all uses of the file"}
_HAS = {"work": "runs", FILE_IN_USE: "reads or writes", "page lock": "has",
        "bit lock": "has", "buffer lock": "has", "percpu rwsem": "holds", "SRCU": "reads"}
"""What the owner does with what is waited for, where it is no lock."""
_STRUCTURES = {"mutex": "mutex", "rwsem": "rw_semaphore", "semaphore": "semaphore", "rt_mutex": "rt_mutex",
               "spinlock": "spinlock", "rwlock": "rwbase_rt", "completion": "completion",
               "wait queue": "wait_queue_head", "socket lock": "sock", "page lock": "page",
               "I/O": "request", "SRCU": "srcu_struct", THREAD: "kthread", IRQ_THREAD: "irq_desc"}
"""Kinds of wait, and the structure that is waited for."""
_FILES = (("/proc/", "proc_dir_entry"), ("/sys/kernel/debug/", "debugfs_fsdata"),
          ("a file of debugfs", "debugfs_fsdata"))
"""Beginnings of the names of files that are removed, and what stands for such a file; for all others kernfs_node."""
_WIDELY_USED = {"rtnl_mutex": "the lock of the network's configuration", "cgroup_mutex": "the lock of control groups",
                "cpu_hotplug_lock": "the lock of the CPUs' coming and going", "console_sem": "the lock of the consoles",
                "slab_mutex": "the lock of the list of slab caches", "module_mutex": "the lock of the list of modules",
                "pernet_ops_rwsem": "the lock of network namespaces", "tasklist_lock": "the lock of the list of tasks"}
"""Locks that half the kernel needs, by the variable."""


def wait_kind(wait: LockWait) -> str:
    """Return what kind of thing is waited for: `end of a work`."""
    return _KINDS.get(wait.kind, wait.kind)


def holds(wait: LockWait) -> str:
    """Return what the owner does with what is waited for: `holds`."""
    return "holds" if wait.kind in OWNED else _HAS.get(wait.kind, "is to bring about")


def waited_for(wait: LockWait) -> str:
    """Return what is waited for, without an article: `mutex rtnl_mutex (the lock of the network's configuration)`."""
    known = _WIDELY_USED.get(wait.name.split(".")[0].split("+")[0])
    return f"{wait_kind(wait)} {wait.name}".rstrip() + (f" ({known})" if known else "")


def by_whom(wait: LockWait) -> str:
    """Return `, which NAME (pid 1) holds`; empty where nobody is known, or what is waited for has his name already."""
    owner = f"{wait.owner.comm} (pid {wait.owner.pid})" if wait.owner else ""
    return f", which {owner} {holds(wait)}" if owner and owner not in waited_for(wait) else ""


def others_wait(blocked: Sequence[BlockedTask], first: BlockedTask, blamed: Sequence[Task]) -> str:
    """Say what further tasks wait for; empty where there are none.

    Args:
        blocked: all that are known to wait.
        first: the one that is told of already.
        blamed: the tasks that keep others waiting: it, and who holds what it waits for.
    """
    known = {task.address for task in (first.task, *blamed)}
    others = [item for item in blocked if item.task.address not in known]
    lock = first.waits_for
    same, held, rest = [], dict[tuple[str, str], list[BlockedTask]](), []
    for item in others:
        wait = item.waits_for
        if lock is not None and wait is not None and lock.address and (wait.kind, wait.address) == (lock.kind,
                                                                                                    lock.address):
            same.append(item)
        elif wait is not None and wait.owner is not None and wait.owner.address in known:
            held.setdefault((waited_for(wait), f"{wait.owner.comm} (pid {wait.owner.pid}) "
                             + holds(wait)), []).append(item)
        else:
            rest.append(item)
    told = [f"{_tasks(same)} for it, too."] if same else []
    told += [f"{_tasks(items)} for the {what}, which {who}." for (what, who), items in held.items()]
    if rest:
        told.append(f"{len(rest)} {'more ' if told else 'other '}task{'s' if len(rest) > 1 else ''} "
                    f"wait{'s' if len(rest) == 1 else ''} for something else.")
    return " ".join(told)


def _tasks(items: Sequence[BlockedTask]) -> str:
    if len(items) == 1:
        return f"{items[0].task.comm} (pid {items[0].task.pid}) waits"
    return f"{len(items)} more tasks wait"


def wait_evidence(crash: Crash, blocked: BlockedTask | None) -> list[Evidence]:
    """Return what a blocked task waits for."""
    if blocked is None:
        return []
    names = in_a_line(blocked.stack.frames)
    found = [Evidence(f"where {blocked.task.comm} waits", names, crash.evidence.command(f"bt {blocked.task.pid}"))]
    lock = blocked.waits_for
    if lock:
        by = {"work": "run by", "I/O": "carried out by"}.get(lock.kind, "held by" if lock.kind in OWNED else
                                                             "up to")
        owner = f"{by} {lock.owner.comm} (pid {lock.owner.pid})" if lock.owner else "its holder is not known"
        made = next((name for begin, name in _FILES if lock.name.startswith(begin)), "kernfs_node") \
            if lock.kind == FILE_IN_USE else _STRUCTURES.get(lock.kind)
        parts = [waited_for(lock), *([owner] if lock.kind in OWNED or lock.owner else []),
                 *([lock.note] if lock.note else [])]
        lines = ([f"struct {made} {lock.address:x}"] if made and lock.address else []) \
            + ([f"ps {lock.owner.pid}"] if lock.owner else [])
        # Where the owner is told by its code: who took a semaphore, or is to end a wait, or runs a work.
        if lock.owner and (lock.kind == "work" or f"{lock.owner.comm} " in lock.note):
            lines[-1] = f"bt {lock.owner.pid}"
        if lock.address and not lock.owner and crash.kernel and symbol_at(crash.kernel.prog, lock.address):
            lines.append(f"sym {lock.address:x}")
        shown = crash.evidence.command(*lines) if lines else ""
        found.append(Evidence("the lock" if lock.kind in OWNED else "what it waits for", ", ".join(parts), shown))
    return found
