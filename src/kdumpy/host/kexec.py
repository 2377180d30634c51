"""The system calls that put a capture kernel into the reserved memory, and take it out again.

The calls are made as they are; an `OSError` has the kernel's error number. What a number means on this machine is
said by `host.kexecerrors`.

Source: kexec_load(2); include/uapi/linux/kexec.h; arch/*/entry/syscalls, include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from kdumpy.errors import HostError

FILE_UNLOAD, FILE_ON_CRASH, FILE_NO_INITRAMFS = 0x1, 0x2, 0x4
"""Flags of kexec_file_load."""

ON_CRASH = 0x1
"""Flag of kexec_load: the image is for a crash. Its architecture is in the upper 16 bits, 0 for the running one."""


@dataclass(frozen=True, slots=True)
class Calls:
    """System call numbers of an architecture; None: it has no such call."""

    load: int
    file_load: int | None


NUMBERS = {
    "x86_64": Calls(246, 320), "i386": Calls(283, None), "aarch64": Calls(104, 294), "arm": Calls(347, 401),
    "riscv64": Calls(104, 294), "loongarch64": Calls(104, 294), "ppc64": Calls(268, 382), "s390x": Calls(277, 381),
}
"""Linux gives no number twice, and never another one."""

_FAMILIES = {"i486": "i386", "i586": "i386", "i686": "i386", "amd64": "x86_64", "armv6l": "arm", "armv7l": "arm",
             "armv8l": "arm", "arm64": "aarch64", "ppc64le": "ppc64"}

_POINTER_BITS = struct.calcsize("P") * 8


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an image for kexec_load."""

    data: bytes
    address: int
    """Physical, on a page's boundary, within the reserved memory."""
    size: int
    """Bytes of memory, whole pages; what is not `data` is zero."""


class _Segment(ctypes.Structure):
    _fields_ = (("buf", ctypes.c_void_p), ("bufsz", ctypes.c_size_t), ("mem", ctypes.c_void_p),
                ("memsz", ctypes.c_size_t))


def calls(machine: str = "") -> Calls:
    """Return the numbers for a machine as `uname -m` names it; for this process where none is given.

    Raises:
        HostError: the architecture's numbers are not known.
    """
    name = machine or os.uname().machine
    name = _FAMILIES.get(name, name)
    if not machine and _POINTER_BITS == 32:      # a 32-bit process on a 64-bit kernel makes 32-bit calls
        name = {"x86_64": "i386", "aarch64": "arm"}.get(name, name)
    if name not in NUMBERS:
        raise HostError("the system calls for a crash kernel are not known on this architecture", why=name,
                        mend="install kexec-tools, which is used where it is there")
    return NUMBERS[name]


def known(machine: str = "") -> bool:
    """Tell whether an architecture's calls are known."""
    try:
        calls(machine)
    except HostError:
        return False
    return True


def takes_files(machine: str = "") -> bool:
    """Tell whether an architecture has kexec_file_load, as far as is known; for others kexec-tools are wanted."""
    return known(machine) and calls(machine).file_load is not None


def file_load(kernel: int, initrd: int | None, cmdline: str) -> None:
    """Load a capture kernel from files; the kernel itself reads, checks and places them.

    Args:
        kernel: file descriptor of the kernel's image, opened for reading.
        initrd: file descriptor of the capture image, or None.
        cmdline: the command line; the kernel adds `elfcorehdr=`.

    Raises:
        OSError: the kernel refused. An image that was loaded before is gone then.
    """
    number = calls().file_load if takes_files() else None
    if number is None:      # kexec-tools may know the architecture
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    text = cmdline.encode() + b"\0"
    flags = FILE_ON_CRASH | (FILE_NO_INITRAMFS if initrd is None else 0)
    _call(number, kernel, -1 if initrd is None else initrd, len(text), text, flags)


def segments_load(entry: int, segments: Sequence[Segment]) -> None:
    """Load a capture kernel as segments that lie where this process says; `entry` is a physical address.

    Raises:
        OSError: the kernel refused.
    """
    buffers = [ctypes.create_string_buffer(segment.data, len(segment.data)) for segment in segments]
    table = (_Segment * len(segments))(*(
        _Segment(ctypes.cast(buffer, ctypes.c_void_p), len(segment.data), segment.address, segment.size)
        for buffer, segment in zip(buffers, segments, strict=True)))
    _call(calls().load, entry, len(segments), table, ON_CRASH)


def unload() -> None:
    """Take the capture kernel out of the reserved memory; without one nothing happens.

    Raises:
        OSError: the kernel refused.
    """
    numbers = calls()
    if numbers.file_load is not None:
        try:
            _call(numbers.file_load, -1, -1, 0, None, FILE_ON_CRASH | FILE_UNLOAD)
            return
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
    _call(numbers.load, 0, 0, None, ON_CRASH)


def _call(number: int, *words: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    arguments = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
