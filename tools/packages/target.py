"""What a package is made for: a Python, a machine, and the names that pip, Debian and RPM have for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

MACHINES = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64")}
"""Machine of the kernel → its names with Debian and with RPM."""

GLIBC = ("2_17", "2_27", "2_28")
"""manylinux levels whose wheels are taken; the newest is the packages' need: glibc 2.28, as in RHEL 8, Debian 10."""


@dataclass(frozen=True, slots=True)
class Target:
    """One build."""

    python: str
    """`3.11`: the distribution's interpreter is /usr/bin/python3.11."""
    machine: str
    """Key of MACHINES."""
    version: str
    """kdumpy's own."""
    epoch: int
    """Seconds since 1970 that every file gets as its time, so that the same source gives the same package."""
    fast: bool = False
    """Compress quickly, for a test."""

    @property
    def interpreter(self) -> Path:
        """The distribution's interpreter, here and there."""
        return Path(f"/usr/bin/python{self.python}")

    @property
    def site(self) -> str:
        """Where the libraries lie in the package, without the leading slash."""
        return f"opt/kdumpy/lib/python{self.python}/site-packages"

    @property
    def platforms(self) -> list[str]:
        """pip's words for the machine."""
        names = [f"manylinux_{level}_{self.machine}" for level in reversed(GLIBC)]
        return [*names, f"manylinux2014_{self.machine}"]


def here(python: str = "", machine: str = "", *, fast: bool = False) -> Target:
    """Return the target of this machine's distribution, but for what is given."""
    from kdumpy import __version__

    machine = machine or os.uname().machine
    if machine not in MACHINES:
        sys.exit(f"packages: no wheels for {machine}: {', '.join(MACHINES)}")
    return Target(python or _distribution_python(), machine, __version__, _epoch(), fast)


def _distribution_python() -> str:
    """Return the version of /usr/bin/python3, which is what the packages' users have; else that of this process."""
    try:
        said = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        said = sys.version
    match = re.search(r"3\.\d+", said)
    if match is None or tuple(map(int, match[0].split("."))) < (3, 11):
        sys.exit(f"packages: kdumpy needs Python 3.11 or newer; here is {said.strip()}: give --python 3.11")
    return match[0]


def _epoch() -> int:
    """Return SOURCE_DATE_EPOCH (reproducible-builds.org), else the time of the last commit, else of the changelog."""
    asked = os.environ.get("SOURCE_DATE_EPOCH", "")
    if asked.isdecimal():
        return int(asked)
    done = subprocess.run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True,
                          check=False)
    return int(done.stdout) if done.returncode == 0 else int((ROOT / "CHANGELOG.md").stat().st_mtime)
