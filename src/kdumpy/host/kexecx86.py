"""A capture kernel for kexec_load on x86-64: the segments that kexec_file_load would make in the kernel.

In the reserved memory, from its start: the kernel, with all the room that it unpacks into; at its end: the ELF core
headers, boot parameters with the command line, a few instructions that start the kernel, and the image. There is no
purgatory: nothing checks at the panic whether the segments are still what was loaded; the running kernel only keeps
its own CPUs from writing there.

Source: Documentation/arch/x86/boot.rst (64-bit boot protocol), zero-page.rst; arch/x86/kernel/kexec-bzimage64.c and
crash.c, crash_setup_memmap_entries().
"""

from __future__ import annotations

import platform
import re
import struct
import sys
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host import corehdr
from kdumpy.host.corehdr import LOW, PAGE, Range
from kdumpy.host.kexec import Segment
from kdumpy.host.system import System
from kdumpy.units import human_bytes

BOOT_PARAMS = "/sys/kernel/boot_params/data"
"""What the running kernel's boot loader gave to it: the screen, the place of ACPI's tables."""

_E820 = {"System RAM": 1, "Reserved": 2, "ACPI Tables": 3, "ACPI Non-volatile Storage": 4}
_E820_MOST = 128
_ENTRY64 = 0x200
"""Where the 64-bit entry point is, from the kernel's start."""
_CONTROL = 64 << 10
"""Bytes that are left free for the running kernel's own code and page tables of the start."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What kexec_load is given."""

    entry: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A bzImage."""

    header: bytes
    """The setup header, as it goes into the boot parameters."""
    body: bytes
    """The 64-bit kernel."""
    init_size: int
    alignment: int


def suits(release: str) -> bool:
    """Tell whether a running kernel's capture kernel can be loaded as it is done here.

    Before 5.5 the first 640 KiB were in use by the crashed kernel, and a purgatory had to save them from the capture
    kernel (7c321eb2b843, "x86/kdump: Remove the backup region handling"). No file tells that: the release has to.
    """
    found = re.match(r"(\d+)\.(\d+)", release)
    return (platform.machine() == "x86_64" and sys.maxsize > 1 << 32
            and found is not None and (int(found[1]), int(found[2])) >= (5, 5))


def lay_out(system: System, image: bytes, initrd: bytes, cmdline: str) -> Layout:
    """Lay a capture kernel out in the reserved memory.

    Args:
        system: the running system.
        image: a bzImage.
        initrd: the capture image.
        cmdline: without `elfcorehdr=`.

    Raises:
        HostError: the kernel cannot be started so, does not fit, or the machine's memory may not be read.
    """
    kernel = _parse(image)
    known = corehdr.ranges(system)
    regions = corehdr.crash_regions(known)
    if not regions:
        raise HostError("no memory is reserved for a capture kernel", where="/proc/iomem", mend="run `kdumpy setup`")
    region = regions[-1]
    start = _up(region.start, max(kernel.alignment, PAGE))
    below = region.end + 1

    def top(size: int) -> int:
        nonlocal below
        below = (below - size) // PAGE * PAGE
        return below

    core = corehdr.headers(system)
    core_at = top(_up(len(core), PAGE))
    text = f"elfcorehdr=0x{core_at:x} {cmdline}".encode() + b"\0"
    params_at = top(PAGE + _up(len(text), PAGE))
    stub_at = top(PAGE)
    initrd_at = top(_up(len(initrd), PAGE))
    if start + kernel.init_size + _CONTROL > initrd_at:
        raise HostError("kernel and image do not fit into the reserved memory", where=human_bytes(region.size),
                        why=f"the kernel takes {human_bytes(kernel.init_size)}, the image {human_bytes(len(initrd))}",
                        mend="reserve more, or make the image smaller")
    memory = _memory_map(known, region, Range(core_at, core_at + _up(len(core), PAGE) - 1, ""), regions[:-1])
    params = _boot_params(system, kernel, text, params_at, (initrd_at, len(initrd)), memory)
    return Layout(stub_at, (
        Segment(kernel.body, start, _up(kernel.init_size, PAGE)),
        Segment(initrd, initrd_at, _up(len(initrd), PAGE)),
        Segment(_stub(start + _ENTRY64, params_at), stub_at, PAGE),
        Segment(params + text, params_at, PAGE + _up(len(text), PAGE)),
        Segment(core, core_at, _up(len(core), PAGE))))


def further_parameters(system: System) -> list[str]:
    """Return parameters that a kernel which is started so needs: firmware's services are not handed on."""
    return ["noefi"] if system.exists("/sys/firmware/efi") else []


