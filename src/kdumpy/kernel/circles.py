"""Lists and trees that run in a circle: drgn's helpers follow them for ever; here they end with an error.

The kernel never has such a list, a damaged dump may; nor a mask of thousands of millions of CPUs. drgn's commands go
through the functions named here, so that guarding these ends them all.
"""

from __future__ import annotations

import functools
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import drgn
from drgn.helpers.linux.bitops import for_each_set_bit

from kdumpy.debuginfo import lists
from kdumpy.errors import DamagedDump
from kdumpy.kernel import maple, paths

_FOLLOWERS = {
    "drgn.helpers.linux.llist": ("llist_for_each",),
    "drgn.helpers.linux.list_nulls": ("hlist_nulls_for_each_entry",),
}
"""The generators of each module that its other helpers are made of."""

_DEEPEST = 128
"""Twice the height of a red-black tree with 2^64 nodes."""
_NODE = struct.Struct("<QQQ")
"""struct rb_node: __rb_parent_color, rb_right, rb_left."""
_ZERO_ENTRY = 1030
"""XA_ZERO_ENTRY: an index that is reserved."""
_LEVELS = 16
"""More than any XArray of 64-bit indices has: 11."""

Follower = Callable[..., Iterator[drgn.Object]]


def guard_lists() -> None:
    """Let drgn's helpers raise `DamagedDump` where a list or tree comes back to an entry it has had."""
    guarded: dict[str, tuple[object, Any]] = {}
    for module_name, names in _FOLLOWERS.items():
        module = import_module(module_name)
        for name in names:
            follower = getattr(module, name)
            if not hasattr(follower, "_ends"):
                guarded[name] = follower, ending(follower)
    for module_name, substitutes in _SUBSTITUTES.items():
        module = import_module(module_name)
        for name, made in substitutes.items():
            original = getattr(module, name)
            if not hasattr(original, "_ends"):
                guarded[name] = original, made(original)
    if guarded:
        _replace(guarded)


def _replace(guarded: Mapping[str, tuple[object, Any]]) -> None:
    """Put functions in the place of others, where other modules, a user's script too, have taken them by name."""
    for _, substitute in guarded.values():
        substitute._ends = True         # so that it is guarded once
    for module in list(sys.modules.values()):
        known = getattr(module, "__dict__", {})
        for name in guarded.keys() & known.keys():
            original, substitute = guarded[name]
            if known[name] is original:
                setattr(module, name, substitute)


def ending(follower: Follower) -> Follower:
    """Return a generator of addresses that finds a circle in at most three times its length, and a pointer to nowhere.

    Brent's algorithm: the entry to come back to is taken anew after 1, 2, 4, 8, ... steps.
    """
    @functools.wraps(follower)
    def follow(*arguments: Any, **options: Any) -> Iterator[drgn.Object]:
        mark, steps, limit, count, before = None, 0, 1, 0, 0
        head = next((each for each in arguments if isinstance(each, drgn.Object)), None)
        address = 0
        try:
            for entry in follower(*arguments, **options):
                address = entry.value_()
                if address == mark:
                    raise DamagedDump("a list runs in a circle", where=f"address {address:#x}")
                entry.prog_.read(address, 1)
                steps += 1
                if steps == limit:
                    mark, steps, limit = address, 0, limit * 2
                count += 1
                yield entry
                before = address
        except drgn.FaultError as error:
            if head is None:
                raise
            start = head.value_() if isinstance(head.value_(), int) else 0
            raise lists.broken(start, head.prog_, count, before, error.address, "is not in the dump") from None

    follow._ends = True     # type: ignore[attr-defined]  # so that it is guarded once
    return follow


def _list_in_bounds(*, reverse: bool) -> Callable[[Any], Follower]:
    """Return a maker of list_for_each, or of list_for_each_reverse, that gives all that can be read."""
    def made(original: Any) -> Follower:
        @functools.wraps(original)
        def follow(head: drgn.Object) -> Iterator[drgn.Object]:
            prog, kind = head.prog_, head.next.type_
            for address in lists.list_entries(prog, head.value_(), reverse=reverse):
                yield drgn.Object(prog, kind, address)

        return follow

    return made


def _hlist_in_bounds(original: Any) -> Follower:
    """Guard hlist_for_each."""
    @functools.wraps(original)
    def follow(head: drgn.Object) -> Iterator[drgn.Object]:
        prog, kind = head.prog_, head.first.type_
        for address in lists.hlist_entries(prog, head.value_()):
            yield drgn.Object(prog, kind, address)

    return follow


