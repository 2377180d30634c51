"""The programs of a guest whose processor is not ours: Debian's packages for it, unpacked, never run here."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdumpy.vm.architectures import AMD64, Architecture
from kdumpy.vm.packages import Suite, unpack
from kdumpy.vm.paths import laboratory_home, locked

SUITE = "bookworm"
PACKAGES = ("busybox-static", "kexec-tools")
"""The guest's programs; what they depend on comes along."""
UNWANTED = ("debconf", "perl", "dpkg", "tar_", "coreutils")
"""Packages of the closure that serve their installation."""


def root_of(architecture: Architecture) -> Path:
    """Return the file system that a guest's programs come from: our own for our own processor."""
    return Path("/") if architecture is AMD64 else unpacked(architecture, "guest", PACKAGES)


def unpacked(architecture: Architecture, name: str, packages: tuple[str, ...]) -> Path:
    """Return a directory that holds packages of an architecture with what they need, fetched on demand."""
    root = laboratory_home() / "userland" / f"{SUITE}-{architecture.debian}" / name
    stamp = root / "complete"
    with locked(f"userland-{architecture.debian}"):
        if stamp.exists() and stamp.read_text().split() == list(packages):
            return root
        shutil.rmtree(root, ignore_errors=True)
        # Merged /usr, as the loader's fixed path (/lib/ld-linux…) wants it.
        for directory in ("bin", "lib", "sbin"):
            (root / "usr" / directory).mkdir(parents=True)
            (root / directory).symlink_to(f"usr/{directory}")
        suite = Suite(SUITE, architecture=architecture.debian)
        with suite.busy():
            for package in suite.download_closure(packages):
                if not package.name.startswith(UNWANTED):
                    unpack(package, root)
            suite.discard_downloads()
        # What libc-bin's installation would have made: where the libraries are.
        (root / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
        stamp.write_text("\n".join(packages) + "\n")
    return root
