"""The kernel's image on this host: where it lies, what it is, whether the system call takes it as it lies there.

Source: Documentation/arch/x86/boot.rst (the setup header), arch/arm64 booting.rst, drivers/firmware/efi/libstub
(zboot: `zimg`), kernel-install(8) for the places.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import HostError
from kdumpy.host.system import System
from kdumpy.image.modules import unpack

PLACES = ("/boot/vmlinuz-{0}", "/usr/lib/modules/{0}/vmlinuz", "/lib/modules/{0}/vmlinuz", "/boot/vmlinux-{0}",
          "/boot/Image-{0}", "/boot/image-{0}", "/boot/zImage-{0}", "/boot/kernel-{0}", "/usr/lib/modules/{0}/Image",
          "/boot/{1}/{0}/linux", "/efi/{1}/{0}/linux", "/boot/efi/{1}/{0}/linux",
          "/boot/vmlinuz", "/boot/vmlinuz-linux", "/boot/vmlinuz-lts", "/boot/vmlinuz-virt")
"""{0} the release, {1} the machine's id. What names no release is taken only where the image itself says it."""

_HEADER_BYTES = 1 << 16
"""Of the file's beginning: all headers, and x86's version text."""

LIMITS = {"aarch64": 2048, "ppc64": 2048, "ppc64le": 2048, "s390x": 4096, "riscv64": 1024, "loongarch64": 4096}
"""COMMAND_LINE_SIZE of the architectures; x86's image says it itself."""

_PACKINGS = {"gzip": ".gz", "zstd": ".zst", "zstd22": ".zst", "xzkern": ".xz", "xz": ".xz"}
"""What a zboot image calls its packing, and the suffix of such files."""

_GZIP, _MZ, _ZBOOT, _ELF = b"\x1f\x8b", b"MZ", b"zimg", b"\x7fELF"


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A kernel's image."""

    path: str
    kind: str
    """`bzImage`, `gzip`, `zboot`, `elf`, `efi` or `image`."""
    release: str
    """As the image says it, empty where it does not."""
    size: int
    """Bytes of the file."""
    memory: int
    """Bytes of memory that it takes until it runs, where its header tells; else the file's size."""
    cmdline_bytes: int
    """Longest command line, with the NUL at the end."""


def find(system: System, release: str) -> KernelFile:
    """Return the image of a kernel's release.

    Raises:
        HostError: it is not there, or what is there is no kernel or another one.
    """
    machine_id = system.value("/etc/machine-id") or "-"
    looked = [place.format(release, machine_id) for place in PLACES]
    other = ""
    for place in looked:
        if not system.path(place).is_file():
            continue
        kernel = describe(system, place)
        if release in place or kernel.release == release:
            return _checked(kernel, release)
        other = f"; {place} is of {kernel.release}" if kernel.release else other
    raise HostError("the kernel's image is not there", where=looked[0],
                    why=f"and neither at the other usual places{other}",
                    mend=f"install the package of kernel {release} again, or reboot into one that is installed")


def describe(system: System, path: str) -> KernelFile:
    """Read what an image says of itself.

    Raises:
        HostError: it cannot be read.
    """
    place = system.path(path)
    try:
        size = place.stat().st_size
        with place.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        raise HostError("cannot read the kernel's image", where=path, why=error.strerror or str(error)) from error
    machine = system.value("/proc/sys/kernel/arch") or ""
    limit = LIMITS.get(machine, 2048)
    if head[0x202:0x206] == b"HdrS":
        return _bzimage(path, head, size)
    kind = "image"
    if head[:2] == _GZIP:
        kind = "gzip"
    elif head[4:8] == _ZBOOT:
        kind = "zboot"
    elif head[:4] == _ELF:
        kind = "elf"
    elif head[:2] == _MZ and head[0x38:0x3c] != b"ARMd":
        kind = "efi"
    memory = size
    if head[0x38:0x3c] == b"ARMd":      # struct arm64_image_header: image_size
        memory = max(size, struct.unpack_from("<Q", head, 16)[0])
    return KernelFile(path, kind, "", size, memory, limit)


def _bzimage(path: str, head: bytes, size: int) -> KernelFile:
    """Read the setup header. Source: Documentation/arch/x86/boot.rst."""
    version_at = struct.unpack_from("<H", head, 0x20E)[0] + 0x200
    found = re.match(rb"[^\s\0]{1,100}", head[version_at:version_at + 128])
    limit, needed = struct.unpack_from("<I", head, 0x238)[0], struct.unpack_from("<I", head, 0x260)[0]
    sectors, paragraphs = head[0x1F1] or 4, struct.unpack_from("<I", head, 0x1F4)[0]
    whole = (sectors + 1) * 512 + paragraphs * 16
    if size < whole:
        # kexec_file_load takes it, and the panic would end in a kernel that does not start.
        raise HostError("the kernel's image is cut short", where=path, why=f"{size} bytes, and its header says {whole}",
                        mend="install the kernel's package again")
    return KernelFile(path, "bzImage", found[0].decode(errors="replace") if found else "", size, max(size, needed),
                      limit or 255)


def _checked(kernel: KernelFile, release: str) -> KernelFile:
    if kernel.release and kernel.release != release:
        raise HostError("the kernel's image is of another kernel", where=kernel.path,
                        why=f"it is {kernel.release}, wanted is {release}",
                        mend="the capture kernel's modules would not fit; install the kernel's package again")
    return kernel


def plain(kernel: KernelFile, source: Path) -> bytes | None:
    """Return the image as the system call takes it, where it does not take it as it lies there; else None.

    arm64, riscv and loongarch boot a compressed image through their loader; kexec_file_load wants what is inside.

    Raises:
        HostError: it is damaged, or packed in a way that is not known.
    """
    data = source.read_bytes() if kernel.kind in ("gzip", "zboot") else b""
    if kernel.kind == "gzip":
        return _unpacked(kernel.path, data, "gzip")
    if kernel.kind == "zboot":
        offset, length = struct.unpack_from("<II", data, 8)
        packing = data[24:56].split(b"\0")[0].decode(errors="replace")
        return _unpacked(kernel.path, data[offset:offset + length], packing)
    return None


def _unpacked(path: str, data: bytes, packing: str) -> bytes:
    if packing not in _PACKINGS:
        raise HostError("the kernel's image cannot be unpacked", where=path, why=f"it is packed with {packing}")
    try:
        return unpack(data, _PACKINGS[packing])
    except Exception as error:          # each library has an error of its own
        raise HostError("the kernel's image is damaged", where=path, why=str(error),
                        mend="install the kernel's package again") from error
