"""A file of sysfs (of kernfs) that is removed while it is in use: who removes it waits for those who are in it.

A read or write of such a file holds an active reference on it; its removal waits until there are none. Code that
removes the file of which it is the store() or show() waits for itself; code that removes it with a lock held which
its store() or show() wants waits for that one, which waits for it.

Sources: fs/kernfs/dir.c (kernfs_drain, KN_DEACTIVATED_BIAS), fs/kernfs/file.c, fs/kernfs/kernfs-internal.h.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import drgn

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.memory import is_kernels
from kdumpy.kernel import Kernel
from kdumpy.kernel.tasks import task_objects

_DEACTIVATED = -(1 << 31) + 1
"""KN_DEACTIVATED_BIAS: added to `active` when a file is being removed."""
_MOST_USERS = 1 << 16
_DEEPEST = 32
_MOST_NAME = 255
_UNINTERRUPTIBLE = 2
"""TASK_UNINTERRUPTIBLE, include/linux/sched.h."""

Words = Callable[[drgn.Object], tuple[int, Sequence[int]]]
"""Returns (address, words) of the part of a sleeping task's stack that is in use."""


class FileWait(NamedTuple):
    """A file whose users are waited for."""

    node: int
    """struct kernfs_node."""
    path: str
    """`/sys/module/...`, or without the beginning where it is not of sysfs."""
    users: int
    """How many reads and writes are going on in it."""
    own: bool
    """The task that waits is in one of them itself."""


def file_wait(kernel: Kernel, queue: int, words: Sequence[int]) -> FileWait | None:
    """Return the file whose users a task waits for; None where it waits for something else.

    Args:
        kernel: the opened dump.
        queue: the wait queue that the task is in: all removals of a file system wait in one.
        words: the 64-bit words of the part of its stack that is in use.

    Raises:
        READ_ERRORS: the kernel's types do not have what is needed.
    """
    prog = kernel.prog
    root = queue - drgn.offsetof(prog.type("struct kernfs_root"), "deactivate_waitq")
    asked = [word for word in dict.fromkeys(words) if is_kernels(word) and not word % 8]
    found = next((item for item in _removed(prog, asked) if _root_of(item) == root), None)
    if found is None:
        return None
    own = any(_opens(prog, word, found.value_()) for word in asked)
    return FileWait(found.value_(), _path(prog, found, root), int(found.active.counter.value_()) - _DEACTIVATED, own)


def users_of(kernel: Kernel, node: int, words_of: Words) -> Iterator[drgn.Object]:
    """Yield the tasks that read or write a file, and sleep there so that nothing but what they wait for wakes them."""
    prog = kernel.prog
    for task in task_objects(prog):
        with contextlib.suppress(*READ_ERRORS):
            # 2f064a59a11f "sched: Change task_struct::state" (5.14)
            state = task.member_("__state" if task.type_.type.has_member("__state") else "state").value_()
            if state & _UNINTERRUPTIBLE and any(_opens(prog, word, node) for word in dict.fromkeys(words_of(task)[1])
                                                if is_kernels(word) and not word % 8):
                yield task


def _parent(node: drgn.Object) -> drgn.Object:
    # 633488947ef6 "kernfs: Use RCU to access kernfs_node::parent." (6.15)
    return node.parent if node.type_.type.has_member("parent") else node.member_("__parent")


def _removed(prog: drgn.Program, words: Sequence[int]) -> Iterator[drgn.Object]:
    """Yield the nodes among some words that are being removed and have users."""
    made = prog.type("struct kernfs_node *")
    active = drgn.offsetof(made.type, "active")
    for word in words:
        with contextlib.suppress(*READ_ERRORS):
            counter = prog.read_u32(word + active) - (1 << 32)
            if 0 < counter - _DEACTIVATED < _MOST_USERS:
                yield drgn.Object(prog, made, word)


def _root_of(node: drgn.Object) -> int:
    with contextlib.suppress(*READ_ERRORS):
        return int(_parent(node).dir.root.value_())
    return 0


def _opens(prog: drgn.Program, word: int, node: int) -> bool:
    """Tell whether a struct kernfs_open_file of this file lies at an address: its seq_file leads back to it."""
    made = prog.type("struct kernfs_open_file")
    with contextlib.suppress(drgn.FaultError):
        if prog.read_u64(word + drgn.offsetof(made, "kn")) != node:
            return False
        seq_file = prog.read_u64(word + drgn.offsetof(made, "seq_file"))
        return bool(word == prog.read_u64(seq_file + drgn.offsetof(prog.type("struct seq_file"), "private")))
    return False


def _path(prog: drgn.Program, node: drgn.Object, root: int) -> str:
    names: list[str] = []
    with contextlib.suppress(*READ_ERRORS):
        while node and len(names) < _DEEPEST:
            names.append(node.name.string_()[:_MOST_NAME].decode("utf-8", "backslashreplace"))
            node = _parent(node)
    path = "/".join(reversed([name for name in names if name]))
    with contextlib.suppress(*READ_ERRORS):
        if prog.read_u64(prog.symbol("sysfs_root").address) == root:
            return f"/sys/{path}"
    return path
