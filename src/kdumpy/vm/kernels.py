"""The kernels of the laboratory: Debian's, mostly of the cloud flavour, taken from their packages."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.image.modules import ModuleTree
from kdumpy.vm.architectures import AMD64, ARCHITECTURES, ARM64, Architecture
from kdumpy.vm.packages import Suite, run, unpack
from kdumpy.vm.paths import laboratory_home, locked

CLOUD = "cloud-amd64"
"""Small and without firmware: half the size of the plain flavour, boots in 5 s."""

PLAIN = "amd64"
"""For real machines, and so with what the cloud flavour leaves out: machine checks (CONFIG_X86_MCE)."""


@dataclass(frozen=True)
class Line:
    """A line of kernels that is wanted, by name."""

    suite: str
    release: str
    """Pattern of the release without its flavour: it must not take in a part of a longer flavour (rt-amd64)."""
    architecture: Architecture = AMD64
    flavour: str = ""
    """The only one that it has; empty: that which the fault needs."""


LINES = {
    "5.10": Line("bullseye", r"5\.10\.0-\d+"),
    "6.1": Line("bookworm", r"6\.1\.0-\d+"),
    "6.12": Line("bookworm", r"6\.12\.\d+\+deb12"),
    "newest": Line("sid", r"\d+\.\d+[^-]*"),
    "6.1-arm64": Line("bookworm", r"6\.1\.0-\d+", ARM64),
    "6.12-arm64": Line("bookworm", r"6\.12\.\d+\+deb12", ARM64),
    "newest-arm64": Line("sid", r"\d+\.\d+[^-]*", ARM64),
    "6.12-rt": Line("bookworm", r"6\.12\.\d+\+deb12", flavour="rt-amd64"),
    "6.12-arm64-16k": Line("bookworm", r"6\.12\.\d+\+deb12", ARM64, "arm64-16k"),
}
"""By name; what is not for amd64 says so."""


@dataclass(frozen=True)
class Kernel:
    """One kernel, unpacked below `root`."""

    name: str
    """The name it was asked for by: "6.1", "newest"."""
    release: str
    """As `uname -r` says it: 6.1.0-56-cloud-amd64."""
    version: str
    """The package's version: 6.1.192-2."""
    suite: str
    packages: tuple[str, ...]
    """The packages that hold the image and its modules."""

    @property
    def architecture(self) -> Architecture:
        """The processor that it is for."""
        return next(known for name, known in ARCHITECTURES.items() if name in self.release.split("-"))

    @property
    def packages_of(self) -> Suite:
        """Where its packages come from."""
        return Suite(self.suite, architecture=self.architecture.debian)

    @property
    def root(self) -> Path:
        """The directory its packages are unpacked in."""
        return laboratory_home() / "kernels" / self.release / self.version.replace(":", "_")

    @property
    def image(self) -> Path:
        """The bootable vmlinuz."""
        return self._first(f"boot/vmlinuz-{self.release}", f"usr/lib/modules/{self.release}/vmlinuz")

    @cached_property
    def modules(self) -> ModuleTree:
        """Its modules; /lib in older packages, /usr/lib in newer ones."""
        return ModuleTree(self._first(f"lib/modules/{self.release}", f"usr/lib/modules/{self.release}"))

    @cached_property
    def config(self) -> dict[str, str]:
        """Its configuration: `CONFIG_SMP` → `y`."""
        path = self._first(f"boot/config-{self.release}", f"usr/lib/modules/{self.release}/config",
                           f"usr/lib/linux/config-{self.release}")
        return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", path.read_text(), re.M))

    def number(self) -> tuple[int, int]:
        """Return major and minor: (6, 12)."""
        major, minor = re.findall(r"\d+", self.release)[:2]
        return int(major), int(minor)

    def _first(self, *candidates: str) -> Path:
        for candidate in candidates:
            if (self.root / candidate).exists():
                return self.root / candidate
        raise LaboratoryError("the kernel's packages lack a file", where=str(self.root), why=candidates[0])


