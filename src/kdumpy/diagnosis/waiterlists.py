"""Lists of waiters: each waiter lies on the stack of its own task, the head in the thing that is waited for."""

from __future__ import annotations

from collections.abc import Iterator

import drgn

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
