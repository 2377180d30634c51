"""What lies on a block device: the kind of file system, its UUID and label, read from its first bytes.

The capture kernel need not have udev or blkid, and a raw target must know what it would destroy.
Sources: each file system's on-disk format document; util-linux libblkid/src/superblocks for where to look.
"""

from __future__ import annotations

import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

LOOKED_AT = 0x11000
"""Bytes from the device's start; btrfs's superblock, the farthest, lies at 64 KiB."""


@dataclass(frozen=True, slots=True)
class Content:
    """What was recognised."""

    kind: str
    """As `mount -t` and blkid call it: `ext4`, `xfs`, `crypto_LUKS`, `LVM2_member`, `gpt`; empty: nothing known."""
    uuid: str = ""
    """As blkid prints it; empty where this kind has none, or none that is looked for."""
    label: str = ""
    blank: bool = False
    """All bytes looked at are zero."""


MOUNTABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs")
"""Kinds that a dump can be written to; vfat knows neither owners nor colons in names."""


def probe(device: Path) -> Content:
    """Return what lies on a device; OSError when it cannot be read."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        start = os.pread(descriptor, LOOKED_AT, 0)
        size = os.lseek(descriptor, 0, os.SEEK_END)
        # Swap's signature ends its first page, whatever the page's size; md 0.90 and 1.0 sit near the end.
        end = os.pread(descriptor, 0x20000, max(size - 0x20000, 0))
    finally:
        os.close(descriptor)
    return recognise(start, end)


def recognise(start: bytes, end: bytes = b"") -> Content:
    """Return what a device is that begins with, and ends with, these bytes."""
    for look in (_ext, _xfs, _btrfs, _f2fs, _others, _fat, _partitions):
        found = look(start)
        if found is not None:
            return found
    if _md_at_end(end):
        return Content("linux_raid_member")
    return Content("", blank=not any(start))


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _ext(start: bytes) -> Content | None:
    if start[0x438:0x43a] != b"\x53\xef":
        return None
    compatible, incompatible, read_only = struct.unpack_from("<III", start, 0x45c)
    if incompatible & 0x8:  # journal_dev
        return Content("jbd", str(uuid.UUID(bytes=start[0x468:0x478])))
    # extents, 64bit, flex_bg, … and huge_file, metadata_csum, … are ext4's; has_journal makes ext3.
    modern = incompatible & ~0x16 or read_only & ~0x7
    kind = "ext4" if modern else "ext3" if compatible & 0x4 else "ext2"
    return Content(kind, str(uuid.UUID(bytes=start[0x468:0x478])), _text(start[0x478:0x488]))


def _xfs(start: bytes) -> Content | None:
    if start[:4] != b"XFSB":
        return None
    return Content("xfs", str(uuid.UUID(bytes=start[32:48])), _text(start[108:120]))


def _btrfs(start: bytes) -> Content | None:
    if start[0x10040:0x10048] != b"_BHRfS_M":
        return None
    return Content("btrfs", str(uuid.UUID(bytes=start[0x10020:0x10030])), _text(start[0x1012b:0x1022b]))


def _f2fs(start: bytes) -> Content | None:
    if start[0x400:0x404] != b"\x10\x20\xf5\xf2":
        return None
    label = start[0x47c:0x47c + 1024].decode("utf-16-le", "replace").split("\0", 1)[0]
    return Content("f2fs", str(uuid.UUID(bytes=start[0x46c:0x47c])), label)


_MAGICS = (
    (0, b"LUKS\xba\xbe", "crypto_LUKS"), (0x218, b"LVM2 001", "LVM2_member"), (0x18, b"LVM2 001", "LVM2_member"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "linux_raid_member"), (0, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
    (0, b"hsqs", "squashfs"), (0x400, b"\xe2\xe1\xf5\xe0", "erofs"), (0x8001, b"CD001", "iso9660"),
    (3, b"NTFS    ", "ntfs"), (3, b"EXFAT   ", "exfat"), (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "bcache"),
    (0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9", "bcachefs"), (0x10000, b"ReIsErFs", "reiserfs"),
    (0x10034, b"ReIsEr2Fs", "reiserfs"), (0x8000, b"JFS1", "jfs"), (0x10000, b"\x01\x16\x19\x70", "gfs2"),
    (0, b"VMFS", "VMFS"), (0x1000, b"OCFSV2", "ocfs2"), (0xff6, b"SWAPSPACE2", "swap"), (0x3ff6, b"SWAPSPACE2", "swap"),
    (0xfff6, b"SWAPSPACE2", "swap"), (0xff6, b"S1SUSPEND\0", "swsuspend"), (0, b"\x01\x02\x3b\x5e", "stratis"),
)
"""(offset, bytes, kind) of what is recognised and never mounted for a dump."""


def _others(start: bytes) -> Content | None:
    return next((Content(kind) for offset, magic, kind in _MAGICS
                 if start[offset:offset + len(magic)] == magic), None)


def _fat(start: bytes) -> Content | None:
    # A boot sector's jump and signature, and its own name for the file system.
    if start[510:512] != b"\x55\xaa" or start[0:1] not in (b"\xeb", b"\xe9"):
        return None
    for name_at, serial_at, label_at in ((0x52, 0x43, 0x47), (0x36, 0x27, 0x2b)):
        if start[name_at:name_at + 3] == b"FAT":
            serial = int.from_bytes(start[serial_at:serial_at + 4], "little")
            label = start[label_at:label_at + 11].decode("latin-1").rstrip()
            return Content("vfat", f"{serial >> 16:04X}-{serial & 0xffff:04X}", "" if label == "NO NAME" else label)
    return None


def _partitions(start: bytes) -> Content | None:
    if start[512:520] == b"EFI PART" or start[4096:4104] == b"EFI PART":
        return Content("gpt")
    if start[510:512] == b"\x55\xaa" and any(start[0x1be:0x1fe]):
        return Content("dos")
    return None


def _md_at_end(end: bytes) -> bool:
    # 0.90: in the last 128 KiB at a 64 KiB border; 1.0: 8 KiB before the end, at a 4 KiB border.
    return any(end[at:at + 4] == b"\xfc\x4e\x2b\xa9" for at in range(0, len(end), 4096))
