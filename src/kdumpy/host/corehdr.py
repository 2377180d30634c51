"""What a capture kernel is told of the crashed one when it is loaded as segments: memory, and ELF core headers.

kexec_file_load makes these headers in the kernel; kexec_load expects them of the caller, and the capture kernel finds
them by `elfcorehdr=`.

Source: kernel/crash_core.c, crash_prepare_elf64_headers(); arch/x86/kernel/crash.c, elf_header_exclude_ranges();
fs/proc/kcore.c; Documentation/ABI/testing/sysfs-devices-system-cpu (crash_notes), sysfs-kernel-vmcoreinfo.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host.system import System

PAGE = 4096
LOW = 1 << 20
"""The first MiB is the capture kernel's: the crashed one keeps away from it (5.5, "x86/kdump: Always reserve the low 1M
when the crashkernel option is specified")."""

_PT_LOAD, _PT_NOTE, _RWX = 1, 4, 7
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_ET_CORE, _EM_X86_64 = 4, 62

_KERNEL_MAP = 0xFFFFFFFF80000000
"""__START_KERNEL_map: the kernel's text lies above it."""


@dataclass(frozen=True, slots=True)
class Range:
    """Physical memory, both ends in it."""

    start: int
    end: int
    what: str
    """As /proc/iomem calls it."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start + 1


def ranges(system: System) -> tuple[Range, ...]:
    """Return the physical address space as the kernel lists it, in order.

    Raises:
        HostError: the addresses are hidden from this process.
    """
    found = []
    for line in (system.read("/proc/iomem") or "").splitlines():
        match = re.fullmatch(r" *([0-9a-f]+)-([0-9a-f]+) : (.*)", line)
        if match:
            found.append(Range(int(match[1], 16), int(match[2], 16), match[3]))
    if not any(one.end for one in found):
        raise HostError("the machine's memory map may not be read", where="/proc/iomem",
                        why="all addresses are zero" if found else "it is empty", mend="run it as root")
    return tuple(found)


def crash_regions(known: Iterable[Range]) -> list[Range]:
    """Return what is reserved for the capture kernel; the last is the one that images are loaded into."""
    return sorted((one for one in known if one.what == "Crash kernel"), key=lambda one: one.start)


def without(kept: Iterable[Range], holes: Iterable[Range]) -> list[Range]:
    """Return ranges less others."""
    left = list(kept)
    for hole in holes:
        parts = []
        for one in left:
            if hole.end < one.start or hole.start > one.end:
                parts.append(one)
                continue
            if one.start < hole.start:
                parts.append(Range(one.start, hole.start - 1, one.what))
            if hole.end < one.end:
                parts.append(Range(hole.end + 1, one.end, one.what))
        left = parts
    return left


def headers(system: System) -> bytes:
    """Return the ELF core headers of an x86-64 kernel that may crash: notes, its text, and all of its memory.

    Raises:
        HostError: something that tells it may not be read.
    """
    known = ranges(system)
    memory = [one for one in known if one.what.startswith("System RAM")]
    dumped = without(memory, [Range(0, LOW - 1, ""), *crash_regions(known)])
    programs = [_PHDR.pack(_PT_NOTE, 0, address, 0, address, size, size, 0) for address, size in _notes(system)]
    text, page_offset = _mappings(system)
    if text is not None:
        virtual, physical, size = text
        programs.append(_PHDR.pack(_PT_LOAD, _RWX, physical, virtual, physical, size, size, 0))
    programs += [_PHDR.pack(_PT_LOAD, _RWX, one.start, (page_offset + one.start) & (1 << 64) - 1, one.start, one.size,
                            one.size, 0) for one in dumped]
    head = _EHDR.pack(b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), _ET_CORE, _EM_X86_64, 1, 0, _EHDR.size, 0, 0, _EHDR.size,
                      _PHDR.size, len(programs), 0, 0, 0)
    return head + b"".join(programs)


def _notes(system: System) -> list[tuple[int, int]]:
    """Return (physical address, size) of each CPU's notes and of vmcoreinfo's."""
    found = []
    for path in sorted(system.glob("/sys/devices/system/cpu/cpu[0-9]*/crash_notes")):
        address, size = system.value(path), system.value(f"{path}_size")
        if address and size:
            found.append((int(address, 16), int(size)))
    words = (system.value("/sys/kernel/vmcoreinfo") or "").split()
    if len(words) != 2 or not found:
        raise HostError("the kernel does not tell where its notes are", where="/sys/kernel/vmcoreinfo",
                        mend="run it as root")
    return [*found, (int(words[0], 16), int(words[1], 16))]


def _mappings(system: System) -> tuple[tuple[int, int, int] | None, int]:
    """Return the text's (virtual, physical, size) and the direct map's offset, as /proc/kcore has them."""
    try:
        with system.path("/proc/kcore").open("rb", buffering=0) as file:
            head = _EHDR.unpack(file.read(_EHDR.size))
            file.seek(head[5])
            table = file.read(head[10] * _PHDR.size)
    except (OSError, struct.error) as error:
        raise HostError("the kernel's memory layout may not be read", where="/proc/kcore", why=str(error),
                        mend="run it as root") from error
    text, offset = None, None
    for kind, _flags, _offset, virtual, physical, size, _memory, _align in _PHDR.iter_unpack(table):
        if kind != _PT_LOAD or physical == (1 << 64) - 1:       # no address: vmalloc's and the modules' space
            continue
        if virtual >= _KERNEL_MAP:
            text = text or (virtual, physical, size)
        elif offset is None:
            offset = virtual - physical
    if offset is None:
        raise HostError("the kernel's memory layout is not told", where="/proc/kcore",
                        why="no program header has a physical address")
    return text, offset
