"""Debian packages of any suite through an apt of our own; the system's apt is not touched.

apt runs with its own state, cache and sources below the laboratory, on an empty dpkg
status: nothing counts as installed, so "install --download-only" names a whole closure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.vm.paths import laboratory_home, locked
from kdumpy.vm.sources import debian_archive

LISTS_AGE_S = 7 * 86400
"""Package lists older than this are fetched again before they are read."""


class Suite:
    """One suite of Debian (bookworm, sid …) for one architecture."""

    def __init__(self, name: str, home: Path | None = None, architecture: str = "amd64") -> None:
        self.name = name
        self.architecture = architecture
        """Debian's name of it: amd64, arm64."""
        self._key = name if architecture == "amd64" else f"{name}-{architecture}"
        self.home = (home or laboratory_home()) / "apt" / self._key

    def busy(self) -> AbstractContextManager[None]:
        """Return a lock to hold from downloading to unpacking: apt runs once at a time, files are shared."""
        return locked(f"apt-{self._key}")

    def refresh(self, force: bool = False) -> None:
        """Fetch the package lists when there are none, or old ones, or `force` is given.

        Old lists serve when the archive does not answer.
        """
        stamp = self.home / "refreshed"
        age = time.time() - stamp.stat().st_mtime if stamp.exists() else None
        if age is not None and age < LISTS_AGE_S and not force:
            return
        for directory in ("state/lists/partial", "cache/archives/partial", "etc"):
            (self.home / directory).mkdir(parents=True, exist_ok=True)
        (self.home / "state/status").touch()
        sources = debian_archive().lines(self.name, self.architecture)
        (self.home / "etc/sources.list").write_text("\n".join(sources) + "\n")
        try:
            self._apt("apt-get", "update", "--error-on=any")
        except LaboratoryError:
            if age is None:
                raise
            return
        self.__dict__.pop("versions", None)
        stamp.touch()

    @cached_property
    def versions(self) -> dict[str, str]:
        """Package name → newest version, as the lists have them."""
        self.refresh()
        text = self._apt("apt-cache", "dumpavail")
        found: dict[str, str] = {}
        for name, version in re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", text, re.M | re.S):
            if name not in found or _newer(version, found[name]):
                found[name] = version
        return found

    def depends(self, name: str) -> list[str]:
        """Return the names of the packages that a package's Depends field has, the first of each alternative."""
        self.refresh()
        text = self._apt("apt-cache", "show", name)
        field = re.search(r"^Depends: (.*)$", text, re.M)
        return [item.split()[0].split(":")[0] for item in field[1].split(",")] if field else []

    def download(self, names: Iterable[str]) -> list[Path]:
        """Download packages without what they depend on; return the .deb files.

        Raises:
            LaboratoryError: the archive does not have a package, or does not answer.
        """
        directory = self.home / "cache" / "single"
        directory.mkdir(parents=True, exist_ok=True)
        found = []
        for name in names:
            self.refresh()
            version = self.versions.get(name)
            if version is None:
                raise LaboratoryError("package is not in the archive", where=self.name, why=name,
                                      mend="python -m kdumpy.vm kernels --refresh")
            # apt writes ":" of an epoch as %3a.
            pattern = f"{name}_{version.replace(':', '%3a')}_*.deb"
            if not list(directory.glob(pattern)):
                self._apt("apt-get", "download", f"{name}={version}", cwd=directory)
            found += list(directory.glob(pattern))[:1]
        return found

    def download_closure(self, names: Iterable[str]) -> list[Path]:
        """Download packages with all that they depend on; return the .deb files."""
        self.refresh()
        archives = self.home / "cache" / "archives"
        for old in archives.glob("*.deb"):
            old.unlink()
        self._apt("apt-get", "install", "--yes", "--download-only", *names)
        return sorted(archives.glob("*.deb"))

    def discard_downloads(self) -> None:
        """Delete the .deb files: once unpacked they are of no use."""
        for directory in ("single", "archives"):
            for path in (self.home / "cache" / directory).glob("*.deb"):
                path.unlink()

    def _apt(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",        # _apt may not enter a home directory
            "Acquire::Check-Valid-Until": "false",  # suites that are no longer updated
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Update::Post-Invoke-Success::": "",
            "Dir::Cache": str(self.home / "cache"),
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": str(self.home / "etc/sources.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": str(self.home / "state"),
            "Dir::State::status": str(self.home / "state/status"),
            "quiet": "2",
        }
        command = [program, *(f"-o{key}={value}" for key, value in options.items()), *arguments]
        return run(command, f"{program} {arguments[0]}", cwd=cwd)


def run(command: list[str], task: str, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        LaboratoryError: the program is missing or failed; its last lines are the reason.
    """
    try:
        # A user's PATH may lack the directories of system programs such as depmod and mke2fs.
        search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False,
                              env={**os.environ, "PATH": search, "LC_ALL": "C"})
    except FileNotFoundError:
        raise LaboratoryError(f"{task}: program not found", where=command[0],
                              mend="tools/system-packages lab") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        # A compiler's or apt's own words say more than make's echo of them.
        telling = [line for line in lines if re.search(r"\b(error|Err|E):", line) and "make" not in line]
        why = "; ".join((telling or lines)[-3:])
        raise LaboratoryError(f"{task} failed", why=why or f"exit code {done.returncode}")
    return done.stdout


def unpack(package: Path, root: Path, wanted: Callable[[str], bool] | None = None) -> list[str]:
    """Unpack a .deb (or the members that `wanted` takes, by path without `./`) below a root.

    Links to directories that are already there (a merged /usr) are kept.
    Returns the paths of the unpacked members.
    """
    root.mkdir(parents=True, exist_ok=True)
    taken: list[str] = []
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        with tarfile.open(fileobj=reader.stdout, mode="r|", bufsize=1 << 20) as archive:
            for member in archive:
                member.name = member.name.removeprefix("./")
                if wanted is not None and not wanted(member.name):
                    continue
                target = root / member.name
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                _extract(archive, member, target, root)
                taken.append(member.name)
        reader.stdout.read()
    if reader.returncode:
        raise LaboratoryError("package could not be unpacked", where=str(package), mend="delete it and try again")
    return taken


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, root: Path) -> None:
    if target.is_symlink() or target.exists():
        target.unlink()
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.hardlink_to(root / member.linkname.removeprefix("./"))
    elif member.isreg():
        source = archive.extractfile(member)
        assert source is not None
        with target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        target.chmod(member.mode & 0o777)


def _newer(left: str, right: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", left, "gt", right], check=False).returncode == 0
