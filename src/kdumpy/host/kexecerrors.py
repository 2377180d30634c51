"""What an error number of the kexec system calls means on this machine, and what mends it.

One number has many reasons, and kexec-tools tells most of them as "syscall kexec_file_load not available": here the
machine's own state (lockdown, sysctls, reservation, files) says which it is.

Source: kernel/kexec_file.c, kernel/kexec.c, kernel/kexec_core.c (kexec_load_permitted), fs/kernel_read_file.c,
crypto/asymmetric_keys/verify_pefile.c, security/lockdown/lockdown.c, security/integrity/ima.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from kdumpy.errors import HostError
from kdumpy.host import crashstate, kernelconfig
from kdumpy.host.crashstate import CrashState
from kdumpy.host.kernelfile import KernelFile
from kdumpy.host.system import System
from kdumpy.units import human_bytes

ENOTSUPP = 524
"""Of the kernel only; it should not come to user space, and does."""

SIGNATURE = {
    errno.ENODATA: "the kernel's image is not signed",
    errno.EKEYREJECTED: "the kernel's image has a signature that does not fit it, or none that this kernel can check",
    errno.ENOKEY: "the kernel's image is signed with a key that this machine does not trust",
    errno.ENOPKG: "the kernel's image is signed in a way that this kernel cannot check",
    errno.EBADMSG: "the signature of the kernel's image is damaged",
    errno.ELIBBAD: "the kernel's image is not a well-formed signed file",
    errno.EMSGSIZE: "the signature of the kernel's image is damaged",
}
"""Errors of the signature's check, where it is enforced."""

ABOUT_SIGNATURES = {errno.EPERM, *SIGNATURE}
"""Errors that may come of a signature."""

_SIGNED = ("use a kernel that is signed with a trusted key: the distribution's own signed package, or your own key, "
           "enrolled with `mokutil --import`")

_REBOOT = "it cannot be changed before a reboot; take it out of the sysctl files where it is set"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried."""

    call: str
    """`kexec_file_load` or `kexec_load`."""
    unload: bool = False
    kernel: KernelFile | None = None
    initrd: str = ""
    initrd_bytes: int = 0
    release: str = ""
    """The running kernel's."""


def explain(system: System, number: int, attempt: Attempt, said: str = "") -> HostError:
    """Return the error that tells why a call failed.

    Args:
        system: the machine.
        number: the error number.
        attempt: the call and what it was given.
        said: what the kernel's log says of it.
    """
    why, mend = _meaning(system, number, attempt, crashstate.look(system))
    name = errno.errorcode.get(number, "ENOTSUPP" if number == ENOTSUPP else f"error {number}")
    told = f"; the kernel says: {said}" if said else ""
    what = "the kernel did not unload its capture kernel" if attempt.unload else "the capture kernel cannot be loaded"
    return HostError(what, where=attempt.kernel.path if attempt.kernel else "",
                     why=f"{why} ({attempt.call}: {name}){told}", mend=mend)


def _meaning(system: System, number: int, attempt: Attempt, state: CrashState) -> tuple[str, str]:
    """Return why, and the mend."""
    if number == errno.EPERM:
        return _not_permitted(system, attempt, state)
    if number in SIGNATURE:
        return SIGNATURE[number], _SIGNED
    if number in (errno.ENOSYS, errno.EOPNOTSUPP, ENOTSUPP):
        return _not_supported(system, attempt)
    if number == errno.EADDRNOTAVAIL or (number in (errno.ENOMEM, errno.EINVAL) and not state.reserved):
        return _no_place(attempt, state)
    if number == errno.ENOMEM:
        return ("memory is short: the kernel reads both files into memory of its own first",
                f"free about {human_bytes(2 * _size(attempt))} and try again")
    if number == errno.EINVAL:
        return _invalid(system, attempt)
    return _FURTHER.get(number, ("the kernel gives no reason that is known", "see the kernel's log, `dmesg`"))