def get(name: str, refresh: bool = False, flavour: str = CLOUD) -> Kernel:
    """Return a kernel by name ("5.10", "6.1", "6.12", "newest"), downloaded and unpacked.

    What a name and a flavour stand for is decided once and kept, until `refresh` is given.

    Raises:
        LaboratoryError: the name is unknown, or the archive does not have or give it.
    """
    if name not in LINES:
        raise LaboratoryError("no such kernel", why=name, mend="one of " + ", ".join(LINES))
    with locked("kernels"):
        kernel = None if refresh else remembered(name, flavour)
        if kernel is None:
            kernel = _newest_whole(name, flavour, refresh)
            _memo(name, flavour).write_text(json.dumps(asdict(kernel), indent=1) + "\n")
    return kernel


def _newest_whole(name: str, flavour: str, refresh: bool) -> Kernel:
    """Install the newest kernel of a line whose packages the archive really gives.

    The lists of a suite at the end of its support name packages that are gone (404).
    """
    refused = ""
    for kernel in _candidates(name, flavour, refresh):
        if (kernel.root / "complete").exists():
            return kernel
        try:
            _install(kernel)
        except LaboratoryError as error:
            refused = refused or f"{kernel.release}: {error}"
        else:
            return kernel
    raise LaboratoryError("the archive has no such kernel", where=LINES[name].suite, why=refused or name,
                          mend="python -m kdumpy.vm kernels --refresh")


def _memo(name: str, flavour: str) -> Path:
    return laboratory_home() / "kernels" / (f"{name}.json" if flavour == CLOUD else f"{name}-{flavour}.json")


def remembered(name: str, flavour: str = CLOUD) -> Kernel | None:
    """Return the kernel that a name and a flavour stood for the last time, if it is still unpacked."""
    try:
        fields = json.loads(_memo(name, flavour).read_text())
    except FileNotFoundError:
        return None
    kernel = Kernel(**{**fields, "packages": tuple(fields["packages"])})
    return kernel if (kernel.root / "complete").exists() else None


def _candidates(name: str, flavour: str, refresh: bool) -> list[Kernel]:
    """Return the kernels of a line that the lists name, newest first."""
    line = LINES[name]
    suite = Suite(line.suite, architecture=line.architecture.debian)
    with suite.busy():
        suite.refresh(force=refresh)
        versions = suite.versions
    flavour = line.flavour or flavour.replace(AMD64.debian, line.architecture.debian)
    pattern = re.compile(rf"linux-image-({line.release}-{re.escape(flavour)})(?:-unsigned)?")
    releases = {match[1] for package in versions if (match := pattern.fullmatch(package))}
    # Images, headers and debug symbols reach the archive at different times.
    whole = [release for release in releases
             if {f"linux-headers-{release}", f"linux-image-{release}-dbg"} <= versions.keys()]
    whole.sort(key=lambda text: [int(number) for number in re.findall(r"\d+", text)], reverse=True)
    kernels = []
    for release in whole:
        if f"linux-binary-{release}" in versions:     # image and modules apart, since 7.0 or so
            packages = tuple(package for part in ("binary", "modules", "base")
                             if (package := f"linux-{part}-{release}") in versions)
        elif f"linux-image-{release}-unsigned" in versions:
            packages = (f"linux-image-{release}-unsigned",)
        else:
            packages = (f"linux-image-{release}",)
        kernels.append(Kernel(name, release, versions[packages[0]], line.suite, packages))
    return kernels


def _install(kernel: Kernel) -> None:
    suite = kernel.packages_of
    partial = kernel.root.with_name(kernel.root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(kernel.root, ignore_errors=True)
    with suite.busy():
        *packages, _headers = suite.download([*kernel.packages, f"linux-headers-{kernel.release}"])
        for package in packages:
            unpack(package, partial)
        suite.discard_downloads()
    # depmod looks below lib/modules; newer packages have usr/lib/modules only.
    if not (partial / "lib").exists():
        (partial / "lib").symlink_to("usr/lib")
    run(["depmod", "--basedir", str(partial), kernel.release], "depmod")
    (partial / "complete").touch()
    partial.replace(kernel.root)
