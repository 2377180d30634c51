"""Lists that run in a circle: drgn's helpers follow them for ever; here they end with an error.

The kernel never has such a list, a damaged dump may. drgn's commands go through the functions
named here, so that guarding these ends them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib import import_module

import drgn

from kdumpy.errors import DamagedDump

_FOLLOWERS = {
    "drgn.helpers.linux.list": ("list_for_each", "list_for_each_reverse", "hlist_for_each"),
    "drgn.helpers.linux.llist": ("llist_for_each",),
    "drgn.helpers.linux.list_nulls": ("hlist_nulls_for_each_entry",),
    "drgn.helpers.linux.rbtree": ("rbtree_inorder_for_each",),
}
"""The generators of each module that its other helpers are made of."""

Follower = Callable[..., Iterator[drgn.Object]]


def guard_lists() -> None:
    """Let drgn's list helpers raise `DamagedDump` where a list comes back to an entry it has had."""
    for module_name, names in _FOLLOWERS.items():
        module = import_module(module_name)
        for name in names:
            follower = getattr(module, name)
            if not hasattr(follower, "_ends"):
                setattr(module, name, ending(follower))


def ending(follower: Follower) -> Follower:
    """Return a generator of addresses that finds a circle in at most three times its length.

    Brent's algorithm: the entry to come back to is taken anew after 1, 2, 4, 8, ... steps.
    """
    @functools.wraps(follower)
    def follow(*arguments: object, **options: object) -> Iterator[drgn.Object]:
        mark, steps, limit = None, 0, 1
        for entry in follower(*arguments, **options):
            address = entry.value_()
            if address == mark:
                raise DamagedDump("a list runs in a circle", where=f"address {address:#x}")
            steps += 1
            if steps == limit:
                mark, steps, limit = address, 0, limit * 2
            yield entry

    follow._ends = True     # type: ignore[attr-defined]  # so that it is guarded once
    return follow