_FURTHER = {
    errno.EBUSY: ("another program is loading a kernel at this moment, or a crash has begun",
                  "try again; see whether a kdump service of the distribution is active"),
    errno.ENOEXEC: ("the file is not a kernel that this kernel can start: it is damaged, cut short, of another "
                    "architecture, or of a format that only a boot loader knows (such as a unified kernel image)",
                    "install the kernel's package again"),
    errno.ETXTBSY: ("the kernel's image or the capture image is open for writing: something is rebuilding it",
                    "try again when that is done"),
    errno.EACCES: ("a security module refuses the file: with IMA it has to be signed (`security.ima`)",
                   "see `dmesg` and the audit log; use the distribution's signed kernel, and sign the capture image "
                   "with evmctl where the policy measures it"),
    errno.EFBIG: ("the file is larger than the kernel takes", "make the capture image smaller"),
    errno.EIO: ("the file could not be read whole", "see `dmesg` for errors of the disk"),
    errno.ENOENT: ("the kernel lacks SHA-256, by which it checks the loaded image",
                   "load the module sha256, or use the distribution's kernel"),
    errno.EFAULT: ("an argument of the call is not readable", "please report it"),
    errno.EBADF: ("a file of the call is not open for reading", "please report it"),
}
"""Reasons that do not depend on the machine."""


def _not_permitted(system: System, attempt: Attempt, state: CrashState) -> tuple[str, str]:
    if not crashstate.may_boot(system):
        return "only root may do that (CAP_SYS_BOOT)", "run it as root, and not in a container"
    if state.disabled:
        return "kernel.kexec_load_disabled is set: this kernel loads and unloads nothing any more", _REBOOT
    if state.loads_left == 0:
        return "kernel.kexec_load_limit_panic is used up: this kernel loads no capture kernel any more", _REBOOT
    if state.lockdown and attempt.call == "kexec_load":
        return (f"the kernel is locked down ({state.lockdown}), and then takes a kernel only by kexec_file_load, "
                f"which checks its signature", "use a kernel with CONFIG_KEXEC_FILE, or turn secure boot off")
    if state.lockdown:
        return (f"the kernel is locked down ({state.lockdown}), mostly because of secure boot, and the capture kernel "
                f"has no signature that it trusts", f"{_SIGNED}; or turn secure boot off")
    return ("a security module, a seccomp filter or a container forbids it",
            "run it on the host itself; see the audit log")


def _not_supported(system: System, attempt: Attempt) -> tuple[str, str]:
    wanted = "CONFIG_KEXEC_FILE" if attempt.call == "kexec_file_load" else "CONFIG_KEXEC"
    config = kernelconfig.config_of(system, attempt.release)
    if config is not None and config.get(wanted) == "y":
        return ("the call is forbidden: the kernel has it, so a seccomp filter or the machine's firmware does not let "
                "it through", "run it on the host itself")
    known = "was built without" if config is not None else "seems to be built without"
    return f"this kernel {known} {wanted}", "boot a kernel that has it: all large distributions' kernels do"


def _no_place(attempt: Attempt, state: CrashState) -> tuple[str, str]:
    if not state.reserved:
        return ("no memory is reserved for a capture kernel: `crashkernel=` is not on the running kernel's command "
                "line, or the machine has too little memory for it",
                "run `kdumpy setup`, then reboot; see the kernel's log for `crashkernel`")
    needed = _size(attempt)
    return (f"kernel and image, {human_bytes(needed)}, do not fit into the {human_bytes(state.reserved)} that are "
            f"reserved, in one piece beside what the kernel needs itself",
            "reserve more (`crashkernel` in /etc/kdumpy.toml, `kdumpy setup`, reboot), or make the image smaller")


def _invalid(system: System, attempt: Attempt) -> tuple[str, str]:
    for path in (attempt.kernel.path if attempt.kernel else "", attempt.initrd):
        place = system.path(path) if path else None
        if place is not None and not place.is_file():
            return f"{path} is not a regular file: the kernel reads no device", "copy it into a file"
        if place is not None and place.stat().st_size == 0:
            return f"{path} is empty", "build it again: `kdumpy image`"
    return ("the kernel refuses an argument: the command line may be too long for the capture kernel",
            "see the kernel's log; shorten the command line with image.cmdline_remove in /etc/kdumpy.toml")


def _size(attempt: Attempt) -> int:
    return attempt.initrd_bytes + (attempt.kernel.memory if attempt.kernel else 0)