def _in_order(original: Any) -> Follower:
    """Guard rbtree_inorder_for_each: what hangs below a pointer that is wrong is left out, and told at the end.

    Each node has one parent, and says which: so nothing is met twice. Source: include/linux/rbtree_types.h.
    """
    @functools.wraps(original)
    def follow(root: drgn.Object) -> Iterator[drgn.Object]:
        prog, kind = root.prog_, root.rb_node.type_
        problems: list[str] = []
        above: list[tuple[int, int]] = []       # nodes whose left side was taken, with their right sides
        count, parent, node = 0, 0, root.rb_node.value_()
        while node or above:
            while node:
                children = _children(prog, node, parent, problems) if len(above) < _DEEPEST else None
                if children is None:
                    break
                above.append((node, children[0]))
                parent, node = node, children[1]
            if not above:
                break
            parent, node = above.pop()
            count += 1
            yield drgn.Object(prog, kind, parent)
        if problems:
            raise DamagedDump("a red-black tree is damaged", where=f"tree at {root.value_():016x}",
                              why=f"{problems[0]}; {count} entries were read, and nothing below "
                                  f"{'that' if len(problems) == 1 else f'{len(problems)} such pointers'}")

    return follow


def _children(prog: drgn.Program, node: int, parent: int, problems: list[str]) -> tuple[int, int] | None:
    """Return a node's right and left child; None where it is none of its parent's."""
    place = f"{parent:016x}" if parent else "its root"
    try:
        above, right, left = _NODE.unpack(prog.read(node, _NODE.size))
    except drgn.FaultError:
        problems.append(f"{place} leads to {node:016x}, which is not in the dump")
        return None
    if above & ~3 != parent:
        problems.append(f"{place} leads to {node:016x}, which says that it hangs below {above & ~3:016x}")
        return None
    return right, left if left != right else 0


def _find_in_bounds(find: Callable[..., drgn.Object]) -> Callable[..., drgn.Object]:
    """Guard rb_find: it compares once a level."""
    @functools.wraps(find)
    def bounded(kind: Any, root: drgn.Object, member: str, key: Any, compare: Callable[..., int]) -> drgn.Object:
        levels = 0

        def counted(key: Any, entry: drgn.Object) -> int:
            nonlocal levels
            levels += 1
            if levels > _DEEPEST:
                raise _too_deep(entry.value_())
            return compare(key, entry)

        return find(kind, root, member, key, counted)

    return bounded


def _walk_in_bounds(first: str, second: str) -> Callable[[Any], Callable[[drgn.Object], drgn.Object]]:
    """Return a maker of rb_next (right, left) or rb_prev (left, right) that ends.

    Source: lib/rbtree.c, rb_next().
    """
    def made(original: Any) -> Callable[[drgn.Object], drgn.Object]:
        @functools.wraps(original)
        def walk(node: drgn.Object) -> drgn.Object:
            node = node.read_()
            below = getattr(node, first).read_()
            if below:
                return _furthest(below, second)
            for _ in range(_DEEPEST):
                parent = drgn.Object(node.prog_, node.type_, value=node.member_("__rb_parent_color").value_() & ~3)
                if not parent or parent == node:        # an empty node is its own parent
                    return drgn.NULL(node.prog_, node.type_)
                if node != getattr(parent, first):
                    return parent
                node = parent
            raise _too_deep(node.value_())

        return walk

    return made


def _end_in_bounds(side: str) -> Callable[[Any], Callable[[drgn.Object], drgn.Object]]:
    """Return a maker of rb_first (left) or rb_last (right) that ends."""
    def made(original: Any) -> Callable[[drgn.Object], drgn.Object]:
        @functools.wraps(original)
        def end(root: drgn.Object) -> drgn.Object:
            node = root.rb_node.read_()
            return _furthest(node, side) if node else node

        return end

    return made


def _furthest(node: drgn.Object, side: str) -> drgn.Object:
    for _ in range(_DEEPEST):
        below = getattr(node, side).read_()
        if not below:
            return node
        node = below
    raise _too_deep(node.value_())


def _too_deep(address: int) -> DamagedDump:
    return DamagedDump("a red-black tree is deeper than any can be", where=f"address {address:#x}",
                       why="it leads back to itself, or its nodes are damaged")


def _xarray_in_bounds(original: Any) -> Callable[..., Iterator[Any]]:
    """Guard xa_for_each: what stands before a circle is given."""
    @functools.wraps(original)
    def each(xa: drgn.Object, *, advanced: bool = False) -> Iterator[Any]:
        if not hasattr(xa, "xa_head"):          # a radix tree of before 4.20
            yield from original(xa, advanced=advanced)
            return
        for index, entry in xarray_entries(xa):
            if advanced or entry != _ZERO_ENTRY:
                yield index, drgn.Object(xa.prog_, "void *", entry)

    return each


def _xarray_first(original: Any) -> Callable[..., Any]:
    """Guard xa_load: nothing stops drgn's C code where the way leads back to itself."""
    @functools.wraps(original)
    def look(xa: drgn.Object, index: Any, *arguments: Any, **options: Any) -> Any:
        check_xarray(xa, int(index))
        return original(xa, index, *arguments, **options)

    return look


def _idr_first(original: Any) -> Callable[..., Any]:
    """Guard idr_find."""
    @functools.wraps(original)
    def look(idr: drgn.Object, number: Any) -> Any:
        try:
            tree = idr.idr_rt
        except AttributeError:
            return original(idr, number)        # before 4.11: drgn's Python code, which goes by levels
        base = idr.idr_base.value_() if hasattr(idr, "idr_base") else 0
        if int(number) >= base:
            check_xarray(tree, int(number) - base)
        return original(idr, number)

    return look


