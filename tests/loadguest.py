"""A guest whose root is a disk with Python and kdumpy: for what only a running kernel answers."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import kdumpy
from kdumpy.image import libraries
from kdumpy.image.initramfs import Initramfs
from kdumpy.vm import guest
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.qemu import Disk, Hardware

ROOT, OUT_MIB, ROOT_MIB = "root", 320, 224

_LEFT_OUT = ("test", "tests", "site-packages", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "distutils",
             "config-*", "*.opt-*.pyc", "unittest", "pydoc_data", "sqlite3", "_tkinter*", "_test*", "*.a")

INIT = """#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mkdir -p /proc /sys /dev /disk
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
exec </dev/console >/dev/console 2>&1
while read -r module; do /bin/busybox insmod "$module"; done </lib/modules/load-order
mount -t ext4 /dev/vda /disk
mount -t proc proc /disk/proc
mount -t sysfs sysfs /disk/sys
mount -t devtmpfs devtmpfs /disk/dev
mount -t tmpfs tmpfs /disk/run
mount -t securityfs securityfs /disk/sys/kernel/security
exec chroot /disk /bin/sh /script
"""

PRELUDE = """\
import os, sys, termios
from pathlib import Path

def kdumpy(*words):
    # In one process: a start of Python takes two seconds under emulation.
    from kdumpy.cli.main import main
    code = main(list(words))
    sys.stdout.flush()
    print("GUEST exit", code, flush=True)

def crash():
    sys.stdout.flush()
    termios.tcdrain(1)      # what was said has left the serial line
    Path("/proc/sysrq-trigger").write_text("c")

"""


def make_root(kernel: Kernel, disk: Path, files: dict[str, bytes | Path], script: str) -> None:
    """Write the disk: Python as it runs here, kdumpy, busybox, and the files by their path; the script is Python."""
    tree = disk.with_name("tree")
    python = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    _copy(python, tree / str(python)[1:])
    shutil.copytree(stdlib, tree / str(stdlib)[1:], ignore=shutil.ignore_patterns(*_LEFT_OUT))
    dynamic = sorted((stdlib / "lib-dynload").glob("*.so"))
    for library in libraries.closure([python, *(path for path in dynamic if not path.match("_tkinter*"))], Path("/")):
        if not (tree / str(library)[1:]).exists():
            _copy(library.resolve(), tree / str(library)[1:])
    package = Path(kdumpy.__file__).parent
    shutil.copytree(package, tree / "opt/kdumpy/kdumpy", ignore=shutil.ignore_patterns("vm", "diagnosis", "report"))
    _copy(Path(shutil.which("busybox") or "/bin/busybox").resolve(), tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    for name in ("proc", "sys", "dev", "run", "tmp", "etc", "boot", "var/lib/kdumpy"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    _copy(kernel.image, tree / f"boot/vmlinuz-{kernel.release}")
    shell = ("/bin/busybox --install -s /bin\nexport PATH=/bin:/usr/bin PYTHONPATH=/opt/kdumpy\ndmesg -n 1\n"
             f"{python} -s /script.py\npoweroff -f\n")
    for name, data in {**files, "script": shell.encode(), "script.py": (PRELUDE + script).encode()}.items():
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.read_bytes() if isinstance(data, Path) else data)
    guest.make_disk(disk, ROOT_MIB, str(tree))
    shutil.rmtree(tree)


def hardware(kernel: Kernel, place: Path, cmdline: str, memory_mib: int = 640) -> Hardware:
    """Return a guest whose root is `place`/root.img and whose second disk, `out`, takes a dump."""
    image = Initramfs()
    image.add_program("busybox", at="bin/busybox")
    image.add_file("init", INIT, 0o755)
    image.add_modules(kernel.modules, list(guest.MODULES))
    for applet in ("mount", "chroot", "insmod"):
        image.archive.add_symlink(f"bin/{applet}", "busybox")
    image.write(place / "initrd")
    guest.make_disk(place / "out.img", OUT_MIB, label="out")
    # no_timer_check: emulated on a busy machine, a timer that is waited for in vain is a panic of the kernel's start.
    return Hardware(kernel.image, place / "initrd", f"console=ttyS0 panic=5 quiet no_timer_check {cmdline}",
                    memory_mib, disks=(Disk(place / "root.img", ROOT), Disk(place / "out.img", "out")))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
