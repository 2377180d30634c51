"""The .rpm, by rpmbuild, of the same tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.packages.target import MACHINES, Target

SPEC = Path(__file__).parent / "rpm/kdumpy.spec"


def build(root: Path, out: Path, target: Target) -> Path:
    """Pack a tree; return the package."""
    architecture = MACHINES[target.machine][1]
    with tempfile.TemporaryDirectory(prefix="kdumpy-rpm-") as name:
        place = Path(name)
        text = SPEC.read_text()
        for word, value in (("version", target.version), ("release", target.python.replace(".", "")),
                            ("python", target.python), ("tree", str(root)),
                            ("payload", "w1.gzdio" if target.fast else "w6.xzdio")):
            text = text.replace(f"@{word}@", value)
        (place / "kdumpy.spec").write_text(text)
        command = ["rpmbuild", "-bb", "--quiet", "--target", f"{architecture}-linux", "--define", f"_topdir {place}",
                   "--define", "_rpmfilename package.rpm", str(place / "kdumpy.spec")]
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env={**os.environ, "SOURCE_DATE_EPOCH": str(target.epoch), "LC_ALL": "C.UTF-8"})
        if done.returncode:
            sys.exit(f"packages: rpmbuild: {done.stderr[-2000:]}")
        package = out / f"kdumpy-{target.version}-1.py{target.python.replace('.', '')}.{architecture}.rpm"
        shutil.copyfile(place / "RPMS/package.rpm", package)
        return package
