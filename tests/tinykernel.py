"""A kernel that cannot load a capture kernel, built from Debian's source: no distribution has such a one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kdumpy.vm.packages import Suite
from kdumpy.vm.paths import laboratory_home, locked
from saving import need_program

SUITE, PACKAGE, RELEASE = "bookworm", "linux-source-6.1", "6.1"

CONFIG = """\
CONFIG_64BIT=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_DEVTMPFS=y
CONFIG_FUTEX=y
CONFIG_MAGIC_SYSRQ=y
CONFIG_MULTIUSER=y
CONFIG_PRINTK=y
CONFIG_PROC_FS=y
CONFIG_PROC_SYSCTL=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_SYSFS=y
CONFIG_TTY=y
"""
"""What it takes to run a shell out of an initramfs and be heard; all else is off, CONFIG_KEXEC too."""


def image() -> Path:
    """Return the bootable kernel, built once (some minutes, 1.5 GB while it lasts)."""
    path = laboratory_home() / "kernels" / "without-kexec" / "vmlinuz"
    with locked("without-kexec"):
        if not path.exists():
            need_program("gcc", "make", "flex", "bison", "bc")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as work:
                built = _build(Path(work))
                shutil.copyfile(built, path.with_suffix(".partial"))
            path.with_suffix(".partial").replace(path)
    return path


def _build(work: Path) -> Path:
    suite = Suite(SUITE)
    with suite.busy():
        (package,) = suite.download([PACKAGE])
        _run(f"dpkg-deb --fsys-tarfile {package} | tar -xO ./usr/src/{PACKAGE}.tar.xz | tar -xJ", work)
        suite.discard_downloads()
    source = work / PACKAGE
    (source / "tiny.config").write_text(CONFIG)
    _run("make -s tinyconfig KCONFIG_ALLCONFIG=tiny.config", source)
    assert "CONFIG_KEXEC=y" not in (source / ".config").read_text()
    _run(f"make -s -j{len(os.sched_getaffinity(0))} bzImage", source)
    return source / "arch/x86/boot/bzImage"


def _run(line: str, where: Path) -> None:
    subprocess.run(["sh", "-c", line], cwd=where, check=True, stdout=subprocess.DEVNULL)
