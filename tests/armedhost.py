"""A tree of files that stands for a host which is armed: Debian on one ext4 disk, the capture kernel loaded."""

from __future__ import annotations

import json
import os
import struct
import uuid
from dataclasses import asdict
from pathlib import Path

from kdumpy.host import loading, settings
from kdumpy.host.images import BuiltImage, path_of, result
from kdumpy.host.images.result import record_of
from kdumpy.host.system import System

RELEASE = "6.1.0-56-amd64"
BOOT, BEFORE = 1_795_000_000, 1_794_900_000
"""When this boot and the one before it began."""

FS_UUID = "6b64756d-7079-4000-8000-000000000001"
IMAGE_BYTES, UNPACKED = 9 << 20, 28 << 20
MIB = 1 << 20

_CONFIG = ("KEXEC", "KEXEC_FILE", "CRASH_DUMP", "PROC_VMCORE", "RELOCATABLE", "BLK_DEV_INITRD", "RD_ZSTD", "DEVTMPFS",
           "TMPFS", "SYSFS", "MAGIC_SYSRQ", "KALLSYMS", "KALLSYMS_ALL", "DEBUG_INFO_BTF", "UNWINDER_ORC", "PSTORE")

MEMINFO = """\
MemTotal:        3800000 kB
MemFree:         1000000 kB
MemAvailable:    2500000 kB
Buffers:          100000 kB
Cached:          1200000 kB
SwapCached:            0 kB
AnonPages:        900000 kB
Shmem:             20000 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""

IOMEM = """\
00001000-0009fbff : System RAM
00100000-bffdffff : System RAM
  27000000-36ffffff : Crash kernel
