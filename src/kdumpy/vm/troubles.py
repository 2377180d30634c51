"""What went wrong in a rehearsal: told from what both kernels and the ladder printed, with the mend."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """How far a rehearsal has come: what it waits for."""

    BOOT = "boot"
    """From power on until the kernel has said what it reserved."""
    LOAD = "load"
    """Until the capture kernel is loaded and the guest is ready."""
    CRASH = "crash"
    """From the fault to the capture kernel's first word."""
    START = "start"
    """The capture kernel boots, until the ladder starts."""
    LOG = "log"
    """Until the dead kernel's log is saved."""
    DUMP = "dump"
    """Until the dump is saved, or given up."""
    END = "end"
    """Until the final action."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a rehearsal failed."""

    stage: Stage
    what: str
    """In a few words."""
    why: str = ""
    """What the guest printed."""
    mend: str = ""
    short_of_memory: bool = False
    """A larger reservation would help, as far as can be told."""


LARGER = "reserve more: raise crashkernel="

_REFUSED = {
    errno.ENOSYS: ("the kernel has no kexec_file_load", "it wants CONFIG_KEXEC_FILE=y", False),
    errno.ENOEXEC: ("the kernel does not take this file for a kernel", "give the vmlinuz that belongs to it", False),
    errno.EBADF: ("the capture kernel or its image is not there", "", False),
    errno.EINVAL: ("the kernel refuses the capture kernel or its image", LARGER, True),
    errno.ENOMEM: ("the guest has too little memory to load them", "give the guest more: --memory", False),
    errno.EADDRNOTAVAIL: ("capture kernel and image do not fit into the reservation", LARGER, True),
    errno.EPERM: ("the kernel forbids it", "lockdown, or kernel.kexec_load_disabled", False),
    errno.ENOKEY: ("the kernel wants a signature by a key that it knows", "take the distribution's signed kernel",
                   False),
    errno.EKEYREJECTED: ("the kernel does not accept the signature", "take the distribution's signed kernel", False),
    errno.EBADMSG: ("the kernel's signature is damaged", "install the kernel's package again", False),
}
"""What kexec_file_load answers. Source: kexec_file_load(2), kernel/kexec_file.c."""


def refused(code: int) -> Trouble:
    """Return what a refusal to load means."""
    what, mend, short = _REFUSED.get(code, ("the kernel refuses to load the capture kernel", "", False))
    return Trouble(Stage.LOAD, what, f"{errno.errorcode.get(code, code)}: {os.strerror(code)}", mend, short)


def not_reserved(size: str, lines: Sequence[str]) -> Trouble:
    """Return why nothing is reserved; `size` is what the guest read: none or 0."""
    if size == "none":
        return Trouble(Stage.BOOT, "this kernel cannot load a capture kernel",
                       "it has no /sys/kernel/kexec_crash_size",
                       "take a kernel with CONFIG_KEXEC_FILE, CONFIG_CRASH_DUMP and CONFIG_PROC_VMCORE")
    told = _last(lines, r"(?i)crashkernel.*(fail|expect|invalid|cannot|must|no suitable|too)|fail.*crashkernel")
    return Trouble(Stage.BOOT, "the kernel reserved no memory for the capture kernel",
                   told or "kexec_crash_size is 0", "less for crashkernel=, or more --memory for the guest")


