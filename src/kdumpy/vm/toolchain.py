"""Compile our faulty drivers against a kernel's headers, with the compiler of its own suite.

The headers' closure (compiler, make, a shell) is unpacked into a root of its own, one a
suite, and make runs in it by chroot: neither the system's compiler nor its libraries
matter, and sid's build tools, which need a newer C library than this system's, run as well.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.packages import Suite, run, unpack
from kdumpy.vm.paths import laboratory_home, locked

DRIVERS = Path(__file__).parent / "drivers"
"""The sources of the drivers, a directory each."""

BUILD_PROGRAMS = ("coreutils", "dash", "findutils", "grep", "make", "mawk", "sed")
"""What kbuild calls and the headers do not depend on, as every Debian system has it."""

UNWANTED = ("linux-image-", "linux-binary-", "linux-modules-", "initramfs-tools", "dracut", "systemd", "udev")
"""Packages of the closure that no build reads: some headers depend on the kernel's image."""


def driver_source(name: str = "flaky") -> dict[str, bytes]:
    """Return a driver's source files by name."""
    return {path.name: path.read_bytes() for path in sorted((DRIVERS / name).iterdir())
            if path.suffix in (".c", ".h") or path.name == "Makefile"}


def source_hash(name: str = "flaky") -> str:
    """Return a hash over a driver's source: 12 hex digits."""
    digest = hashlib.sha256()
    for file, data in driver_source(name).items():
        digest.update(f"{file}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:12]


def build_driver(kernel: Kernel, name: str = "flaky") -> Path:
    """Return a driver's module for a kernel, with DWARF and without BTF; built once per source.

    Raises:
        LaboratoryError: the headers are not to be had, or the compiler refused the source.
    """
    version = kernel.version.replace(":", "_")
    built = laboratory_home() / "driver" / f"{kernel.release}_{version}" / source_hash(name) / f"{name}.ko"
    with locked(f"toolchain-{kernel.suite}"):
        if not built.exists():
            root = _toolchain(kernel)
            _make(kernel, root, name)
            built.parent.mkdir(parents=True, exist_ok=True)
            for file in ("stripped.ko", built.name):
                partial = built.with_name(file + ".partial")
                shutil.copyfile(root / "build" / file, partial)
                partial.replace(built.with_name(file))
    return built


def stripped(driver: Path) -> Path:
    """Return the driver without DWARF (600 KB, which would only fill the guest's memory)."""
    return driver.with_name("stripped.ko")


def _toolchain(kernel: Kernel) -> Path:
    """Return the suite's root with this kernel's headers in it."""
    root = laboratory_home() / "toolchains" / kernel.suite
    headers = f"linux-headers-{kernel.release}"
    stamp = root / f"{headers}.complete"
    if stamp.exists():
        return root
    # Merged /usr: older packages still bring /bin and /lib.
    for directory in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / directory).mkdir(parents=True, exist_ok=True)
        if not (root / directory).is_symlink():
            (root / directory).symlink_to(f"usr/{directory}")
    for directory in ("build", "dev", "tmp"):
        (root / directory).mkdir(exist_ok=True)
    suite = Suite(kernel.suite)
    with suite.busy():
        for package in suite.download_closure([headers, *BUILD_PROGRAMS]):
            if not package.name.startswith(UNWANTED):
                unpack(package, root)
        suite.discard_downloads()
    # What the packages' own scripts would have made.
    for name, target in (("awk", "mawk"), ("sh", "dash")):
        if not os.path.lexists(root / "usr/bin" / name):
            (root / "usr/bin" / name).symlink_to(target)
    stamp.touch()
    return root


def _make(kernel: Kernel, root: Path, name: str) -> None:
    build = root / "build"
    shutil.rmtree(build)
    build.mkdir()
    for file, data in driver_source(name).items():
        (build / file).write_bytes(data)
    # The objtool of 7.x looks up its stack, to word an overflow; a file serves as well as procfs.
    maps = root / "proc/self/maps"
    maps.parent.mkdir(parents=True, exist_ok=True)
    maps.write_text("7ffc00000000-7fff00000000 rw-p 00000000 00:00 0 [stack]\n")
    headers = f"/usr/src/linux-headers-{kernel.release}"
    make = ["/usr/bin/env", "-i", "PATH=/usr/bin:/usr/sbin", "LC_ALL=C",
            "make", "-C", headers, "M=/build", "modules"]
    run(_inside(root, make), f"building the driver {name} for {kernel.release}")
    strip = ["/usr/bin/x86_64-linux-gnu-objcopy", "--strip-debug", f"/build/{name}.ko", "/build/stripped.ko"]
    run(_inside(root, strip), "stripping the driver")


def _inside(root: Path, command: list[str]) -> list[str]:
    """Return a command that runs another one with `root` as its file system."""
    if os.geteuid() == 0:
        null = root / "dev/null"
        if not null.is_char_device():
            null.unlink(missing_ok=True)
            try:
                os.mknod(null, 0o020666, os.makedev(1, 3))
            except PermissionError:
                null.touch()     # a container without CAP_MKNOD: a file does for kbuild
        return ["chroot", str(root), *command]
    mount = 'mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    probe = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], check=False, capture_output=True)
    if probe.returncode:
        raise LaboratoryError("building the driver needs root or user namespaces", where="unshare",
                              why=probe.stderr.decode().strip(), mend="run as root")
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(root), *command]