def xarray_entries(xa: drgn.Object, only: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield (index, entry) of an XArray (or radix tree since 4.20), or what stands on the way to one index.

    Source: include/linux/xarray.h: nodes are marked 2, siblings are small numbers of the same mark.

    Raises:
        DamagedDump: behind all that can be read, where it leads back to itself.
        drgn.FaultError: the same, where a node is not in the dump.
    """
    prog = xa.prog_
    made = prog.type("struct xa_node")
    shift_at, slots_at = drgn.offsetof(made, "shift"), drgn.offsetof(made, "slots")
    count = made.member("slots").type.length or 0
    seen: set[int] = set()
    problem: Exception | None = None        # the first
    waiting = [(int(xa.xa_head), 0, _LEVELS)]
    while waiting:
        entry, index, levels = waiting.pop()
        if not maple.is_node(entry):
            if (entry and entry & 3 != 2) or entry == _ZERO_ENTRY:
                yield index, entry
            continue
        node = entry - 2
        if node in seen or not levels:
            problem = problem or DamagedDump("an XArray leads back to a node it has had", where=f"address {node:#x}",
                                             why=f"after {len(seen)} nodes")
            continue
        seen.add(node)
        try:
            data = prog.read(node, slots_at + 8 * count)
        except drgn.FaultError as error:
            problem = problem or error
            continue
        slots, shift = memoryview(data)[slots_at:].cast("Q"), data[shift_at] & 63
        places = range(count - 1, -1, -1) if only is None else (only >> shift & count - 1,)
        waiting += [(slots[place], index + (place << shift), levels - 1) for place in places if slots[place]]
    if problem is not None:
        raise problem


def check_xarray(xa: drgn.Object, index: int) -> None:
    """Look whether the way to an index of an XArray ends.

    Raises:
        DamagedDump: it leads back to itself.
    """
    if hasattr(xa, "xa_head"):                  # else a radix tree of before 4.20
        for _ in xarray_entries(xa, index):
            pass


def _pid_first(original: Any) -> Callable[..., Any]:
    """Guard find_pid and find_task, which look the number up in the namespace's tree."""
    @functools.wraps(original)
    def find(*arguments: Any) -> Any:
        if arguments and isinstance(arguments[0], drgn.Object):
            space, pid = arguments[0], arguments[1]
        else:                   # (program, number), or the number alone, of the default program
            prog = arguments[0] if isinstance(arguments[0], drgn.Program) else drgn.get_default_prog()
            space, pid = prog["init_pid_ns"].address_of_(), arguments[-1]
        try:
            tree = space.idr.idr_rt
        except AttributeError:
            tree = None         # before 4.15: a hash table
        if tree is not None and int(pid) >= 0:
            check_xarray(tree, int(pid))
        return original(*arguments)

    return find


def _cpus_in_bounds(original: Callable[[drgn.Object], Iterator[int]]) -> Callable[[drgn.Object], Iterator[int]]:
    """Return a for_each_cpu() that does not go on behind its mask where nr_cpu_ids is thousands of millions."""
    @functools.wraps(original)
    def for_each_cpu(mask: drgn.Object) -> Iterator[int]:
        most = 8 * drgn.sizeof(mask.bits)
        try:
            count = int(mask.prog_["nr_cpu_ids"])
        except KeyError:        # a kernel for one CPU
            return original(mask)
        return for_each_set_bit(mask.bits, min(count, most))

    return for_each_cpu


_SUBSTITUTES: dict[str, dict[str, Callable[[Any], Any]]] = {
    "drgn.helpers.linux.list": {
        "list_for_each": _list_in_bounds(reverse=False), "list_for_each_reverse": _list_in_bounds(reverse=True),
        "hlist_for_each": _hlist_in_bounds},
    "drgn.helpers.linux.rbtree": {
        "rbtree_inorder_for_each": _in_order,
        "rb_find": _find_in_bounds, "rb_first": _end_in_bounds("rb_left"), "rb_last": _end_in_bounds("rb_right"),
        "rb_next": _walk_in_bounds("rb_right", "rb_left"), "rb_prev": _walk_in_bounds("rb_left", "rb_right"),
        "rbtree_preorder_for_each": ending,
    },
    "drgn.helpers.linux.cpumask": {"for_each_cpu": _cpus_in_bounds},
    "drgn.helpers.linux.fs": {"d_path": paths.bounded},
    "drgn.helpers.linux.mapletree": {
        "mtree_load": lambda _: maple.mtree_load, "mt_for_each": lambda _: maple.mt_for_each},
    "drgn.helpers.linux.xarray": {
        "xa_load": _xarray_first, "xa_for_each": _xarray_in_bounds},
    "drgn.helpers.linux.idr": {"idr_find": _idr_first},
    "drgn.helpers.linux.pid": {"find_pid": _pid_first, "find_task": _pid_first},
}
"""What takes the place of helpers that would not end, made of the original, by module and name."""
