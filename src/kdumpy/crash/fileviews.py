"""What `files -c`, `-d` and `-p` tell: how much of a file is in memory, what a dentry is, a file's pages."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import drgn
from drgn.helpers.linux.fs import d_path, inode_path
from drgn.helpers.linux.net import SOCKET_I

from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump
from kdumpy.kernel.circles import xarray_entries

if TYPE_CHECKING:
    from kdumpy.crash.kmem.pages import PageRow

# Source: include/uapi/linux/stat.h, the file types of i_mode.
_TYPES = {0o010000: "FIFO", 0o020000: "CHR", 0o040000: "DIR", 0o060000: "BLK", 0o100000: "REG", 0o120000: "LNK",
          0o140000: "SOCK"}


_CACHE = "kdumpy.open_files"
_MOST_NAMES = 1 << 14
_HIGHEST = (1 << 64) - 1


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
class CachedFile:
    """An open file, and how much of it is in memory."""

    fd: int
    inode: int
    mapping: int
    """Address of its struct address_space; 0 where it is not in the dump."""
    pages: int | None
    """Pages in the cache; None where that is not in the dump."""
    type: str
    """As of OpenFile."""
    path: str


@dataclass(frozen=True)
class DentryRow:
    """A dentry."""

    dentry: int
    inode: int
    """0 for a name that no file has."""
    superblock: int
    type: str
    """As of OpenFile; N/A without an inode."""
    path: str
    """Where it is mounted, or within its file system."""


def file_type(inode: drgn.Object) -> str:
    """Return what an inode is, in crash's letters.

    Raises:
        drgn.FaultError: it is not in the dump.
    """
    return _TYPES.get(inode.i_mode.value_() & 0o170000, "UNKN")


def text(data: bytes) -> str:
    """Return the text of a path."""
    return data.decode("utf-8", "backslashreplace")


def open_file(fd: int, file: drgn.Object) -> OpenFile:
    """Read a `struct file *`; a path that cannot be read stays empty.

    Raises:
        drgn.FaultError: the file is not in the dump.
    """
    cache = file.prog_.cache
    if _CACHE not in cache:
        cache[_CACHE] = _OpenFiles(file.prog_)
    made: OpenFile = cache[_CACHE].read(fd, file)
    return made


class _OpenFiles:
    """Reads open files; thousands of them have some hundreds of names."""

    def __init__(self, prog: drgn.Program) -> None:
        made = prog.type("struct file")
        places = [int(drgn.offsetof(made, name)) for name in ("f_path.mnt", "f_path.dentry", "f_inode")]
        self._first = min(places)
        self._words = struct.Struct(f"<{(max(places) - self._first) // 8 + 1}Q")
        self._places = [(place - self._first) // 8 for place in places]
        self._names: dict[tuple[int, int, int], tuple[str, str]] = {}
        """Types and paths by (mount, dentry, inode)."""

    def read(self, fd: int, file: drgn.Object) -> OpenFile:
        """Read a `struct file *`.

        Raises:
            drgn.FaultError: it is not in the dump.
        """
        address = file.value_()
        words = self._words.unpack(file.prog_.read(address + self._first & _HIGHEST, self._words.size))
        mount, dentry, inode = (words[place] for place in self._places)
        found = self._names.get((mount, dentry, inode))
        if found is None:
            found = _kind_and_path(file)
            if len(self._names) < _MOST_NAMES:
                self._names[mount, dentry, inode] = found
        return OpenFile(fd, address, dentry, inode, *found)


def _kind_and_path(file: drgn.Object) -> tuple[str, str]:
    kind, path = "UNKN", ""
    try:
        inode = file.f_inode
        kind = file_type(inode)
        path = (kind == "SOCK" and _protocol(inode)) or text(d_path(file.f_path))
        if not path:
            path = text(inode_path(inode) or b"")
    except READ_ERRORS:
        pass            # the entry is worth showing without its path
    return kind, path


def _protocol(inode: drgn.Object) -> str:
    """Return the name of a socket's protocol, which crash shows in place of a path: UNIX, TCPv6; empty if not known."""
    try:
        sock = SOCKET_I(inode).sk.read_()
        return text(sock.__sk_common.skc_prot.name.string_()) if sock else ""
    except READ_ERRORS:
        return ""