100000000-13fffffff : System RAM
"""


class Host:
    """The tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.system = System(root)
        self._files()
        self._disk()
        self.load()

    def write(self, name: str, text: str | bytes, at: float | None = None) -> Path:
        """Write a file of the host; `at` is its time."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        if at is not None:
            os.utime(path, (at, at))
        return path

    def remove(self, name: str) -> None:
        """Remove a file of the host."""
        (self.root / name.lstrip("/")).unlink()

    def load(self) -> None:
        """Write down that what is there now is loaded."""
        wanted = loading._wanted(self.system, settings.load(self.system), RELEASE)
        self.write(loading.RECORD, json.dumps({**asdict(wanted), "at": BOOT + 20.0}))
        self.history(("boot-now", BOOT + 20, "loaded"))

    def history(self, *events: tuple[str | float | list[str], ...]) -> Path:
        """Write what was loaded when: boot, time, event, why and mend of a failure, reserved bytes, targets."""
        names = ("boot", "at", "event", "why", "mend", "reserved", "targets")
        known = [dict(zip(names, one, strict=False)) for one in events]
        return self.write("/var/lib/kdumpy/history.json", json.dumps(known))

    def wtmp(self, *events: tuple[float, str]) -> None:
        """Write /var/log/wtmp: (time, `boot` or `shutdown`)."""
        self.write("/var/log/wtmp", b"".join(utmp(at, kind) for at, kind in events))

    def link(self, name: str, to: str) -> Path:
        """Make a symbolic link on the host."""
        path = self.root / name.lstrip("/")
        path.symlink_to(to)
        return path

    def crash(self, name: str, at: float, **files: str) -> Path:
        """Write a crash's folder; `__` in a name is a dot, `_` a dash."""
        for file, text in files.items():
            self.write(f"/var/crash/{name}/{file.replace('__', '.').replace('_', '-')}", text, at)
        return self.root / "var/crash" / name

    def _files(self) -> None:
        cmdline = f"BOOT_IMAGE=/boot/vmlinuz-{RELEASE} root=UUID={FS_UUID} ro console=ttyS0 crashkernel=256M quiet"
        for name, text in {
            "/proc/sys/kernel/osrelease": f"{RELEASE}\n", "/proc/sys/kernel/arch": "x86_64\n",
            "/proc/cmdline": cmdline + "\n", "/proc/meminfo": MEMINFO, "/proc/iomem": IOMEM,
            "/proc/stat": f"cpu 1 2 3\nbtime {BOOT}\n", "/proc/sys/kernel/random/boot_id": "boot-now\n",
            "/proc/sys/kernel/kexec_load_disabled": "0\n", "/proc/sys/kernel/panic": "10\n",
            "/proc/sys/kernel/panic_on_oops": "1\n", "/proc/sys/kernel/hardlockup_panic": "1\n",
            "/proc/sys/kernel/hung_task_panic": "0\n", "/proc/sys/vm/panic_on_oom": "0\n",
            "/proc/self/status": "CapEff:\t000001ffffffffff\n",
            "/sys/kernel/kexec_crash_loaded": "1\n", "/sys/kernel/kexec_crash_size": f"{256 * MIB}\n",
            "/sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
            "/sys/devices/system/cpu/present": "0-3\n", "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
            "/etc/machine-id": "0123456789abcdef0123456789abcdef\n", "/etc/kdumpy.toml": 'crashkernel = "256M"\n',
            f"/boot/config-{RELEASE}": "".join(f"CONFIG_{name}=y\n" for name in _CONFIG),
            "/etc/systemd/system/kdumpy.service": "[Service]\n",
            "/etc/default/grub": f'GRUB_CMDLINE_LINUX="{cmdline.partition("ro ")[2]}"\n',
            "/boot/grub/grub.cfg": f"menuentry 'Debian' {{\n\tlinux {cmdline.partition('=')[2]}\n\tinitrd /i\n}}\n",
            "/usr/bin/busybox": "", "/usr/sbin/update-grub": "", "/usr/sbin/grub-mkconfig": "",
        }.items():
            self.write(name, text)
        self.write(f"/boot/vmlinuz-{RELEASE}", bzimage(RELEASE))
        wants = self.root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir()
        (wants / "kdumpy.service").symlink_to("/etc/systemd/system/kdumpy.service")
        (self.root / "var/crash").mkdir(parents=True)
        self.write(path_of(RELEASE), bytes(IMAGE_BYTES))
        image = BuiltImage(path_of(RELEASE), RELEASE, IMAGE_BYTES, UNPACKED, "builtin", "", ("virtio_blk", "ext4"),
                           (f"disk:UUID={FS_UUID}/var/crash",), 2.0, BOOT - 50.0, {})
        self.write(record_of(RELEASE), result.render(image))
        self.wtmp((BEFORE, "boot"), (BOOT - 60, "shutdown"), (BOOT + 5, "boot"))

    def _disk(self) -> None:
        device = "/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda"
        self.write(f"{device}/dev", "254:0\n")
        self.write(f"{device}/vda1/dev", "254:1\n")
        self.write(f"{device}/vda1/partition", "1\n")
        for link, to in (("/sys/class/block/vda", device), ("/sys/class/block/vda1", f"{device}/vda1"),
                         ("/sys/dev/block/254:0", device), ("/sys/dev/block/254:1", f"{device}/vda1")):
            path = self.root / link[1:]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(os.path.relpath(self.root / to[1:], path.parent))
        block = bytearray(256 << 10)
        struct.pack_into("<H", block, 1024 + 56, 0xEF53)                  # ext4's superblock: s_magic
        struct.pack_into("<III", block, 1024 + 92, 0x4, 0x2C2, 0x46B)     # has_journal, extents, …
        block[1024 + 104:1024 + 120] = uuid.UUID(FS_UUID).bytes
        self.write("/dev/vda1", bytes(block))
        self.write("/proc/self/mountinfo", "25 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n")


def bzimage(release: str, *, cmdline_bytes: int = 2047, init_size: int = 32 << 20) -> bytes:
    """Return the smallest file that looks like an x86 kernel. Source: Documentation/arch/x86/boot.rst."""
    image = bytearray(8192)
    image[0x1F1] = 4
    struct.pack_into("<I", image, 0x1F4, (8192 - 5 * 512) // 16)
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x600)
    struct.pack_into("<I", image, 0x238, cmdline_bytes)
    struct.pack_into("<I", image, 0x260, init_size)
    version = f"{release} (debian-kernel@lists.debian.org) #1 SMP\0".encode()
    image[0x800:0x800 + len(version)] = version
    return bytes(image)


def utmp(at: float, kind: str) -> bytes:
    """Return a record of wtmp. Source: utmp(5)."""
    number, user = {"boot": (2, b"reboot"), "shutdown": (1, b"shutdown"), "login": (7, b"root")}[kind]
    record = bytearray(384)
    struct.pack_into("<h", record, 0, number)
    record[44:44 + len(user)] = user
    struct.pack_into("<i", record, 340, int(at))
    return bytes(record)
