"""A directory of an NFS server: `nfs://server/export/dir`."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kdumpy.capture.targets import mounting
from kdumpy.capture.targets.directory import DirectoryTarget
from kdumpy.errors import HostError, UsageError

if TYPE_CHECKING:
    from kdumpy.capture.config import CaptureConfig

PROGRAMS = (*mounting.PROGRAMS, "mount.nfs")

_NOT_THERE = ("No such file or directory", "access denied")
"""What mount says when the server is there and this path is no export of it."""
_OTHER_VERSION = "Protocol not supported"
_PAUSE = 2.0
_MOUNT_SECONDS = 90


def check(url: str, config: CaptureConfig) -> None:
    """Raise UsageError when the URL names no server or no export."""
    split(url)


def make(url: str, config: CaptureConfig, directory: str) -> NfsTarget:
    """Return the target."""
    return NfsTarget(url, directory, config.nfs_options, config.device_wait_s)


def split(url: str) -> tuple[str, int | None, PurePosixPath]:
    """Return server, port (None: NFS's own) and path of a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"not a URL: {url!r}", why=str(error)) from None
    path = PurePosixPath(unquote(parts.path) or "/")
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise UsageError(f"not an NFS server's export: {url!r}", mend="nfs://server/export/directory is right")
    if not parts.hostname.isascii():
        raise UsageError(f"the server's name is not plain ASCII: {url!r}", mend="write it as xn--… or as an address")
    if ".." in path.parts:
        raise UsageError(f"the directory may not hold `..`: {url!r}")
    return parts.hostname, port, path


class NfsTarget(DirectoryTarget):
    """A directory that is mounted over the network."""

    # Where the server maps root to nobody, the directory's owner is nobody.
    own_directory = False

    def __init__(self, url: str, directory: str, options: str, wait_s: float) -> None:
        self._server, self._port, self._path = split(url)
        self._own = directory
        self._options = options
        self._wait_s = wait_s
        self._mounted: Path | None = None
        super().__init__(url, Path("/"), directory)

    def prepare(self) -> None:
        """Mount the deepest directory that is there, make the rest of the path."""
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                where, inside = self._mount()
                break
            except HostError:
                # The network may need some time yet; what the server refuses, it refuses again until then.
                if time.monotonic() + _PAUSE > deadline:
                    raise
                time.sleep(_PAUSE)
        self._mounted = where
        self.base = where / inside
        self.directory = self.base / self._own if self._own else self.base
        try:
            super().prepare()
        except BaseException:
            self.close()
            raise

    def _mount(self) -> tuple[Path, PurePosixPath]:
        """Mount; return the mount point and what is left of the path below it."""
        failure: HostError | None = None
        for version in self._versions():
            for export in (self._path, *self._path.parents):
                try:
                    return self._mount_one(export, version), self._path.relative_to(export)
                except HostError as error:
                    failure = failure or error
                    if _OTHER_VERSION in error.why:
                        break
                    if not any(words in error.why for words in _NOT_THERE):
                        raise
        assert failure is not None
        raise failure

    def _versions(self) -> Iterator[str]:
        # mount.nfs finds a common version by itself; the kernel alone has to be told one.
        chosen = any(option.partition("=")[0] in ("vers", "nfsvers") for option in self._options.split(","))
        yield from ("",) if chosen or _helper() else ("vers=4.2", "vers=4.0", "vers=3,proto=tcp,nolock")

    def _mount_one(self, export: PurePosixPath, version: str) -> Path:
        server = f"[{self._server}]" if ":" in self._server else self._server
        options = [self._options, version, f"port={self._port}" if self._port else ""]
        if _helper():
            options.append("retry=0")  # one try takes long enough; prepare() tries again
        else:
            options.append(f"addr={_address(self._server)}")
        where = mounting.mount_point()
        mounting.mount("nfs", f"{server}:{export}", where, "nosuid,nodev,noexec", *options, seconds=_MOUNT_SECONDS,
                       helper=_helper())
        return where

    def place(self, name: str) -> str:
        """Return where it lies on the server."""
        return "/".join(part for part in (self.url.rstrip("/"), self._own, name) if part)

    def close(self) -> None:
        """Unmount."""
        if self._mounted is not None:
            super().close()
            where, self._mounted = self._mounted, None
            mounting.unmount(where)


def _helper() -> bool:
    return shutil.which("mount.nfs") is not None or Path("/sbin/mount.nfs").exists()


def _address(server: str) -> str:
    try:
        # As bytes: for text Python wants the codec for international names, which a small image does not carry.
        return str(socket.getaddrinfo(server.encode(), 2049, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise HostError("cannot find the NFS server", where=server, why=error.strerror or str(error),
                        mend="give its address in place of its name") from error
