"""`files`: the open files of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import drgn
from drgn.helpers.linux.fs import address_space_for_each_page, d_path, for_each_file
from drgn.helpers.linux.mm import page_to_pfn
from drgn.helpers.linux.mmzone import for_each_online_pgdat

from kdumpy.crash import fileviews
from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.commands.bt import header
from kdumpy.crash.fileviews import CachedFile, OpenFile, in_path, open_file, text
from kdumpy.crash.recent import Last
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import UsageError
from kdumpy.kernel.taskreader import task_value

_MOST = 1 << 20
"""Files of one task."""
_KEPT = 4096
"""Files of a table that is kept for other threads."""


@dataclass(frozen=True)
class FilesRow:
    """A task and its files."""

    pid: int
    task: int
    cpu: int
    command: str
    root: str
    cwd: str
    files: tuple[OpenFile | CachedFile, ...]
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
        Arg("-R", dest="reference", metavar="TEXT", help="only files with this in their path, this address or number"),
        Arg("-n", dest="nodes", metavar="INODE", help="on which NUMA nodes the cached pages of an inode lie"),
        Arg("-c", dest="cached", action="store_true", help="how many pages of each are in the cache"),
        Arg("-d", dest="dentry", metavar="DENTRY", help="which inode and file lie behind a dentry"),
        Arg("-p", dest="pages", metavar="INODE", help="the cached pages of an inode"),
    )

    def __init__(self) -> None:
        self._table = Last[str]()

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield a row a task; with -n one a node, with -d one of the dentry, with -p one a page.

        Raises:
            UsageError: the options do not go together.
        """
        alone = [name for name in ("nodes", "dentry", "pages") if getattr(options, name)]
        if len(alone) + bool(options.cached or options.reference or options.tasks) > 1:
            raise UsageError("-n, -d and -p go with nothing else", where=f"files {options.typed}")
        if options.nodes:
            yield from _nodes(session, session.address(options.nodes))
        elif options.dentry:
            yield fileviews.dentry_row(session, session.address(options.dentry))
        elif options.pages:
            yield from fileviews.cached_pages(session, session.address(options.pages))
        if alone:
            return
        for task in session.tasks_of(options.tasks):
            row = _row(session, task, options.reference, cached=options.cached)
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
        if options.dentry:
            yield from fileviews.dentry_lines(rows)
            return
        if options.pages:
            yield from fileviews.page_lines(session, session.address(options.pages), rows)
            return
        for number, row in enumerate(rows):
            if number:
                yield ""
            yield header(row.pid, row.task, row.cpu, row.command)
            yield f"ROOT: {row.root}    CWD: {row.cwd}"
            if not row.files:
                yield "No open files"
            elif options.cached:
                yield from _cached_lines(row)
            else:
                yield self._table.get(row.files, partial("\n".join, _lines(row)))
            if row.problem:
                yield f"({row.problem})"


def _lines(row: FilesRow) -> Iterator[str]:
    return columns(("FD", "      FILE", "     DENTRY", "     INODE", "TYPE", "PATH"),
                   ((f"{file.fd:>2}", f"{file.file:016x}", f"{file.dentry:016x}", f"{file.inode:016x}", file.type,
                     file.path) for file in row.files if isinstance(file, OpenFile)), "><<<<<")


def _cached_lines(row: FilesRow) -> Iterator[str]:
    return columns(("FD", "     INODE", "   I_MAPPING", "NRPAGES", "TYPE", "PATH"),
                   ((f"{file.fd:>2}", f"{file.inode:016x}", f"{file.mapping:016x}",
                     "?" if file.pages is None else str(file.pages), file.type, file.path)
                    for file in row.files if isinstance(file, CachedFile)), "><<><<")


def _nodes(session: Session, address: int) -> Iterator[NodeRow]:
    """Yield how many cached pages of an inode lie on each node.

    Raises:
        NotInDump: that is no inode.
    """
    mapping = fileviews.mapping_of(session, address)
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


def _row(session: Session, task: drgn.Object, reference: str | None, *, cached: bool) -> FilesRow:
    root = cwd = ""
    problem = ""
    files: tuple[OpenFile | CachedFile, ...] = ()
    of = task_value(task)
    try:
        if task.fs:
            root, cwd = text(d_path(task.fs.root)), text(d_path(task.fs.pwd))
        table = task.files.value_()
        if table:
            files, problem = session.open_files.get(table, lambda: _files(task), keep=_is_short)
    except READ_ERRORS as error:
        problem = f"not all can be read: {error}"
    if cached:
        files = tuple(fileviews.cached_file(session, file) for file in files if isinstance(file, OpenFile))
    if reference is not None:
        files = tuple(file for file in files if reference in _referred(file) or in_path(reference, file.path))
    return FilesRow(of.pid, of.address, of.cpu, of.comm, root, cwd, files, problem)


def _referred(file: OpenFile | CachedFile) -> tuple[str, ...]:
    """Return what -R can name a file by: what is shown of it."""
    shown = (file.file, file.dentry) if isinstance(file, OpenFile) else (file.mapping,)
    return file.path, str(file.fd), *(f"{address:x}" for address in (*shown, file.inode))


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


COMMAND = Files()
