"""Waits for the end of something that has a structure of its own: a thread, an interrupt's thread, a use of a file.

What is waited for (a completion, a wait queue) lies in that structure, and leads to whom it waits for.

Sources: kernel/kthread.c (struct kthread), kernel/irq/manage.c (synchronize_irq), fs/debugfs/file.c and inode.c
(struct debugfs_fsdata), fs/proc/inode.c (proc_entry_rundown).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.memory import is_kernels
from kdumpy.diagnosis.waits.filewaits import Words
from kdumpy.kernel import Kernel, Task
from kdumpy.kernel.tasks import task_objects, task_value
from kdumpy.kernel.values import Frame

_MOST_TASKS = 65_536
_MOST_STACKS = 4096
"""Tasks whose stacks are looked at for a call on a file."""
_MOST_ACTIONS = 64
_MOST_USERS = 16
_KTHREAD = 0x00200000
"""PF_KTHREAD, include/linux/sched.h."""
_IRQ_WAITERS = ("synchronize_irq", "__synchronize_irq", "disable_irq", "free_irq", "__free_irq")
_DEBUGFS, _PROCFS = ("__debugfs_file_removed", "debugfs_remove", "remove_one"), ("proc_entry_rundown",)


class Ending(NamedTuple):
    """What is waited for the end of."""

    kind: str
    """thread, interrupt thread, file in use."""
    address: int
    """Of its structure."""
    name: str
    owners: tuple[Task, ...]
    """The tasks that must come to the end."""
    note: str = ""


def thread_of(kernel: Kernel, completion: int) -> Ending | None:
    """Return the kernel thread whose end, or parking, a completion tells; None where it is no thread's.

    Raises:
        READ_ERRORS: the kernel's types do not have what is needed.
    """
    from drgn.helpers.linux.kthread import to_kthread

    size = drgn.sizeof(kernel.prog.type("struct kthread"))
    for task in islice(task_objects(kernel.prog), _MOST_TASKS):
        with contextlib.suppress(*READ_ERRORS):
            if int(task.flags) & _KTHREAD and 0 <= completion - to_kthread(task).value_() < size:
                value = task_value(task)
                return Ending("thread", to_kthread(task).value_(), f"{value.comm} (pid {value.pid})", (value,))
    return None


def interrupt_of(kernel: Kernel, queue: int, frames: Sequence[Frame]) -> Ending | None:
    """Return the interrupt whose threads a task waits for; None where it waits for something else.

    Args:
        kernel: the opened dump.
        queue: the wait queue that the task is in.
        frames: its stack.

    Raises:
        READ_ERRORS: the kernel's types do not have what is needed.
    """
    if not any((frame.function or "").startswith(_IRQ_WAITERS) for frame in frames):
        return None
    made = kernel.prog.type("struct irq_desc")
    descriptor = drgn.Object(kernel.prog, "struct irq_desc *", queue - drgn.offsetof(made, "wait_for_threads"))
    threads, action, names = [], descriptor.action, []
    for _ in range(_MOST_ACTIONS):
        if not action:
            break
        names.append(action.name.string_().decode("utf-8", "backslashreplace"))
        if action.thread:
            threads.append(task_value(action.thread))
        action = action.next
    number = int(descriptor.irq_data.irq.value_())
    return Ending("interrupt thread", descriptor.value_(), f"of interrupt {number} ({', '.join(names)})",
                  tuple(threads)) if threads else None


def file_of(kernel: Kernel, completion: int, words: Sequence[int], frames: Sequence[Frame],
            words_of: Words | None) -> Ending | None:
    """Return the file of debugfs or procfs whose users a task waits for that removes it; None where it is none.

    Args:
        kernel: the opened dump.
        completion: what the task waits for.
        words: the 64-bit words of the part of its stack that is in use.
        frames: its stack.
        words_of: gives the words of another task's stack.

    Raises:
        READ_ERRORS: the kernel's types do not have what is needed.
    """
    names = [frame.function or "" for frame in frames]
    prog = kernel.prog
    if any(name.startswith(_PROCFS) for name in names):
        made = prog.type("struct proc_dir_entry")
        at = drgn.offsetof(made, "pde_unload_completion")
        entry = next((word for word in dict.fromkeys(words) if is_kernels(word) and _is(prog, word + at, completion)),
                     None)
        if entry is None:
            return None
        found = drgn.Object(prog, "struct proc_dir_entry *", entry)
        name = "/proc/" + found.name.string_()[:255].decode("utf-8", "backslashreplace")
    elif any(name.startswith(_DEBUGFS) for name in names):
        entry = completion - drgn.offsetof(prog.type("struct debugfs_fsdata"), "active_users_drained")
        name = ""
    else:
        return None
    users = tuple(islice(_users(kernel, entry, words_of), _MOST_USERS)) if words_of else ()
    named = name or next((path for _, path in users if path), "a file of debugfs")
    return Ending("file in use", entry, named, tuple(task for task, _ in users))


def _is(prog: drgn.Program, address: int, value: int) -> bool:
    try:
        return bool(prog.read_u64(address) == value)
    except drgn.FaultError:
        return False


def _users(kernel: Kernel, entry: int, words_of: Words) -> Iterator[tuple[Task, str]]:
    """Yield (task, the file's name) of those that are in a call on a file whose entry is known."""
    for task in islice(task_objects(kernel.prog), _MOST_STACKS):
        with contextlib.suppress(*READ_ERRORS):
            frames = kernel.stack(task.value_()).frames
            if not any((frame.function or "").startswith(("full_proxy_", "debugfs_", "proc_reg_", "pde_"))
                       for frame in frames):
                continue
            for word in dict.fromkeys(words_of(task)[1]):
                path = _opened(kernel.prog, word, entry) if is_kernels(word) and not word % 8 else None
                if path is not None:
                    yield task_value(task), path
                    break


def _opened(prog: drgn.Program, word: int, entry: int) -> str | None:
    """Return the name of a struct file that leads to an entry of debugfs or procfs; None where it is none of it."""
    with contextlib.suppress(*READ_ERRORS):
        file = drgn.Object(prog, "struct file *", word)
        dentry = file.f_path.dentry
        # d_inode leads back to the file's: what is no file is passed over.
        if not dentry or dentry.d_inode.value_() != file.f_inode.value_():
            return None
        if dentry.d_fsdata.value_() == entry:
            name: bytes = dentry.d_name.name.string_()[:255]
            return "/sys/kernel/debug/.../" + name.decode("utf-8", "backslashreplace")
        inside = drgn.offsetof(prog.type("struct proc_inode"), "vfs_inode")
        proc = drgn.Object(prog, "struct proc_inode *", file.f_inode.value_() - inside)
        if proc.pde.value_() == entry:
            return ""
    return None