_IN_CAPTURE: tuple[tuple[str, str, str, bool], ...] = (
    (r"Initramfs unpacking failed: write error", "the image does not fit into the capture kernel's memory", LARGER,
     True),
    (r"Initramfs unpacking failed|(?:junk|invalid magic) (?:within|at start)", "the capture image is broken",
     "build it again: kdumpy image", False),
    (r"Kernel panic - not syncing: (?:System is deadlocked on memory|Out of memory)", "the capture kernel ran out of "
     "memory", LARGER, True),
    (r"Out of memory|oom-kill|page allocation failure", "the capture kernel ran out of memory", LARGER, True),
    (r"kdumpy: .*(?:killed: most likely for want of memory|out of memory)", "the capture program ran out of memory",
     LARGER, True),
    (r"kdumpy: .*memory is short", "the capture has to do with the least memory", LARGER, True),
    (r"kdumpy: .*there is no /proc/vmcore", "the capture kernel has no /proc/vmcore",
     "the kernel wants CONFIG_PROC_VMCORE=y, CONFIG_CRASH_DUMP=y", False),
    (r"Unable to mount root fs|No working init found|Requested init \S+ failed", "the capture image is broken or was "
     "not unpacked", "build it again: kdumpy image", False),
    (r"Kernel panic - not syncing", "the capture kernel panicked, too", "read the console's log", False),
    (r"Entering emergency mode|\(initramfs\)|Give root password for maintenance", "the image's own start-up gave up",
     "read the console's log: a disk or a driver may be missing from the image", False),
)
"""What the capture kernel or the ladder prints → what it means, the mend, whether more memory helps."""

ENDS_CAPTURE = re.compile(r"Kernel panic - not syncing|Entering emergency mode|\(initramfs\) |"
                          r"Give root password for maintenance")
"""In the capture kernel nothing good comes after these."""


def in_first_kernel(stage: Stage, lines: Sequence[str], ended: bool, qemu: str) -> Trouble:
    """Return why the guest did not come as far as the fault."""
    if qemu and not lines:
        return Trouble(stage, "QEMU did not start the guest", qemu)
    if not lines:
        return Trouble(stage, "the kernel printed nothing on its serial console",
                       "it ended" if ended else "no line came in time",
                       "it wants CONFIG_SERIAL_8250_CONSOLE=y; see whether it boots in a virtual machine at all")
    panic = _last(lines, r"Kernel panic - not syncing")
    return Trouble(stage, "the kernel panicked before the rehearsal's crash" if panic else
                   "the guest did not get as far as the crash", panic or _last(lines, r"\S"),
                   "does the guest have enough memory? give it more: --memory")


def not_started(lines: Sequence[str], ended: bool) -> Trouble:
    """Return why no word came from the capture kernel."""
    if not any(re.search(r"Kernel panic - not syncing|sysrq: Trigger a crash|SysRq : Trigger", line)
               for line in lines):
        return Trouble(Stage.CRASH, "the fault did not bring the kernel down", _last(lines, r"\S"),
                       "try another one: --fault")
    return Trouble(Stage.CRASH, "the capture kernel did not start", "the guest was reset" if ended else
                   "it printed nothing", f"most often the reservation is too small for it; {LARGER}", True)


def in_capture(stage: Stage, lines: Sequence[str], ended: bool, seconds: float) -> Trouble:
    """Return why the capture kernel, or the ladder in it, did not save a whole dump."""
    for pattern, what, mend, short in _IN_CAPTURE:
        told = _last(lines, pattern)
        if told:
            return Trouble(stage, what, told, mend, short)
    steps = [line for line in lines if "kdumpy: " in line]
    if not steps:
        return Trouble(stage, "the capture did not begin", ("the guest was reset" if ended else "no word of it") +
                       "; the last line: " + _last(lines, r"\S"), "read the console's log")
    reasons = [line.partition("kdumpy: ")[2] for line in steps
               if re.search(r"fail|no room|cannot|no such|ended|free|nothing|not ", line)
               and "no whole dump" not in line]
    if any(re.search(r"No space|no room|are free", reason) for reason in reasons):
        what, mend = "the target has too little space", "make room, or name a further target"
    else:
        what, mend = "no whole dump was saved", "read the console's log"
    late = "" if ended else f"not done after {seconds:.0f} s; "
    return Trouble(stage, what, late + "; ".join(reasons[-3:] or [steps[-1].partition("kdumpy: ")[2]]), mend)


def _last(lines: Sequence[str], pattern: str) -> str:
    """Return the last line that matches, without the kernel's time stamp, shortened."""
    search = re.compile(pattern)
    found = next((line for line in reversed(lines) if search.search(line)), "")
    return re.sub(r"^\[ *\d+\.\d+\] (\[ *[TC]\d+\] )?", "", found.strip())[:200]
