"""A directory of a file system that is mounted: `/var/crash` or `file:///var/crash`. Mounted targets build on it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from kdumpy.capture.targets.base import DIRECTORY_MODE, FILE_MODE, incomplete
from kdumpy.capture.targets.files import sync_directory, told, write_all, write_whole
from kdumpy.errors import HostError, NoSpace, UsageError

if TYPE_CHECKING:
    from kdumpy.capture.config import CaptureConfig
    from kdumpy.dumpfile.sink import FileSink

PROGRAMS: tuple[str, ...] = ()

_BALLAST = ".kdumpy-ballast"
_BALLAST_BYTES = 1 << 20
"""Held back while a dump is written, so that a full disk still takes the log that says so."""


def check(url: str, config: CaptureConfig) -> None:
    """Raise UsageError when the URL names no absolute path."""
    _path_of(url)


def make(url: str, config: CaptureConfig, directory: str) -> DirectoryTarget:
    """Return the target."""
    return DirectoryTarget(url, _path_of(url), directory)


def _path_of(url: str) -> Path:
    path = url
    if url.startswith("file:"):
        host, slash, rest = url.removeprefix("file:").removeprefix("//").partition("/")
        if host not in ("", "localhost"):
            raise UsageError(f"a file's URL names a host: {url!r}", mend="file:///var/crash has three slashes")
        path = unquote(slash + rest)
    if not path.startswith("/"):
        raise UsageError(f"the target's path is not absolute: {url!r}", mend="begin it with a slash")
    return Path(path)


class DirectoryTarget:
    """Files in `<base>/<directory>`; the directory is made 0700, the files 0600."""

    seekable = True
    own_directory = True
    """The crash's directory must belong to this user."""

    def __init__(self, url: str, base: Path, directory: str) -> None:
        self.url = url
        self.base = base
        self.directory = base / directory if directory else base
        self._sink: FileSink | FileStream | None = None

    def prepare(self) -> None:
        """Make the crash's directory."""
        with told("cannot make the crash's directory", self.directory):
            if self.directory != self.base:
                self.base.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(DIRECTORY_MODE, exist_ok=True)
            # A second attempt finds the first one's: only the owner is checked, never another's files trusted.
            if self.directory != self.base:
                owner = self.directory.lstat()
                if self.directory.is_symlink() or (self.own_directory and owner.st_uid != os.geteuid()):
                    raise HostError("the crash's directory is another user's", where=str(self.directory))
                self.directory.chmod(DIRECTORY_MODE)
                sync_directory(self.base)
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise HostError("cannot write to the target", where=str(self.directory), why="no right to")

    def free_bytes(self) -> int | None:
        """Return what a plain user could still write; the reserve for root stays."""
        with told("cannot ask for free space", self.directory):
            found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def open(self, name: str) -> FileSink:
        """Create `vmcore-incomplete`."""
        from kdumpy.dumpfile.sink import FileSink

        self._load_ballast()
        self._sink = sink = FileSink(self.directory / incomplete(name))
        return sink

    def stream(self, name: str) -> FileStream:
        """Create the incomplete file, to be written from front to back."""
        self._load_ballast()
        self._sink = stream = FileStream(self.directory / incomplete(name))
        return stream

    def keep(self, name: str, size: int | None = None) -> str:
        """Sync the file, then rename it, then sync its directory: a name without `-incomplete` is a promise."""
        path = self.directory / incomplete(name)
        with told("cannot finish the dump", path):
            self._sink = None
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.replace(self.directory / name)
            self._drop_ballast()
            sync_directory(self.directory)
        return name

    def abandon(self, name: str, size: int | None = None) -> str:
        """Close the file as it is."""
        sink, self._sink = self._sink, None
        if isinstance(sink, FileStream):
            sink.abort()
        elif sink is not None:
            with contextlib.suppress(HostError):  # the disk that failed fails once more
                sink.sync()
            with contextlib.suppress(HostError):
                sink.close()
        self._drop_ballast()
        path = self.directory / incomplete(name)
        if path.exists() and not path.stat().st_size:
            path.unlink()  # it failed before its first byte
        return self.place(path.name) if path.exists() else ""

    def discard(self, name: str) -> None:
        """Remove the incomplete file."""
        with told("cannot remove", self.directory / incomplete(name)):
            (self.directory / incomplete(name)).unlink(missing_ok=True)
            self._drop_ballast()

    def digest(self, name: str) -> str | None:
        """Read the file back and sum it: what was written in any order by several processes has no other sum."""
        with told("cannot read the dump back", self.directory / name), (self.directory / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def put(self, name: str, data: bytes | bytearray) -> None:
        """Write a small file; what is held back for that is given up when there is no other room."""
        try:
            write_whole(self.directory / name, data)
        except NoSpace:
            self._drop_ballast()
            write_whole(self.directory / name, data)

    def place(self, name: str) -> str:
        """Return the path."""
        return str(self.directory / name)

    def close(self) -> None:
        """Give back what was held."""
        self._drop_ballast()

    def _load_ballast(self) -> None:
        path = self.directory / _BALLAST
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, _BALLAST_BYTES)
        except OSError:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _drop_ballast(self) -> None:
        with contextlib.suppress(OSError):
            (self.directory / _BALLAST).unlink(missing_ok=True)


class FileStream:
    """One file, written from front to back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with told("cannot create", path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it."""
        with told("cannot write", self.path):
            write_all(self._descriptor, data)

    def finish(self) -> None:
        """Sync and close."""
        with told("cannot write", self.path):
            os.fsync(self._descriptor)
        self.abort()

    def abort(self) -> None:
        """Close; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
