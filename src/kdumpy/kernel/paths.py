"""Paths of files, as drgn's d_path() gives them: each directory read once, a circle of parents told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import drgn

from kdumpy.errors import DamagedDump

_CACHE = "kdumpy.paths"
_MOST = 100_000
"""Directories and files that are remembered."""
_LONGEST_NAME = 256
"""NAME_MAX, and the NUL behind it."""
_LONGEST_KEPT = 4096
"""PATH_MAX: what lies below a longer one is not remembered, for each directory of it would be as long."""
_DEEPEST = 16_384
"""Directories and mounts of one path; a process can make more than PATH_MAX has room for, one below the other."""


class Paths:
    """The mounts and directories of one dump that were read so far."""

    def __init__(self, prog: drgn.Program) -> None:
        """Find where the members lie.

        Raises:
            LookupError: the kernel has no such structures, or not these members.
        """
        self.prog = prog
        dentry, mount = prog.type("struct dentry"), prog.type("struct mount")
        self._parent, self._name, self._operations = (
            drgn.offsetof(dentry, name) for name in ("d_parent", "d_name.name", "d_op"))
        self._shows_itself = drgn.offsetof(prog.type("struct dentry_operations"), "d_dname")
        self._inner, self._outer, self._point = (
            drgn.offsetof(mount, name) for name in ("mnt", "mnt_parent", "mnt_mountpoint"))
        self._root = drgn.offsetof(prog.type("struct vfsmount"), "mnt_root")
        self._known: dict[tuple[int, int], bytes] = {}
        self._naming: dict[int, bool] = {}

    def of(self, vfsmount: int, dentry: int) -> bytes:
        """Return the path of a dentry below a mount; `[pipefs]` and the like for what has none.

        Raises:
            DamagedDump: the parents, or the mounts, lead back to where they came from, or never end.
            drgn.FaultError: the dump lacks a page of them.
        """
        try:
            return self._of(vfsmount, dentry)
        except OverflowError:
            raise DamagedDump("a path leads to what is no address", where=f"dentry {dentry:#x}") from None

    def _of(self, vfsmount: int, dentry: int) -> bytes:
        operations = self.prog.read_u64(dentry + self._operations)
        if operations:
            if operations not in self._naming:
                self._naming[operations] = bool(self.prog.read_u64(operations + self._shows_itself))
            if self._naming[operations]:
                found = drgn.Object(self.prog, "struct dentry *", value=dentry)
                return b"[" + bytes(found.d_inode.i_sb.s_type.name.string_()) + b"]"
        return self._walk(vfsmount - self._inner, dentry) or b"/"

    def _walk(self, mount: int, dentry: int) -> bytes:
        """Go up to the first directory that is known; note the way down from it. Source: fs/d_path.c."""
        read = self.prog.read_u64
        way: dict[tuple[int, int], bytes] = {}
        path = b""
        while (mount, dentry) not in self._known:
            if (mount, dentry) in way:
                raise DamagedDump("the directories of a path run in a circle", where=f"dentry {dentry:#x}")
            here = mount, dentry
            if len(way) == _DEEPEST:
                raise DamagedDump("the directories of a path do not end", where=f"dentry {dentry:#x}",
                                  why=f"there are more than {_DEEPEST}")
            way[here] = b""
            if dentry == read(mount + self._inner + self._root):
                outer = read(mount + self._outer)
                if outer == mount:
                    break
                mount, dentry = outer, read(mount + self._point)
                continue
            parent = read(dentry + self._parent)
            if parent == dentry:
                break
            name = self.prog.read_c_string(read(dentry + self._name), max_size=_LONGEST_NAME)
            way[here], dentry = b"/" + name, parent
        else:
            path = self._known[mount, dentry]
        if len(self._known) + len(way) > _MOST:
            self._known.clear()
        beyond = []
        for here, name in reversed(way.items()):
            if len(path) > _LONGEST_KEPT:
                beyond.append(name)
                continue
            path += name
            self._known[here] = path
        return path + b"".join(beyond)


def bounded(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a substitute for drgn's d_path(); a dentry without a mount is left to the original."""
    @functools.wraps(original)
    def d_path(place: drgn.Object, dentry: drgn.Object | None = None) -> bytes:
        prog = place.prog_
        try:
            paths = prog.cache.get(_CACHE) or prog.cache.setdefault(_CACHE, Paths(prog))
            if dentry is not None:
                return bytes(paths.of(place.value_(), dentry.value_()))
            where = place.mnt.value_(), place.dentry.value_()
        except (AttributeError, LookupError):
            return bytes(original(place) if dentry is None else original(place, dentry))
        return bytes(paths.of(*where))

    return d_path