def cached_file(session: Session, file: OpenFile) -> CachedFile:
    """Tell how much of an open file is in memory."""
    mapping, pages = 0, None
    try:
        space = drgn.Object(session.prog, "struct inode *", value=file.inode).i_mapping.read_()
        mapping, pages = space.value_(), space.nrpages.value_()
    except READ_ERRORS:
        pass            # the page of the inode is missing: the file is open all the same
    return CachedFile(file.fd, file.inode, mapping, pages, file.type, file.path)


def dentry_row(session: Session, address: int) -> DentryRow:
    """Tell what a dentry is.

    Raises:
        NotInDump: there is none at this address.
    """
    dentry = drgn.Object(session.prog, "struct dentry *", value=address)
    superblock = dentry.d_sb.read_()
    inode = dentry.d_inode.read_()
    if not superblock or dentry.d_parent.d_sb != superblock or (inode and inode.i_sb != superblock):
        raise NotInDump(f"there is no dentry at {address:016x}", why="its superblock is not that of its directory")
    kind, path = ("UNKN", "") if inode else ("N/A", "")
    try:
        kind = file_type(inode) if inode else kind
        path = text(d_path(dentry))
    except READ_ERRORS:
        pass
    return DentryRow(address, inode.value_(), superblock.value_(), kind, path)


def mapping_of(session: Session, address: int) -> drgn.Object:
    """Return the `struct address_space *` of an inode; that of a device is with the device's own inode.

    Raises:
        NotInDump: there is no inode at this address.
    """
    inode = drgn.Object(session.prog, "struct inode *", value=address)
    mapping = inode.i_mapping.read_()
    if not mapping or not mapping.host or mapping.host.i_mapping != mapping:
        raise NotInDump(f"there is no inode at {address:016x}", why="its mapping does not lead back to it")
    return mapping


def cached_pages(session: Session, address: int) -> Iterator[PageRow]:
    """Yield the pages of an inode that are in memory, by their place in the file; a large folio is one.

    Raises:
        NotInDump: there is no inode at this address; or not all pages could be read, said behind the others.
    """
    from kdumpy.crash.kmem.somepages import SomePages

    mapping = mapping_of(session, address)
    # An XArray since 4.20 (eb797a8ee0ab); what is odd in it are marks of pages that were put away.
    entries = [entry for _, entry in xarray_entries(mapping.i_pages) if not entry & 1]
    shown = 0
    for page in SomePages(session).read(entries):
        shown += 1
        yield page
    if shown < len(entries):
        raise NotInDump(f"the struct pages of {len(entries) - shown} pages are not in the dump")


def page_lines(session: Session, address: int, pages: Iterable[PageRow]) -> Iterator[str]:
    """Lay the pages of an inode out as crash does."""
    from kdumpy.crash.kmem.somepages import HEADER, line

    given = iter(pages)
    first = next(given, None)       # what is wrong with the address is said first
    yield f"{'INODE':^16}  NRPAGES"
    yield f"{address:016x}  {mapping_of(session, address).nrpages.value_():>7}"
    yield ""
    if first is not None:
        yield from (HEADER, line(first))
    yield from map(line, given)


def dentry_lines(rows: Iterable[DentryRow]) -> Iterator[str]:
    """Lay dentries out as crash does."""
    for row in rows:
        yield f"{'DENTRY':^16} {'INODE':^16} {'SUPERBLK':^16} TYPE PATH"
        yield f"{row.dentry:016x} {row.inode:016x} {row.superblock:016x} {row.type:<4} {row.path}"


def in_path(reference: str, path: str) -> bool:
    """Whether what -R names is a part of a path; a number is none."""
    return not re.fullmatch(r"(0x)?[0-9a-f]+", reference) and reference in path
