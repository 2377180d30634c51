"""How a kernel was configured, and what a crash dump needs of it."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host.system import LARGEST_TEXT, System


@dataclass(frozen=True, slots=True)
class Need:
    """One option of the kernel's configuration."""

    name: str
    """With CONFIG_ in front."""
    meaning: str
    """What is missing without it, for status' reason."""
    required: bool = True
    """Without it there is no dump at all; else something is worse."""
    capture: bool = False
    """The capture kernel needs it; else the one that crashes."""
    architectures: tuple[str, ...] = ()
    """Where it exists; empty: everywhere."""
    instead: tuple[str, ...] = ()
    """Options of which one does as well."""


NEEDED = (
    Need("CONFIG_CRASH_DUMP", "a kernel that can be told of a crashed one's memory", capture=True),
    Need("CONFIG_PROC_VMCORE", "/proc/vmcore, the crashed kernel's memory as a file", capture=True),
    Need("CONFIG_KEXEC_FILE", "loading a capture kernel with kexec_file_load", instead=("CONFIG_KEXEC",)),
    Need("CONFIG_RELOCATABLE", "running at the reserved memory's address", capture=True,
         architectures=("x86_64", "i686", "ppc64le", "ppc64")),
    Need("CONFIG_BLK_DEV_INITRD", "unpacking the capture image", capture=True),
    Need("CONFIG_RD_ZSTD", "unpacking a capture image that is packed with zstd", required=False, capture=True),
    Need("CONFIG_DEVTMPFS", "/dev in the capture kernel", capture=True),
    Need("CONFIG_TMPFS", "memory as a file system in the capture kernel", required=False, capture=True),
    Need("CONFIG_SYSFS", "/sys, which tells whether a capture kernel is loaded"),
    Need("CONFIG_MAGIC_SYSRQ", "crashing on purpose, for `kdumpy test`", required=False),
    Need("CONFIG_KEXEC_FILE", "loading under secure boot or lockdown, which refuse kexec_load", required=False),
    Need("CONFIG_CRASH_HOTPLUG", "following CPUs and memory that come and go without loading again (6.6 and later)",
         required=False, architectures=("x86_64", "ppc64le")),
    Need("CONFIG_KALLSYMS", "names of functions in the dump itself", required=False),
    Need("CONFIG_KALLSYMS_ALL", "names of variables in the dump itself: most of the report", required=False),
    Need("CONFIG_DEBUG_INFO_BTF", "types in the dump itself: a report without debug symbols", required=False),
    Need("CONFIG_UNWINDER_ORC", "right stacks without debug symbols", required=False, architectures=("x86_64",),
         instead=("CONFIG_UNWINDER_FRAME_POINTER",)),
    Need("CONFIG_PSTORE", "the log in the firmware's memory, where even the capture fails", required=False),
)
"""What is looked at, the indispensable first. Source: Documentation/admin-guide/kdump/kdump.rst, "System kernel config
options" and "Dump-capture kernel config options"; the kernel's Kconfig files."""


def places(release: str) -> tuple[str, ...]:
    """Return where distributions put a kernel's configuration, the surest first."""
    return (f"/boot/config-{release}", f"/usr/lib/modules/{release}/config", f"/lib/modules/{release}/config",
            f"/usr/lib/ostree-boot/config-{release}", f"/lib/modules/{release}/build/.config",
            f"/usr/lib/modules/{release}/build/.config")


def config_of(system: System, release: str) -> Mapping[str, str] | None:
    """Return a kernel's configuration: CONFIG_X to `y`, `m`, `n` (not set), a number, or a text without its quotes.

    None: no file tells. The running kernel's own (/proc/config.gz) goes before the files in /boot.

    Raises:
        HostError: a file is there and cannot be read, or is damaged.
    """
    if system.value("/proc/sys/kernel/osrelease") == release:
        packed = system.read_bytes("/proc/config.gz")
        if packed is not None:
            return parse(_unpack(packed))
    for path in places(release):
        text = system.read(path)
        if text is not None:
            return parse(text)
    return None


def _unpack(packed: bytes) -> str:
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            return file.read(LARGEST_TEXT).decode(errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise HostError("the kernel's configuration cannot be unpacked", where="/proc/config.gz",
                        why=str(error)) from error


def parse(text: str) -> dict[str, str]:
    """Return the options of a .config file. Source: scripts/kconfig/confdata.c."""
    options = {}
    for line in text.splitlines():
        if line.startswith("CONFIG_"):
            name, _, value = line.partition("=")
            if value.startswith('"') and value.endswith('"') and len(value) > 1:
                value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
            options[name] = value
        elif line.startswith("# CONFIG_") and line.endswith(" is not set"):
            options[line[2:-len(" is not set")]] = "n"
    return options


def missing(config: Mapping[str, str], architecture: str, *, capture: bool) -> tuple[Need, ...]:
    """Return what a kernel lacks.

    Args:
        config: its configuration; an option that it does not name is not set.
        architecture: as uname says.
        capture: it is to be the capture kernel; else the one that crashes.
    """
    return tuple(need for need in NEEDED if need.capture == capture
                 and (not need.architectures or architecture in need.architectures)
                 and not any(config.get(name, "n") in ("y", "m") for name in (need.name, *need.instead)))
