"""A file system on a disk that the capture kernel mounts itself: `disk:UUID=…/var/crash`, `disk:/dev/vda2/dir`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.capture.targets import devices, mounting
from kdumpy.capture.targets.directory import DirectoryTarget
from kdumpy.capture.targets.superblock import MOUNTABLE
from kdumpy.errors import HostError, UsageError

if TYPE_CHECKING:
    from kdumpy.capture.config import CaptureConfig

PROGRAMS = mounting.PROGRAMS

TOP = {"btrfs": "subvolid=5"}
"""What mounts a file system from its top, whichever subvolume it mounts when nothing is said: paths count from there.

Source: btrfs(5), `subvolid`; 5 is BTRFS_FS_TREE_OBJECTID.
"""


def check(url: str, config: CaptureConfig) -> None:
    """Raise UsageError when the URL names no device, or leaves the file system with `..`."""
    _device, directory = devices.split(url.removeprefix("disk:"))
    if ".." in Path(directory or url).parts:
        raise UsageError(f"the directory may not hold `..`: {url!r}")


def make(url: str, config: CaptureConfig, directory: str) -> DiskTarget:
    """Return the target."""
    return DiskTarget(url, directory, config.device_wait_s)


class DiskTarget(DirectoryTarget):
    """A directory on a disk."""

    def __init__(self, url: str, directory: str, wait_s: float) -> None:
        self._device, self._inside = devices.split(url.removeprefix("disk:"))
        self._own = directory
        self._wait_s = wait_s
        self._mounted: Path | None = None
        super().__init__(url, Path("/"), directory)

    def prepare(self) -> None:
        """Wait for the device, mount it, make the directory."""
        node, rest = devices.wait(self._device, self._wait_s)
        if rest:  # only now that the device is there can its path be told from the directory's
            self._device, self._inside = self._device.removesuffix(rest), rest
        kind = devices.content(node).kind
        if kind not in MOUNTABLE:
            raise HostError("the device holds no file system for a dump", where=f"{self.url} ({node})",
                            why=f"it holds {kind}" if kind else "nothing on it was recognised",
                            mend=f"one of {', '.join(MOUNTABLE)} is wanted; for a bare device use raw:")
        where = mounting.mount_point()
        # nosuid, nodev, noexec: nothing on it is to be run, whatever the crash left there.
        mounting.mount(kind, str(node), where, "rw,nosuid,nodev,noexec", TOP.get(kind, ""))
        self._mounted = where
        self.base = where / self._inside.strip("/")
        self.directory = self.base / self._own if self._own else self.base
        try:
            if not (self.base.resolve() == where or where in self.base.resolve().parents):
                raise HostError("the directory leads out of the file system", where=self.url,
                                why="it is a symbolic link", mend="name the directory that is meant")
            super().prepare()
        except BaseException:
            self.close()
            raise

    def place(self, name: str) -> str:
        """Return where it lies, by the configured name: the mount point is gone after the capture."""
        directory = "/".join(part for part in (self._inside.strip("/"), self._own, name) if part)
        return f"{self._device}: /{directory}"

    def close(self) -> None:
        """Unmount."""
        if self._mounted is not None:
            super().close()
            where, self._mounted = self._mounted, None
            mounting.unmount(where)
