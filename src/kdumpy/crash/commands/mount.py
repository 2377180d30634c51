"""`mount`: the mounted file systems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.fs import for_each_file, for_each_mount, inode_path, mount_dst, mount_fstype, mount_src
from drgn.helpers.linux.list import list_for_each_entry

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.fileviews import OpenFile, open_file
from kdumpy.crash.session import Session
from kdumpy.crash.unread import Unread
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump
from kdumpy.kernel.tasks import task_objects

_DIRTY = ("I_DIRTY_SYNC", "I_DIRTY_DATASYNC", "I_DIRTY_PAGES")
"""Flags of an inode (include/linux/fs.h), that stand beside each other."""
_MOST = 1 << 20


@dataclass(frozen=True)
class DirtyInode:
    """An inode with changes that are not on the disk."""

    inode: int
    path: str


@dataclass(frozen=True)
class MountRow:
    """A mounted file system."""

    mount: int
    """Address of its struct mount."""
    superblock: int
    type: str
    device: str
    directory: str
    files: tuple[OpenFile, ...] = ()
    """With -f: open files, each once (`fd` is that of the first task that has it)."""
    dirty: tuple[DirtyInode, ...] = ()
    """With -i."""


class Mount(Command[MountRow]):
    """List the mounted file systems: all of the first process's namespace, or those that are named.

    Example:
        crash> mount /data
             MOUNT           SUPERBLK     TYPE   DEVNAME   DIRNAME
        ff26bcbcdf8a9280 ff26bcbcdfc76800 ext4   /dev/vda  /data
    """

    names = ("mount",)
    example = "mount"
    row = MountRow
    args = (
        Arg("which", nargs="*", metavar="WHICH",
            help="a directory, device or type; or the address of a mount, superblock, dentry or inode"),
        Arg("-n", dest="namespace", metavar="PID|TASK", help="of this task's namespace"),
        Arg("-f", dest="files", action="store_true", help="the files that tasks have open on each"),
        Arg("-i", dest="dirty", action="store_true", help="the dirty inodes of each"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[MountRow]:
        """Yield the mounts, in the order of the namespace's list."""
        space = session.task(options.namespace).nsproxy.mnt_ns.read_() if options.namespace else None
        found = False
        opened = _open_files(session) if options.files else {}
        unread = Unread("mounts")
        mounts = for_each_mount(session.prog if space is None else space)
        for mount, row in unread.rows(mounts, lambda mount: (mount, _row(mount))):
            if options.which and not any(_is_meant(session, mount, row, text) for text in options.which):
                continue
            found = True
            dirty = tuple(unread.all(_dirty(mount))) if options.dirty else ()
            yield MountRow(row.mount, row.superblock, row.type, row.device, row.directory,
                           tuple(opened.get(row.mount, {}).values()), dirty)
        unread.tell()
        if options.which and not found:
            raise NotInDump(f"nothing is mounted like {', '.join(options.which)}")

    def render(self, rows: Iterable[MountRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the mounts out as crash does."""
        header = "     MOUNT           SUPERBLK     TYPE   DEVNAME   DIRNAME"
        details = options.files or options.dirty
        for number, row in enumerate(rows):
            if details and number:
                yield ""
            if details or not number:
                yield header
            yield f"{row.mount:016x} {row.superblock:016x} {row.type:<6} {row.device:<9} {row.directory}"
            if options.files:
                yield "OPEN FILES" if row.files else "OPEN FILES: (none)"
                if row.files:
                    yield "     DENTRY            INODE       TYPE  PATH"
                yield from (f"{file.dentry:016x}  {file.inode:016x}  {file.type:<4}  {file.path}" for file in row.files)
            if options.dirty:
                yield "DIRTY INODES" if row.dirty else "DIRTY INODES: (none)"
                yield from (f"{one.inode:016x}  {one.path}".rstrip() for one in row.dirty)


def _row(mount: drgn.Object) -> MountRow:
    kind, device, directory = (read(mount).decode("utf-8", "backslashreplace")
                               for read in (mount_fstype, mount_src, mount_dst))
    return MountRow(mount.value_(), mount.mnt.mnt_sb.value_(), kind, device, directory)


def _is_meant(session: Session, mount: drgn.Object, row: MountRow, text: str) -> bool:
    if text in (row.directory, row.device, row.type):
        return True
    try:
        address = int(text, 16)
    except ValueError:
        return False
    if address in (row.mount, row.superblock, mount.mnt.address_of_().value_()):
        return True
    for kind, member in (("struct dentry *", "d_sb"), ("struct inode *", "i_sb")):
        try:
            if drgn.Object(session.prog, kind, value=address).member_(member).value_() == row.superblock:
                return True
        except drgn.FaultError:
            continue
    return False


def _open_files(session: Session) -> dict[int, dict[int, OpenFile]]:
    """Return the files that tasks have open, by the mount's address and the file's."""
    found: dict[int, dict[int, OpenFile]] = {}
    count = 0
    mount_at = drgn.offsetof(session.prog.type("struct mount"), "mnt")
    for task in task_objects(session.prog):
        try:
            for fd, file in for_each_file(task) if task.files else ():
                count += 1
                if not file or count > _MOST:
                    continue
                mount = file.f_path.mnt.value_() - mount_at
                found.setdefault(mount, {}).setdefault(file.value_(), open_file(fd, file))
        except READ_ERRORS:
            continue
    return found


def _dirty_flags(prog: drgn.Program) -> int:
    """Return the bits of an inode's state that mean it is dirty.

    Source: include/linux/fs.h. They began at bit 0, and at bit 3 since "fs: reorder i_state bits" and "inode: make
    i_state a u32" (6.12); later kernels have an enum for them.
    """
    try:
        return sum(prog.constant(name).value_() for name in _DIRTY)
    except LookupError:
        wide = drgn.sizeof(prog.type("struct inode").member("i_state").type) == 8
        return 0b111 if wide else 0b111 << 3


def _dirty(mount: drgn.Object) -> Iterator[DirtyInode]:
    flags = _dirty_flags(mount.prog_)
    for inode in list_for_each_entry("struct inode", mount.mnt.mnt_sb.s_inodes.address_of_(), "i_sb_list"):
        state = inode.i_state
        # "fs: provide accessors for ->i_state" (6.19): a structure around the number.
        if int(state.member_("__state") if state.type_.kind == drgn.TypeKind.STRUCT else state) & flags:
            try:
                path = (inode_path(inode) or b"").decode("utf-8", "backslashreplace")
            except READ_ERRORS:
                path = ""
            yield DirtyInode(inode.value_(), path)


COMMAND = Mount()
