"""`files`: the open files of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import drgn
from drgn.helpers.linux.fs import address_space_for_each_page, d_path, for_each_file, inode_path
from drgn.helpers.linux.mm import page_to_pfn
from drgn.helpers.linux.mmzone import for_each_online_pgdat

from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.commands.bt import header
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump
from kdumpy.kernel.taskreader import task_value

_MOST = 1 << 20
"""Files of one task."""
_KEPT = 4096
"""Files of a table that is kept for other threads."""
# Source: include/uapi/linux/stat.h, the file types of i_mode.
_TYPES = {0o010000: "FIFO", 0o020000: "CHR", 0o040000: "DIR", 0o060000: "BLK", 0o100000: "REG", 0o120000: "LNK",
          0o140000: "SOCK"}


@dataclass(frozen=True)
class OpenFile:
    """An open file."""

    fd: int
    file: int
    """Address of its struct file."""
    dentry: int
    inode: int
    type: str
    """REG, DIR, CHR, BLK, FIFO, SOCK, LNK; UNKN for another."""
    path: str


@dataclass(frozen=True)
class FilesRow:
    """A task and its files."""

    pid: int
    task: int
    cpu: int
    command: str
    root: str
    cwd: str
    files: tuple[OpenFile, ...]
    problem: str
    """What could not be read; empty when all is there."""


@dataclass(frozen=True)
class NodeRow:
    """How many pages of a file's cache lie on a NUMA node."""

    inode: int
    node: int
    pages: int


class Files(Command[Any]):
    """List the open files of a task: of the context, if no other is named.

    Example:
        crash> files 1
        PID: 1        TASK: ff29ecb5011f0000  CPU: 1    COMMAND: "init"
        ROOT: /    CWD: /
        FD        FILE             DENTRY            INODE       TYPE  PATH
         0  ff29ecb5026f2800  ff29ecb5020adb40  ff29ecb5013ec9c0  CHR   /dev/console
    """

    names = ("files",)
    example = "files 1"
    row = FilesRow
    args = (
        Arg("tasks", nargs="*", metavar="PID|TASK", help="process ids, or addresses of task_structs"),
        Arg("-R", dest="reference", metavar="TEXT", help="only files with this path, or of this address or number"),
        Arg("-n", dest="nodes", metavar="INODE", help="on which NUMA nodes the cached pages of an inode lie"),
        Arg("-c", engine=True, help="how many pages of each are in the cache (drgn)"),
        Arg("-d", engine=True, help="what lies behind a dentry (drgn)"),
        Arg("-p", engine=True, help="the cached pages of an inode (drgn)"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield a row a task, or with -n a row a node."""
        if options.nodes:
            yield from _nodes(session, session.address(options.nodes))
            return
        for task in session.tasks_of(options.tasks):
            row = _row(session, task, options.reference)
            if row.files or not options.reference:
                yield row

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay the files out as crash does."""
        if options.nodes:
            found = list(rows)
            yield "     INODE        NRPAGES"
            yield f"{found[0].inode:016x} {sum(row.pages for row in found):>8}"
            yield ""
            yield "NODE           PAGES"
            yield from (f"{row.node:>3} {row.pages:>17}" for row in found)
            return
        for number, row in enumerate(rows):
            if number:
                yield ""
            yield header(row.pid, row.task, row.cpu, row.command)
            yield f"ROOT: {row.root}    CWD: {row.cwd}"
            if not row.files:
                yield "No open files"
            else:
                yield from columns(
                    ("FD", "      FILE", "     DENTRY", "     INODE", "TYPE", "PATH"),
                    ((f"{file.fd:>2}", f"{file.file:016x}", f"{file.dentry:016x}", f"{file.inode:016x}", file.type,
                      file.path) for file in row.files), "><<<<<")
            if row.problem:
                yield f"({row.problem})"


def _nodes(session: Session, address: int) -> Iterator[NodeRow]:
    """Yield how many cached pages of an inode lie on each node.

    Raises:
        NotInDump: that is no inode.
    """
    inode = drgn.Object(session.prog, "struct inode *", value=address)
    mapping = inode.i_mapping.read_()
    if not mapping or mapping.host != inode:
        raise NotInDump(f"there is no inode at {address:016x}", why="its mapping does not lead back to it")
    extents = [(node.node_id.value_(), node.node_start_pfn.value_(), node.node_spanned_pages.value_())
               for node in for_each_online_pgdat(session.prog)]
    counts = dict.fromkeys((node for node, _, _ in extents), 0)
    for _, page in address_space_for_each_page(mapping):
        pfn = page_to_pfn(page).value_()
        for node, first, count in extents:
            if first <= pfn < first + count:
                counts[node] += 1
                break
    yield from (NodeRow(address, node, pages) for node, pages in counts.items())


def _row(session: Session, task: drgn.Object, reference: str | None) -> FilesRow:
    root = cwd = ""
    problem = ""
    files: tuple[OpenFile, ...] = ()
    of = task_value(task)
    try:
        if task.fs:
            root, cwd = _text(d_path(task.fs.root)), _text(d_path(task.fs.pwd))
        table = task.files.value_()
        if table:
            files, problem = session.open_files.get(table, lambda: _files(task), keep=_is_short)
    except READ_ERRORS as error:
        problem = f"not all can be read: {error}"
    if reference is not None:
        files = tuple(file for file in files if reference in (file.path, str(file.fd), f"{file.file:x}",
                                                              f"{file.dentry:x}", f"{file.inode:x}"))
    return FilesRow(of.pid, of.address, of.cpu, of.comm, root, cwd, files, problem)


def _is_short(known: tuple[tuple[OpenFile, ...], str]) -> bool:
    return len(known[0]) <= _KEPT


def _files(task: drgn.Object) -> tuple[tuple[OpenFile, ...], str]:
    """Return the open files of a task, and why they are not all; empty when they are."""
    files: list[OpenFile] = []
    try:
        for fd, file in for_each_file(task):
            if not file:        # a number that was taken for a file that is not open yet: accept() waits
                continue
            files.append(open_file(fd, file))
            if len(files) >= _MOST:
                return tuple(files), f"cut after {_MOST} files"
    except READ_ERRORS as error:
        return tuple(files), f"not all can be read: {error}"
    return tuple(files), ""


def open_file(fd: int, file: drgn.Object) -> OpenFile:
    """Read a `struct file *`; a path that cannot be read stays empty."""
    dentry = file.f_path.dentry
    inode = file.f_inode
    kind, path = "UNKN", ""
    try:
        kind = _TYPES.get(inode.i_mode.value_() & 0o170000, "UNKN")
        path = _text(d_path(file.f_path))
        if not path:
            path = _text(inode_path(inode) or b"")
    except READ_ERRORS:
        pass            # the entry is worth showing without its path
    return OpenFile(fd, file.value_(), dentry.value_(), inode.value_(), kind, path)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


COMMAND = Files()
