"""The guest: what its kernel loads, its initramfs, its disks, and fetching files from them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.image.initramfs import Initramfs
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.packages import run
from kdumpy.vm.toolchain import stripped

INIT = Path(__file__).parent / "guest_files" / "init"

MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""Without these there is no disk."""

OPTIONAL_MODULES = ("qemu_fw_cfg", "virtio_net", "loop", "dm-mod", "dummy", "tun", "veth", "overlay", "nf_conntrack")
"""Modules of the kernel's tree, with split BTF: something for `mod` to list."""

PROGRAMS = ("kexec", "makedumpfile")


def build_initramfs(kernel: Kernel, driver: Path, path: Path) -> None:
    """Write the image that both kernels of the guest boot from."""
    image = Initramfs()
    image.add_program("busybox", at="bin/busybox")
    for program in PROGRAMS:
        image.add_program(program, at=f"bin/{program}")
    image.add_file("init", INIT, 0o755)
    image.add_file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    image.add_file("etc/group", "root:x:0:\nuser:x:1000:\n")
    image.add_modules(kernel.modules, list(MODULES), list(OPTIONAL_MODULES))
    image.add_file("lib/modules/flaky.ko", stripped(driver))
    image.write(path)


def make_data_disk(path: Path, files: dict[str, bytes | Path], mib: int) -> None:
    """Make an ext4 file system that holds the files."""
    with tempfile.TemporaryDirectory() as directory:
        for name, data in files.items():
            source = data.read_bytes() if isinstance(data, Path) else data
            Path(directory, name).write_bytes(source)
        make_disk(path, mib, directory)


def make_disk(path: Path, mib: int, content: str | None = None) -> None:
    """Make an ext4 file system in a sparse file."""
    with path.open("wb") as file:
        file.truncate(mib << 20)
    populate = ["-d", content] if content else []
    run(["mke2fs", "-q", "-F", "-t", "ext4", *populate, str(path)], "making a disk")


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


def fetch_dump(disk: Path, target: Path) -> None:
    """Copy the dump out of the guest's disk, check its size and sum; and the dead kernel's log, if any.

    Raises:
        LaboratoryError: there is no dump, or it is not the one that the guest wrote.
    """
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory, "sum")
        fetch(disk, "sum", summary)
        size, digest = summary.read_text().split()
    fetch(disk, "vmcore", target)
    with target.open("rb") as file:
        real = hashlib.file_digest(file, "md5").hexdigest()
    if (target.stat().st_size, real) != (int(size), digest):
        raise LaboratoryError("the dump was damaged on its way out of the guest", where=str(target),
                              why=f"{target.stat().st_size} bytes, md5 {real}; expected {size}, {digest}")
    try:
        fetch(disk, "dmesg", target.with_name("dmesg"))
    except LaboratoryError:
        target.with_name("dmesg").write_bytes(b"")   # makedumpfile does not know every kernel's log
