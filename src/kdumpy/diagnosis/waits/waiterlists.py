"""Lists of waiters: each waiter lies on the stack of its own task, the head in the thing that is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import drgn

from kdumpy.diagnosis.memory import is_kernels
from kdumpy.kernel import Kernel

MOST_WAITERS = 4096
"""Waiters in one list; one that is longer goes in circles."""


def ring(prog: drgn.Program, address: int) -> Iterator[int]:
    """Yield the nodes of a list, from the one behind `address`; ends where it is damaged."""
    node, seen = address, {address}
    for _ in range(MOST_WAITERS):
        try:
            following = prog.read_u64(node)
            if prog.read_u64(following + 8) != node or following in seen:
                return
        except drgn.FaultError:             # no list: the word on the stack was something else's
            return
        yield following
        seen.add(following)
        node = following


def list_head(kernel: Kernel, link: int, task_offset: int) -> int:
    """Follow a waiter's list to the one node that is not on the stack of its own task; 0 if there is none.

    Args:
        kernel: the opened dump.
        link: address of a waiter's node in the list.
        task_offset: bytes from a waiter's node to its pointer to the task.
    """
    return next((node for node in ring(kernel.prog, link) if not _is_waiter(kernel, node, task_offset)), 0)


def _is_waiter(kernel: Kernel, node: int, task_offset: int) -> bool:
    try:
        task = kernel.task_object(kernel.prog.read_u64(node + task_offset))
        stack = task.stack.value_()
    except drgn.FaultError:
        return False
    return bool(stack <= node < stack + kernel.stack_size)


def lock_of_waiters(prog: drgn.Program, lock: drgn.Type, waiters: Iterable[int],
                    stack: tuple[int, Sequence[int]]) -> int:
    """Find a lock among the words of a stack: the one whose first waiter is in a list with one of ours; 0 if none is.

    Locks have no list head, but a pointer to their first waiter, since 7.1.

    Args:
        prog: the kernel.
        lock: the lock's type, which has a member `first_waiter`.
        waiters: addresses of waiters on a stack, whose list nodes are their first members.
        stack: address and 64-bit words of that stack. A lock is not looked for on it: what was saved there of a
            waiter's address looks like one.
    """
    nodes = set(waiters)
    for address in tuple(nodes):
        nodes.update(ring(prog, address))
    offset = drgn.offsetof(lock, "first_waiter")
    begin, words = stack
    for word in dict.fromkeys(words):
        if is_kernels(word) and not begin <= word < begin + 8 * len(words):
            try:
                if prog.read_u64(word + offset) in nodes:
                    return word
            except drgn.FaultError:
                continue
    return 0
