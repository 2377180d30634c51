"""`tree`: red-black trees, radix trees, XArrays, maple trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.xarray import xa_for_each

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.struct import find_type, offset_of, struct_text
from kdumpy.crash.failures import UNKNOWN
from kdumpy.crash.session import Session
from kdumpy.errors import DamagedDump, NotInDump, UsageError
from kdumpy.kernel import maple
from kdumpy.kernel.maple import MapleNode

_DEEPEST = 128
"""Twice the height of a red-black tree with 2^64 nodes."""
_KINDS = {"rb": "rbtree", "rbtree": "rbtree", "ra": "radix", "radix": "radix", "x": "xarray", "xarray": "xarray",
          "m": "maple", "maple": "maple"}


@dataclass(frozen=True)
class NodeRow:
    """An entry of a tree."""

    address: int
    """Of the structure that holds the node, or of the entry."""
    position: str
    """root/l/r: how a red-black tree's node is reached; the index in an XArray; root/3/1, the slots of a maple tree."""
    text: str
    """Its members, with -s."""
    index: int | None = None
    """The first index of an entry of a maple tree."""
    node: MapleNode | None = None
    """With -v: a node of a maple tree, in place of an entry."""


class Tree(Command[NodeRow]):
    """Go through a tree: each entry's address, with -s its members, with -p where in the tree it stands.

    A node that leads back to one above it, or to where no memory is, ends the walk with where and why.

    Example:
        crash> tree -p -t rbtree -o vmap_area.rb_node vmap_area_root
        ff390e1a812fa200
          position: root
        ff390e1a8103fec0
          position: root/l
    """

    names = ("tree",)
    example = "tree -p -t rbtree -o vmap_area.rb_node vmap_area_root"
    row = NodeRow
    args = (
        Arg("start", metavar="START", help="the tree's root: an address, or a symbol; with -N a node"),
        Arg("-t", dest="kind", default="rbtree", choices=sorted(_KINDS), help="rbtree if not given"),
        Arg("-r", dest="root", metavar="OFFSET", help="the root lies this far in the structure at START: bytes, "
            "or STRUCT.MEMBER"),
        Arg("-o", dest="offset", metavar="OFFSET", help="where the node lies in each entry"),
        Arg("-s", dest="struct", metavar="STRUCT[.MEMBER,…]", help="show each entry as this structure"),
        Arg("-S", dest="struct", metavar="STRUCT[.MEMBER,…]", help="the same"),
        Arg("-l", dest="linear", action="store_true", help="in the order of the entries; else each node first"),
        Arg("-p", dest="position", action="store_true", help="where in the tree each entry stands"),
        Arg("-v", dest="nodes", action="store_true", help="what each node of a maple tree holds, before its entries"),
        Arg("-N", dest="node", action="store_true", help="START is a node and not a root"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[NodeRow]:
        """Yield the entries."""
        start = session.address(options.start) + offset_of(session, options.root)
        kind = _KINDS[options.kind]
        shown = _Shown(session, options)
        if options.nodes and kind != "maple":
            raise UsageError("-v is for maple trees", mend="-t maple")
        if kind == "maple":
            try:
                session.prog.type("struct maple_tree")
            except LookupError:
                raise NotInDump("no maple trees are known", why=UNKNOWN) from None
            yield from _maple(session, start, shown, options)
            return
        if kind == "rbtree":
            node = start if options.node else int(session.prog.read_u64(start))
            at = offset_of(session, options.offset)
            for address, position in _red_black(session, node, "root", options.linear):
                yield NodeRow(address - at, position, shown.text(address - at))
            return
        if options.node:
            raise UsageError("-N is for red-black trees here", mend="give the xarray or radix_tree_root itself")
        root = drgn.Object(session.prog, "struct xarray *", value=start)
        for index, entry in xa_for_each(root):
            yield NodeRow(entry.value_(), str(index), shown.text(entry.value_()))

    def render(self, rows: Iterable[NodeRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the entries out as crash does."""
        count = 0
        for row in rows:
            if row.node is not None:
                yield _node_line(row.node)
                continue
            count += 1
            yield f"{row.address:x}"
            if options.position and row.index is not None:
                yield f"  index: {count}  position: {row.position}"         # crash counts the entries
            elif options.position:
                yield f"  position: {row.position}" if not row.position.isdecimal() else f"  index: {row.position}"
            if row.text:
                yield row.text


def _maple(session: Session, start: int, shown: _Shown, options: Options) -> Iterator[NodeRow]:
    if options.node:
        root = start
    else:
        tree = drgn.Object(session.prog, "struct maple_tree *", value=start)
        root = tree.ma_root.value_()
        if root and not maple.is_node(root):        # a single entry, at index 0
            yield NodeRow(root, "root", shown.text(root), 0)
            return
    for node in maple.nodes(session.prog, root):
        position = "/".join(map(str, ("root", *node.path)))
        if options.nodes:
            yield NodeRow(node.address, position, "", None, node)
        for number, first, _, entry in node.extents() if node.leaf else ():
            if entry:
                yield NodeRow(entry, f"{position}/{number}", shown.text(entry), first)


def _node_line(node: MapleNode) -> str:
    """Return a node in the layout of crash and the kernel (mt_dump_node)."""
    pairs = " ".join(f"{slot:#x} {pivot}" for slot, pivot in zip(node.slots, node.pivots, strict=False))
    contents = f"{pairs} {node.slots[-1]:#x}"
    if node.gaps:
        contents = f"{' '.join(map(str, node.gaps))} | {node.end:02X} {node.widest:02X}| {contents}"
    return (f"{'  ' * len(node.path)}{node.first}-{node.last}: node {node.address:#x} depth {len(node.path)} "
            f"type {node.kind} parent {node.parent:#x} contents: {contents}")


class _Shown:
    """How an entry is shown."""

    def __init__(self, session: Session, options: Options) -> None:
        self.session = session
        self.radix = options.radix
        name, _, members = (options.struct or "").partition(".")
        self.type = find_type(session, name) if name else None
        self.members = [member for member in members.split(",") if member]

    def text(self, address: int) -> str:
        """Return an entry's members; empty when none are wanted."""
        if self.type is None:
            return ""
        value = drgn.Object(self.session.prog, self.type, address=address)
        return struct_text(self.session, value, self.members, self.radix)


def _red_black(session: Session, node: int, position: str, linear: bool) -> Iterator[tuple[int, str]]:
    """Yield (node, position) of a tree: each node before its children, or in order.

    Source: include/linux/rbtree_types.h: parent and colour, right, left.
    """
    # (node, position, whether its left side is done); a stack of ours, for trees that damage has made deep.
    waiting = [(node, position, False)] if node else []
    seen: set[int] = set()
    while waiting:
        node, position, done = waiting.pop()
        if done:
            yield node, position
            continue
        if node in seen:
            raise DamagedDump("the tree leads back to a node it has had", where=f"address {node:016x}",
                              why=f"at {position}, after {len(seen)} nodes")
        if position.count("/") > _DEEPEST:
            raise DamagedDump("the tree is deeper than any can be", where=f"address {node:016x}")
        seen.add(node)
        right, left = (int(session.prog.read_u64(node + at)) for at in (8, 16))
        if right:
            waiting.append((right, f"{position}/r", False))
        if linear:
            waiting.append((node, position, True))
        else:
            yield node, position
        if left:
            waiting.append((left, f"{position}/l", False))


COMMAND = Tree()
