"""`fuser`: which tasks use a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.fs import d_path, for_each_file
from drgn.helpers.linux.mm import for_each_vma

from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.commands.ps import all_tasks
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump

_MOST = 1 << 20
"""Files and areas of one task."""


@dataclass(frozen=True)
class UserRow:
    """A task that uses the file."""

    pid: int
    task: int
    command: str
    usage: tuple[str, ...]
    """root, cwd, fd, mmap."""
    fds: tuple[int, ...]


class Fuser(Command[UserRow]):
    """Show the tasks that use a file or a socket: as root or working directory, open, or mapped.

    Example:
        crash> fuser /dev/console
        PID        TASK        COMM     USAGE
          1  ff390e1a811f4180  "init"   fd
    """

    names = ("fuser",)
    example = "fuser /dev/console"
    row = UserRow
    args = (Arg("file", metavar="PATH|INODE", help="the path, or the inode's address in hexadecimal"),)

    def rows(self, session: Session, options: Options) -> Iterator[UserRow]:
        """Yield the tasks; one whose files cannot all be read counts by what can."""
        inode = None
        if not options.file.startswith("/"):
            inode = session.address(options.file)
        found, unread = False, 0
        for task in all_tasks(session):
            try:
                row, whole = _user(task, options.file, inode)
            except READ_ERRORS:
                unread += 1
                continue
            unread += not whole
            if row is not None:
                found = True
                yield row
        if unread:
            raise NotInDump(f"the files of {unread} tasks are not all in the dump")
        if not found:
            raise NotInDump(f"no task uses {options.file}")

    def render(self, rows: Iterable[UserRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the tasks out as crash does."""
        yield from columns(("PID", "      TASK", "COMM", "USAGE"),
                           ((f"{row.pid:>4}", f"{row.task:016x}", f'"{row.command}"', " ".join(row.usage))
                            for row in rows), "><<<")


def _user(task: drgn.Object, path: str, inode: int | None) -> tuple[UserRow | None, bool]:
    """Return how a task uses the file, or None; and whether all could be read."""
    usage: list[str] = []
    fds: list[int] = []
    whole = True

    def same(place: drgn.Object) -> bool:
        nonlocal whole
        try:
            if inode is not None:
                return bool(place.dentry.d_inode.value_() == inode)
            return d_path(place) == path.encode()
        except READ_ERRORS:
            whole = False
            return False

    if task.fs:
        usage += [name for name, place in (("root", task.fs.root), ("cwd", task.fs.pwd)) if same(place)]
    if task.files:
        try:
            for fd, file in for_each_file(task):
                if file and same(file.f_path):
                    fds.append(fd)
                if fd > _MOST:
                    break
        except READ_ERRORS:
            whole = False
    if fds:
        usage.append("fd")
    if task.mm:
        try:
            for number, vma in enumerate(for_each_vma(task.mm)):
                if vma.vm_file and same(vma.vm_file.f_path):
                    usage.append("mmap")
                    break
                if number > _MOST:
                    break
        except READ_ERRORS:
            whole = False
    if not usage:
        return None, whole
    return UserRow(task.pid.value_(), task.value_(), task.comm.string_().decode("utf-8", "backslashreplace"),
                   tuple(usage), tuple(fds)), whole


COMMAND = Fuser()
