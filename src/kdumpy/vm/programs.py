"""The programs that a rehearsal takes, and the packages of each distribution that hold them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from kdumpy.errors import HostError
from kdumpy.vm.qemu import ELSEWHERE, PROGRAM

MANAGERS = {"apt": "apt-get install", "dnf": "dnf install", "zypper": "zypper install", "pacman": "pacman -S"}
"""A package manager → its command."""

PACKAGES: dict[str, dict[str, str]] = {
    PROGRAM: {"apt": "qemu-system-x86", "dnf": "qemu-kvm", "zypper": "qemu-x86", "pacman": "qemu-system-x86"},
    "busybox": {"apt": "busybox-static", "dnf": "busybox", "zypper": "busybox-static", "pacman": "busybox"},
    "mke2fs": dict.fromkeys(MANAGERS, "e2fsprogs"),
    "debugfs": dict.fromkeys(MANAGERS, "e2fsprogs"),
    "mkfs.xfs": dict.fromkeys(MANAGERS, "xfsprogs"),
    "mkfs.btrfs": {"apt": "btrfs-progs", "dnf": "btrfs-progs", "zypper": "btrfsprogs", "pacman": "btrfs-progs"},
    "setpriv": dict.fromkeys(MANAGERS, "util-linux"),
}
"""A program → a package manager → the package."""


def find(program: str) -> str | None:
    """Return where a program is; a user's PATH may lack the directories of system programs."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(program, path=search) or (shutil.which(ELSEWHERE) if program == PROGRAM else None)


def need(programs: Iterable[str], manager: str | None) -> None:
    """Hold that programs are installed.

    Args:
        programs: names, of PACKAGES.
        manager: this system's package manager, a key of MANAGERS; None: another one, or none.

    Raises:
        HostError: one is missing; the mend is the package manager's command, or the packages' names.
    """
    missing = [program for program in dict.fromkeys(programs) if find(program) is None]
    if not missing:
        return
    if manager in MANAGERS:
        packages = dict.fromkeys(PACKAGES[program][manager] for program in missing)
        mend = f"{MANAGERS[manager]} {' '.join(packages)}"
    else:
        mend = "install " + ", ".join(f"{program} (Debian: {PACKAGES[program]['apt']}, Fedora: "
                                      f"{PACKAGES[program]['dnf']})" for program in missing)
    raise HostError("a rehearsal takes a virtual machine, and programs for it are missing", why=", ".join(missing),
                    mend=mend)