def _parse(image: bytes) -> _Kernel:
    """Take a bzImage apart. HostError: it cannot be entered in 64-bit mode, anywhere in memory."""
    if len(image) < 0x1000 or image[0x202:0x206] != b"HdrS":
        raise HostError("the kernel's image is no bzImage", mend="install the kernel's package again")
    version = struct.unpack_from("<H", image, 0x206)[0]
    loadable = struct.unpack_from("<H", image, 0x236)[0] if version >= 0x20C else 0
    if loadable & 3 != 3:       # XLF_KERNEL_64, XLF_CAN_BE_LOADED_ABOVE_4G
        raise HostError("the kernel cannot be started where the reserved memory is",
                        why="its image has no 64-bit entry that may lie anywhere", mend="use a 64-bit kernel of 3.8 or "
                        "newer")
    setup = ((image[0x1F1] or 4) + 1) * 512
    end = 0x202 + image[0x201]
    init_size, alignment = struct.unpack_from("<I", image, 0x260)[0], struct.unpack_from("<I", image, 0x230)[0]
    return _Kernel(image[0x1F1:end], image[setup:], max(init_size, len(image) - setup), alignment)


def _memory_map(known: tuple[Range, ...], region: Range, core: Range, low: list[Range]) -> list[tuple[int, int, int]]:
    """Return (start, size, type): the capture kernel's own memory, and what firmware keeps."""
    found = [(one.start, min(one.end, LOW - 1) - one.start + 1, _E820["System RAM"]) for one in known
             if one.what == "System RAM" and one.start < LOW]
    found += [(one.start, one.size, _E820[one.what]) for one in known if one.what in _E820 and one.what != "System RAM"]
    found += [(one.start, one.size, _E820["System RAM"]) for one in (*low, *corehdr.without([region], [core]))]
    return sorted(found)[:_E820_MOST]


def _boot_params(system: System, kernel: _Kernel, text: bytes, at: int, initrd: tuple[int, int],
                 memory: list[tuple[int, int, int]]) -> bytes:
    """Return the zero page. Source: Documentation/arch/x86/zero-page.rst."""
    params = bytearray(PAGE)
    given = system.read_bytes(BOOT_PARAMS) or b""
    if len(given) == PAGE:
        params[0x000:0x040] = given[0x000:0x040]        # screen_info
        params[0x070:0x078] = given[0x070:0x078]        # acpi_rsdp_addr
    if not any(params[0x070:0x078]):
        struct.pack_into("<Q", params, 0x070, _acpi_root(system))
    params[0x1F1:0x1F1 + len(kernel.header)] = kernel.header
    params[0x210] = 0xD0                                # type_of_loader: kexec
    command = at + PAGE
    for low_at, high_at, value in ((0x228, 0x0C8, command), (0x218, 0x0C0, initrd[0]), (0x21C, 0x0C4, initrd[1])):
        struct.pack_into("<I", params, low_at, value & 0xFFFFFFFF)
        struct.pack_into("<I", params, high_at, value >> 32)
    struct.pack_into("<I", params, 0x238, max(len(text), struct.unpack_from("<I", params, 0x238)[0]))
    params[0x1E8] = len(memory)
    for number, (start, size, kind) in enumerate(memory):
        struct.pack_into("<QQI", params, 0x2D0 + 20 * number, start, size, kind)
    return bytes(params)


def _acpi_root(system: System) -> int:
    """Return the address of ACPI's root pointer where UEFI told it; 0: the kernel searches low memory for it."""
    found = re.search(r"^ACPI(?:20)?=0x([0-9a-f]+)$", system.value("/sys/firmware/efi/systab") or "", re.MULTILINE)
    return int(found[1], 16) if found else 0


def _stub(entry: int, params: int) -> bytes:
    """Return code that enters the kernel with the boot parameters' address in rsi; the rest it sets up by itself."""
    return (b"\xfa\xfc"                                             # cli; cld
            + b"\x48\xbe" + struct.pack("<Q", params)               # mov rsi, params
            + b"\x48\xb8" + struct.pack("<Q", entry)                # mov rax, entry
            + b"\xff\xe0")                                          # jmp rax


def _up(value: int, to: int) -> int:
    return -(-value // to) * to
