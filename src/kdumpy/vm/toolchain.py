"""Compile our faulty drivers against a kernel's headers, with the compiler of its own suite.

The headers' closure (compiler, make, a shell) is unpacked into a root of its own, one a
suite, and make runs in it by chroot: neither the system's compiler nor its libraries
matter, and sid's build tools, which need a newer C library than this system's, run as well.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.vm.architectures import AMD64, Architecture
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.packages import Suite, run, unpack
from kdumpy.vm.paths import laboratory_home, locked

DRIVERS = Path(__file__).parent / "drivers"
"""The sources of the drivers, a directory each."""

BUILD_PROGRAMS = ("coreutils", "dash", "findutils", "grep", "make", "mawk", "sed")
"""What kbuild calls and the headers do not depend on, as every Debian system has it."""

UNWANTED = ("linux-image-", "linux-binary-", "linux-modules-", "initramfs-tools", "dracut", "systemd", "udev")
"""Packages of the closure that no build reads: some headers depend on the kernel's image."""


UNDEFINED = {"amd64": b".byte 0xf0, 0x90", "arm64": b"udf #0"}
"""An instruction that the processor does not have, which the drivers' sources write for amd64."""


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
    with locked(f"toolchain-{_room(kernel)}"):
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
    architecture = kernel.architecture
    root = laboratory_home() / "toolchains" / _room(kernel)
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
    wanted = [headers, *BUILD_PROGRAMS]
    if architecture is not AMD64:
        foreign = kernel.packages_of
        with foreign.busy():
            needs = foreign.depends(headers)
            for package in foreign.download([headers, *(name for name in needs if name.endswith("-common"))]):
                unpack(package, root)
            foreign.discard_downloads()
        # The headers' tools (modpost, fixdep) and a compiler that run here.
        wanted = [*_cross_tools(needs, architecture), *BUILD_PROGRAMS]
    with suite.busy():
        for package in suite.download_closure(wanted):
            if not package.name.startswith(UNWANTED):
                unpack(package, root)
        suite.discard_downloads()
    # What the packages' own scripts would have made.
    for name, target in (("awk", "mawk"), ("sh", "dash")):
        if not os.path.lexists(root / "usr/bin" / name):
            (root / "usr/bin" / name).symlink_to(target)
    stamp.touch()
    return root


def _room(kernel: Kernel) -> str:
    """Return the name of the root in which drivers for a kernel are built."""
    architecture = kernel.architecture
    return kernel.suite if architecture is AMD64 else f"{kernel.suite}-{architecture.debian}"


def _cross_tools(needs: list[str], architecture: Architecture) -> list[str]:
    """Return the packages of our own architecture that stand for those which foreign headers depend on."""
    kbuild = [name for name in needs if name.startswith("linux-kbuild-")]
    compilers = [f"{match[1]}-{architecture.triplet}" for name in needs
                 if (match := re.fullmatch(r"(gcc-\d+)(-for-host)?", name))]
    return [*kbuild, *compilers]


def _make(kernel: Kernel, root: Path, name: str) -> None:
    build = root / "build"
    shutil.rmtree(build)
    build.mkdir()
    for file, data in driver_source(name).items():
        (build / file).write_bytes(data.replace(UNDEFINED["amd64"], UNDEFINED[kernel.architecture.debian]))
    # The objtool of 7.x looks up its stack, to word an overflow; a file serves as well as procfs.
    maps = root / "proc/self/maps"
    maps.parent.mkdir(parents=True, exist_ok=True)
    maps.write_text("7ffc00000000-7fff00000000 rw-p 00000000 00:00 0 [stack]\n")
    headers = f"/usr/src/linux-headers-{kernel.release}"
    architecture = kernel.architecture
    make = ["/usr/bin/env", "-i", "PATH=/usr/bin:/usr/sbin", "LC_ALL=C",
            "make", "-C", headers, "M=/build", *_cross_variables(root, architecture), "modules"]
    run(_inside(root, make), f"building the driver {name} for {kernel.release}")
    strip = [f"/usr/bin/{architecture.triplet}-objcopy", "--strip-debug", f"/build/{name}.ko", "/build/stripped.ko"]
    run(_inside(root, strip), "stripping the driver")


def _cross_variables(root: Path, architecture: Architecture) -> list[str]:
    """Return make's variables for a processor that is not ours; the headers name a compiler of that processor."""
    if architecture is AMD64:
        return []
    compiler = max((root / "usr/bin").glob(f"{architecture.triplet}-gcc-[0-9]*"))
    return [f"ARCH={architecture.kbuild}", f"CROSS_COMPILE={architecture.triplet}-", f"CC={compiler.name}"]


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
