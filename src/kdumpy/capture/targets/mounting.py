"""Mounting a file system for a dump and unmounting it again, by the system's own programs."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from kdumpy.capture.targets.commands import run
from kdumpy.capture.targets.files import told

MOUNTS = Path("/run/kdumpy")
"""Below it targets are mounted."""

PROGRAMS = ("mount", "umount")


def mount_point() -> Path:
    """Make a new directory to mount on."""
    import tempfile

    with told("cannot make a mount point", MOUNTS):
        MOUNTS.mkdir(0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="target-", dir=MOUNTS))


def mount(kind: str, what: str, where: Path, *options: str, seconds: float = 120, helper: bool = True) -> None:
    """Mount; without `helper` no /sbin/mount.<kind> is asked and the kernel gets the options as they are."""
    flags = () if helper else ("-i",)
    chosen = ("-o", ",".join(option for option in options if option)) if any(options) else ()
    try:
        run(("mount", *flags, "-t", kind, *chosen, what, str(where)), "cannot mount the target", seconds=seconds)
    except BaseException:
        remove_mount_point(where)
        raise


def unmount(where: Path, *, seconds: float = 300) -> None:
    """Sync and unmount, and remove the mount point. HostError: what was written may not lie there."""
    run(("umount", str(where)), "cannot unmount the target", seconds=seconds)
    remove_mount_point(where)


def remove_mount_point(where: Path) -> None:
    """Remove the empty directory; one that something is still mounted on stays."""
    with contextlib.suppress(OSError):
        where.rmdir()


_OCTAL = re.compile(r"\\([0-7]{3})")


def mounted_at(node: Path) -> list[str]:
    """Return where a block device is mounted (also through another name of it), from /proc/self/mountinfo."""
    try:
        number = node.stat().st_rdev
    except OSError:
        return []
    device = f"{os.major(number)}:{os.minor(number)}"
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        # btrfs gives its mounts device numbers of its own; the source field names the device.
        source = fields[fields.index("-") + 2] if "-" in fields else ""
        if fields[2] == device or (source.startswith("/dev/") and Path(source).resolve() == node.resolve()):
            found.append(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
    return found
