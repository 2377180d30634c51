"""The .deb, by dpkg-deb: a tree, a control file and what is run when it is removed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.packages import tree
from tools.packages.target import MACHINES, Target

PARTS = Path(__file__).with_name("deb")

SCRIPTS = ("prerm", "postrm")
"""Nothing is run when it is installed: no service is enabled, nothing of the host is changed."""


def version(target: Target) -> str:
    """Return the package's version; builds for several Pythons are told apart by it."""
    return f"{target.version}-1+py{target.python}"


def build(root: Path, out: Path, target: Target) -> Path:
    """Pack a tree, which gets a DEBIAN directory for the while; return the package."""
    architecture = MACHINES[target.machine][0]
    control = root / "DEBIAN"
    control.mkdir()
    try:
        sums = "".join(f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  "
                       f"{path.relative_to(root)}\n"
                       for path in sorted(root.rglob("*"))
                       if path.is_file() and not path.is_symlink() and control not in path.parents)
        (control / "md5sums").write_text(sums)
        (control / "control").write_text((PARTS / "control").read_text().format(
            version=version(target), architecture=architecture, python=target.python,
            kilobytes=-(-tree.size(root) // 1024)))
        for name in SCRIPTS:
            shutil.copyfile(PARTS / name, control / name)
        for path in (control, *control.iterdir()):
            path.chmod(0o755 if path.is_dir() or path.name in SCRIPTS else 0o644)
            os.utime(path, (target.epoch, target.epoch))
        os.utime(root, (target.epoch, target.epoch))
        package = out / f"kdumpy_{version(target)}_{architecture}.deb"
        # xz, which every dpkg reads; zstd came with Debian 12.
        packing = ("-Zgzip", "-z1") if target.fast else ("-Zxz", "-z6")
        command = ["dpkg-deb", "--root-owner-group", *packing, "--build", str(root), str(package)]
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env={**os.environ, "SOURCE_DATE_EPOCH": str(target.epoch)})
        if done.returncode:
            sys.exit(f"packages: dpkg-deb: {done.stderr[-1000:]}")
        return package
    finally:
        shutil.rmtree(control)
