"""The guest: what its kernel loads, its initramfs, its disks, and fetching files from them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.image.initramfs import Initramfs
from kdumpy.vm.architectures import AMD64, ARM64
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.packages import run
from kdumpy.vm.toolchain import stripped
from kdumpy.vm.userland import root_of

INIT = Path(__file__).parent / "guest_files" / "init"
MODPROBE = INIT.with_name("modprobe")

MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""Without these there is no disk."""

OPTIONAL_MODULES = ("qemu_fw_cfg", "virtio_net", "loop", "dm-mod", "dummy", "tun", "veth", "overlay", "nf_conntrack")
"""Modules of the kernel's tree, with split BTF: something for `mod` to list."""

CMDLINE = "console=ttyS0 panic=10 no_timer_check"
"""A kernel counts ten ticks of its timer against a busy loop, and panics ("IO-APIC + timer doesn't work!") where an
emulated CPU was not given its share of a busy machine meanwhile: under KVM it leaves that out by itself."""


def cmdline(kernel: Kernel, text: str = CMDLINE) -> str:
    """Return kernel parameters with the console that this kernel's machine has."""
    return text.replace(AMD64.console, kernel.architecture.console)


HOST = "laboratory"
"""The guest's name, which a crash's directory begins with."""


def build_initramfs(kernel: Kernel, drivers: Iterable[Path], path: Path, programs: Iterable[Path] = (),
                    before_init: bool = False, more_modules: Iterable[str] = ()) -> None:
    """Write the image that the guest's first kernel boots from; the capture kernel has its own.

    Args:
        kernel: whose modules it carries.
        drivers: the faulty drivers.
        path: where it is written.
        programs: what it carries beside busybox and kexec: paths, or names on PATH.
        before_init: put in what arms the guest without a process 1, and a program that no process 1 can be.
        more_modules: of the kernel, beside those that every guest has.
    """
    image = Initramfs(root_of(kernel.architecture))
    image.add_program("busybox", at="bin/busybox")
    if kernel.architecture is ARM64:
        image.add_program("kexec", at="sbin/kexec")
        image.add_file("bin/kexec", INIT.with_name("kexec-arm64"), 0o755)
    else:
        image.add_program("kexec", at="bin/kexec")
    for program in programs:
        image.add_program(str(program), at=f"bin/{program.name}")
    image.add_file("init", INIT, 0o755)
    image.add_file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    image.add_file("etc/group", "root:x:0:\nuser:x:1000:\n")
    image.add_modules(kernel.modules, list(MODULES), [*OPTIONAL_MODULES, *more_modules])
    for driver in drivers:
        image.add_file(f"lib/modules/{driver.name}", stripped(driver))
    if before_init:
        image.add_file("sbin/modprobe", MODPROBE, 0o755)
        image.add_file("init-elsewhere", b"\x7fELF\1\2\1".ljust(64, b"\0"), 0o755)     # 32 bits, big-endian
    image.write(path)


def make_data_disk(path: Path, files: dict[str, bytes | Path], mib: int) -> None:
    """Make an ext4 file system that holds the files."""
    with tempfile.TemporaryDirectory() as directory:
        for name, data in files.items():
            source = data.read_bytes() if isinstance(data, Path) else data
            Path(directory, name).write_bytes(source)
        make_disk(path, mib, directory)


def make_disk(path: Path, mib: int, content: str | None = None, label: str = "", uuid: str = "") -> None:
    """Make an ext4 file system in a sparse file."""
    with path.open("wb") as file:
        file.truncate(mib << 20)
    populate = ["-d", content] if content else []
    named = [*(["-L", label] if label else []), *(["-U", uuid] if uuid else [])]
    run(["mke2fs", "-q", "-F", "-t", "ext4", *named, *populate, str(path)], "making a disk")


def fetch(disk: Path, name: str, target: Path) -> None:
    """Copy a file out of an ext4 file system that is not mounted.

    Raises:
        LaboratoryError: the file is not there.
    """
    target.unlink(missing_ok=True)
    # debugfs exits 0 whatever happens: look whether the file came.
    run(["debugfs", "-R", f'dump "/{name}" "{target}"', str(disk)], "reading a disk")
    if not target.exists():
        raise LaboratoryError("the guest did not leave a file", where=str(disk), why=name)


def fetch_dump(disk: Path, target: Path, with_log: bool = True) -> None:
    """Copy the dump out of the guest's disk; the capture's own log goes beside it, and `with_log` the dead kernel's.

    Raises:
        LaboratoryError: there is no whole dump.
    """
    directory = crash_directory(disk)
    fetch(disk, f"{directory}/vmcore", target)
    for name, kept in (("vmcore-dmesg.txt", "dmesg"), ("kexec-dmesg.log", "capture.log"))[not with_log:]:
        fetch(disk, f"{directory}/{name}", target.with_name(kept))


def crash_directory(disk: Path) -> str:
    """Return the name of the directory that a capture made on a disk.

    Raises:
        LaboratoryError: there is none.
    """
    listing = run(["debugfs", "-R", "ls -p /", str(disk)], "reading a disk")
    names = [line.split("/")[5] for line in listing.splitlines() if line.count("/") >= 6]
    found = [name for name in names if name.startswith(f"{HOST}-")]
    if not found:
        raise LaboratoryError("the capture left nothing", where=str(disk), why=f"there are {', '.join(names)}")
    return found[-1]
