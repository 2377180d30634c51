"""The capture kernel's command line, made of the running one by rules: what it must not inherit, what it needs.

It keeps what reaches the hardware (console, IOMMU, ACPI and PCI quirks) and loses what takes memory or time, boots
another system, or panics for less than a crash. What is appended comes last, and for the kernel the last one wins.

Source: gen-kdump-sysconfig.sh and prepare_cmdline() of kdump-utils; KDUMP_CMDLINE_APPEND of kdump-tools;
Documentation/admin-guide/kdump/kdump.rst and kernel-parameters.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kdumpy.errors import UsageError

_EVERYWHERE = ("nr_cpus=1 irqpoll reset_devices cgroup_disable=memory udev.children-max=2 panic=10 novmcoredd "
               "transparent_hugepage=never cma=0 hugetlb_cma=0 kfence.sample_interval=0 initramfs_options=size=90%")

APPEND = {
    # mce=off, hest_disable, numa=off: less to set up, and no second error while the first is saved.
    "x86_64": f"{_EVERYWHERE} mce=off numa=off nokaslr acpi_no_memhotplug hest_disable pcie_ports=compat",
    "i386": f"{_EVERYWHERE} mce=off numa=off",
    "aarch64": f"{_EVERYWHERE} swiotlb=noforce",
    "ppc64": _EVERYWHERE.replace("nr_cpus=1", "nr_cpus=16 noirqdistrib") +
             " numa=off ehea.use_mcs=0 kvm_cma_resv_ratio=0",
    # No irqpoll: there are no such interrupts; no device is reset by a flag.
    "s390x": _EVERYWHERE.replace("irqpoll reset_devices ", "") + " numa=off vmcp_cma=0",
    "riscv64": _EVERYWHERE,
    "loongarch64": _EVERYWHERE,
    "arm": _EVERYWHERE,
}
"""By `uname -m` (ppc64le as ppc64): parameters that the capture kernel gets."""

REMOVED = frozenset({
    # of the boot loader
    "BOOT_IMAGE", "initrd", "abm", "auto",
    # of the first kernel's crash memory
    "crashkernel", "elfcorehdr", "dmcryptkeys", "disable_cpu_apicid", "fadump",
    # memory that would be missed
    "hugepages", "hugepagesz", "default_hugepagesz", "hugetlb_free_vmemmap", "log_buf_len", "slub_debug", "slab_debug",
    "page_owner", "kmemleak", "trace_buf_size", "trace_event", "ftrace", "swiotlb", "vmcp_cma", "prot_virt",
    "kvm_cma_resv_ratio", "movablecore", "kernelcore", "memtest", "zswap.enabled",
    # CPUs that are not there
    "maxcpus", "possible_cpus", "isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity", "kthread_cpus",
    # panics of its own, and what is done on the way to one
    "oops", "panic_on_warn", "panic_on_taint", "panic_print", "panic_on_oops", "softlockup_panic", "hardlockup_panic",
    "hung_task_panic", "crash_kexec_post_notifiers",
    # another system: the image is the whole of it
    "root", "rootfstype", "rootflags", "rootdelay", "rootwait", "ro", "rw", "init", "rdinit", "resume",
    "resume_offset", "netroot", "nfsroot", "rd.lvm.lv", "rd.luks.uuid", "rd.luks.name", "rd.dm.uuid", "rd.md.uuid",
    "boot", "fcoe", "rd.iscsi.initiator", "iscsi_initiator", "rd.break", "break", "systemd.unit", "single", "emergency",
    "rescue", "s", "S", "1", "2", "3", "4", "5", "ignition.firstboot", "zfcp.allow_lun_scan",
    # what is seen on the console while it captures
    "quiet", "splash", "rhgb", "plymouth.enable",
})
"""Parameters that the capture kernel does not inherit, by name."""

ELFCOREHDR = len("elfcorehdr=0x0123456789abcdef ") + len("dmcryptkeys=0x0123456789abcdef ")
"""Bytes that the kernel may put in front of it. Source: MAX_ELFCOREHDR_STR_LEN, MAX_DMCRYPTKEYS_STR_LEN."""

_FAMILIES = {"ppc64le": "ppc64", "amd64": "x86_64", "arm64": "aarch64", "i486": "i386", "i586": "i386",
             "i686": "i386", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm"}

_WORD = re.compile(r'(?:"[^"]*"?|[^\s"])+')
"""A parameter: a quote protects spaces, as next_arg() of the kernel's lib/cmdline.c has it."""


def words(text: str) -> Iterator[str]:
    """Yield the parameters of a command line, quotes kept; what follows `--` is init's and is left out."""
    for found in _WORD.finditer(text):
        if found[0] == "--":
            return
        yield found[0]


def name_of(word: str) -> str:
    """Return a parameter's name as the kernel compares it: `-` and `_` are the same."""
    return word.lstrip('"').partition("=")[0].replace("-", "_")


def value_of(text: str, name: str) -> str | None:
    """Return the value that wins, empty for a parameter without one; None: it is not there."""
    wanted = name.replace("-", "_")
    found = [word for word in words(text) if name_of(word) == wanted]
    return found[-1].partition("=")[2].strip('"') if found else None


def capture_cmdline(running: str, architecture: str, *, append: str = "", remove: str = "",
                    further: Iterable[str] = ()) -> str:
    """Return the capture kernel's command line.

    Args:
        running: /proc/cmdline.
        architecture: as `uname -m` says it.
        append: further parameters, of the configuration; they win.
        remove: names of parameters that are left out, of the configuration.
        further: parameters that this machine, or its image, needs.
    """
    ours = [*words(APPEND.get(_FAMILIES.get(architecture, architecture), _EVERYWHERE)), *further]
    unwanted = {name_of(word) for word in re.split(r"[\s,]+", remove) if word}
    replaced = {name_of(word) for word in ours} - {"cgroup_disable"}    # of that one several may stand there
    dropped = {name_of(name) for name in REMOVED} | replaced
    kept = [word for word in words(running) if name_of(word) not in dropped]
    said = list(words(append))
    given = {name_of(word) for word in said}
    result = [word for word in (*kept, *ours) if name_of(word) not in unwanted | given - {"console"}]
    return " ".join(dict.fromkeys([*result, *said]))


def check_length(text: str, limit: int) -> None:
    """Raise UsageError where the capture kernel would not take a command line of this length.

    Args:
        text: the command line.
        limit: bytes that the kernel takes, with the NUL at the end.
    """
    over = len(text.encode()) + 1 + ELFCOREHDR - limit
    if over > 0:
        longest = max(words(text), key=len, default="")
        raise UsageError("the capture kernel's command line is too long", where=text[:60] + "…",
                         why=f"{over} bytes over the {limit} that it takes",
                         mend=f"name parameters that it does not need in image.cmdline_remove, such as "
                              f"{name_of(longest)}")
