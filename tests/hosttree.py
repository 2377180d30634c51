"""A tree of files that stands for a host whose kernel is one of the laboratory's: root on an NVMe disk, no network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kdumpy.host.system import System
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.programs import find
from saving import run

UUID = "5f0c7a52-31c8-4cfd-9d70-0c1f3a5b7e11"

CMDLINE = "BOOT_IMAGE=/boot/vmlinuz root=UUID=5f0c7a52 ro quiet crashkernel=256M slub_debug=P console=tty0"

_DISK = "/sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1"


def make(root: Path, kernel: Kernel, filesystem: str = "xfs", toml: str = "", programs: tuple[str, ...] = ()) -> System:
    """Write the tree; the file system on /dev/nvme0n1p2 is real, and so are busybox and the further programs."""
    modules = root / f"lib/modules/{kernel.release}"
    modules.parent.mkdir(parents=True)
    modules.symlink_to(os.path.relpath(kernel.modules.directory.resolve(), modules.parent.resolve()))
    for name, source in (("boot/vmlinuz-" + kernel.release, kernel.image),
                         *((f"usr/bin/{name}", find(name)) for name in ("busybox", *programs))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(source), root / name)
    files = {
        "/etc/os-release": "ID=debian\nVERSION_ID=12\n",
        "/etc/kdumpy.toml": toml or 'crashkernel = "auto"\n[capture]\ntargets = ["/var/crash"]\n',
        "/proc/cmdline": CMDLINE, "/proc/sys/kernel/osrelease": kernel.release, "/proc/sys/kernel/arch": "x86_64",
        "/proc/sys/kernel/hostname": "db7", "/proc/meminfo": f"MemTotal: {64 << 20} kB\n",
        "/proc/self/mountinfo": f"25 1 259:2 / / rw shared:1 - {filesystem} /dev/nvme0n1p2 rw\n",
        "/sys/kernel/kexec_crash_size": str(256 << 20), "/sys/kernel/kexec_crash_loaded": "1",
        "/sys/devices/system/cpu/present": "0-31", f"{_DISK}/dev": "259:0", f"{_DISK}/nvme0n1p2/dev": "259:2",
        f"{_DISK}/nvme0n1p2/partition": "2", "/var/crash/.keep": ""}
    for name, text in files.items():
        path = root / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + ("\n" if not text.endswith("\n") else ""))
    _link(root, "/sys/devices/pci0000:00/0000:00:04.0/driver", "/sys/bus/pci/drivers/nvme")
    for name, place in (("nvme0n1", _DISK), ("nvme0n1p2", f"{_DISK}/nvme0n1p2")):
        _link(root, f"/sys/class/block/{name}", place)
        _link(root, f"/sys/dev/block/{files[place + '/dev']}", place)
    (root / "dev").mkdir()
    disk = root / "dev/nvme0n1p2"
    with disk.open("wb") as file:
        file.truncate(320 << 20)
    maker = {"xfs": ("mkfs.xfs", "-q", "-m", f"uuid={UUID}"), "ext4": ("mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID)}
    words = maker[filesystem]
    run(str(find(words[0])), *words[1:], str(disk))
    return System(root)


def _link(root: Path, name: str, to: str) -> None:
    path, target = root / name[1:], root / to[1:]
    target.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
