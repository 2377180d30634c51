"""Run by a generator's hook: puts the prepared tree into the image in the making, and throws out what is not needed.

usage: python3 -I -m kdumpy.host.images.takein STAGE IMAGE
Files of an image are memory of the capture kernel. What other hooks took in for a normal boot goes: drivers that the
targets do not need, their firmware, hardware databases, splash screens, and scripts that would look for a root.
"""

from __future__ import annotations

import errno
import filecmp
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from kdumpy.image.modules import module_name
from kdumpy.image.python import PREFIX

NOT_NEEDED = ("etc/udev/hwdb.bin", "lib/udev/hwdb.bin", "usr/lib/udev/hwdb.bin", "lib/firmware", "usr/lib/firmware",
              "usr/share/plymouth", "usr/lib/plymouth", "usr/share/fonts", "usr/share/kbd", "usr/share/zoneinfo",
              "cryptroot", "etc/shadow", "etc/lvm/archive", "etc/lvm/backup", "etc/lvm/devices", "etc/lvm/cache",
              "conf/conf.d/cryptroot", "conf/conf.d/resume")
"""Paths in an image. lvm/devices names devices by paths that may be others in the capture kernel; without it LVM looks
at all of them."""

NOT_RUN = ("scripts/local-top", "scripts/local-premount", "scripts/local-block", "scripts/local-bottom",
           "scripts/nfs-top", "scripts/nfs-premount", "scripts/nfs-bottom", "scripts/init-premount",
           "scripts/init-bottom", "scripts/panic")
"""initramfs-tools: scripts on the way to a root that is never mounted."""

RULES = ("63-md-raid-arrays.rules", "64-md-raid-assembly.rules", "65-md-incremental.rules", "64-lvm.rules",
         "69-lvm.rules", "69-dm-lvm.rules", "56-multipath.rules", "60-multipath.rules", "85-lvm2.rules")
"""udev's that bring up arrays and volumes by themselves: all of the host's, whether they are whole or not."""


def take_in(stage: Path, image: Path) -> None:
    """Do it; paths that lead through links of the image (`lib` → `usr/lib`) end up where these lead to.

    Raises:
        OSError: a link leads out of the image: this is root, and what lies there is the host's.
    """
    for name in (*NOT_NEEDED, *NOT_RUN):
        _remove(image, name)
    for rule in RULES:
        for folder in ("etc/udev/rules.d", "lib/udev/rules.d", "usr/lib/udev/rules.d"):
            _remove(image, f"{folder}/{rule}")
    keep = set((stage / "modules").read_text().split())
    for module in list(_modules(image)):
        if module_name(module.name) not in keep:
            module.unlink()
    merge(stage / "add", image, replace=False)
    merge(stage / "over", image, replace=True)
    _one_busybox(image)


def _modules(image: Path) -> Iterator[Path]:
    _stay(image, image / "lib" / "modules")
    for path in (image / "lib" / "modules").glob("**/*.ko*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _stay(image: Path, folder: Path) -> None:
    """Raise where a folder of the image is, by a link, one of the host."""
    if not folder.resolve().is_relative_to(image.resolve()):
        raise OSError(errno.EXDEV, "a link leads out of the image", str(folder), None, str(folder.resolve()))


def _remove(image: Path, name: str) -> None:
    path = image / name
    if not (path.exists() or path.is_symlink()):
        return
    _stay(image, path.parent)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def merge(source: Path, image: Path, *, replace: bool) -> None:
    """Copy a tree over another one; what is there stays, or is replaced."""
    known: set[Path] = set()
    for path in sorted(source.rglob("*")):
        place = image / path.relative_to(source)
        if place.parent not in known:
            _stay(image, place.parent)
            known.add(place.parent)
        if path.is_dir() and not path.is_symlink():
            if not place.is_dir():
                place.mkdir(parents=True)
                place.chmod(path.stat().st_mode & 0o7777)
            continue
        if place.is_symlink() or place.exists():
            if not replace:
                continue
            place.unlink()
        shutil.copy2(path, place, follow_symlinks=False)


def _one_busybox(image: Path) -> None:
    """Keep one busybox where the generator took the same."""
    own = image / PREFIX / "bin" / "busybox"
    for name in ("usr/bin/busybox", "bin/busybox"):
        other = image / name
        if own.is_file() and not own.is_symlink() and other.is_file() and filecmp.cmp(own, other, shallow=False):
            own.unlink()
            own.symlink_to(f"/{name}")


if __name__ == "__main__":
    take_in(Path(sys.argv[1]), Path(sys.argv[2]))
