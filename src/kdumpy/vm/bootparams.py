"""A host's kernel command lines, made fit for a rehearsal's guest."""

from __future__ import annotations

import re
from collections.abc import Iterable

GUEST = "console=ttyS0 no_timer_check"
"""What every kernel of a guest gets; `guest.CMDLINE` says why the second."""

_QUIET = ("quiet", "splash", "loglevel", "console", "earlyprintk", "earlycon", "vt", "fbcon", "video", "nomodeset",
          "rhgb", "plymouth.*")
"""What would keep the guest's serial console silent, or draw elsewhere."""

_THIS_MACHINE = ("BOOT_IMAGE", "initrd", "root", "rootfstype", "rootflags", "rootwait", "rootdelay", "ro", "rw",
                 "resume", "resume_offset", "noresume", "init", "rdinit", "crashkernel", "rd.*", "systemd.*", "luks.*",
                 "lvm.*", "cryptdevice", "ip", "nfsroot", "netroot", "mem", "memmap", "memblock", "movable_node",
                 "hugepages", "hugepagesz", "default_hugepagesz", "hugetlb_cma", "cma", "nr_cpus", "maxcpus",
                 "possible_cpus", "panic", "acpi_rsdp", "kexec_*", "efi", "numa_balancing")
"""What names the host's own disks and memory, or is set by the rehearsal itself."""


def words(cmdline: str) -> list[str]:
    """Split a command line as the kernel does: at spaces that are not between double quotes."""
    return re.findall(r'(?:[^\s"]|"[^"]*"?)+', cmdline)


def crashed(cmdline: str, crashkernel: int, more: str = "") -> tuple[str, list[str]]:
    """Return the command line of the kernel that will crash, and the host's parameters that it does not get.

    Args:
        cmdline: the host's.
        crashkernel: bytes that are reserved.
        more: further parameters, of the fault.
    """
    kept, left = _without(cmdline, (*_QUIET, *_THIS_MACHINE))
    own = [GUEST, f"crashkernel={crashkernel >> 10}K", "panic=1", "rdinit=/init"]
    return " ".join([*own, *kept, *words(more)]), left


def capture(cmdline: str) -> str:
    """Return the capture kernel's command line: the host's, told on the serial console."""
    kept, _ = _without(cmdline, _QUIET)
    return " ".join([GUEST, *kept])


def value(cmdline: str, name: str) -> str | None:
    """Return the last value of a parameter; an empty string when it has none, None when it is not there."""
    found = [word.partition("=")[2] for word in words(cmdline) if _name(word) == name]
    return found[-1] if found else None


def _without(cmdline: str, patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    exact = {name for name in patterns if not name.endswith("*")}
    begins = tuple(name[:-1] for name in patterns if name.endswith("*"))
    kept: list[str] = []
    left: list[str] = []
    for word in words(cmdline):
        name = _name(word)
        (left if name in exact or (begins and name.startswith(begins)) else kept).append(word)
    return kept, left


def _name(word: str) -> str:
    return word.partition("=")[0].strip('"')
