"""By which call a capture kernel is loaded: kexec_file_load; else kexec_load, by ourselves or by kexec-tools."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdumpy.errors import HostError
from kdumpy.host import kernelfile, kexec, kexecerrors, kexecx86, packages
from kdumpy.host.kernellog import KernelLog
from kdumpy.host.kexecerrors import Attempt
from kdumpy.host.system import System

Say = Callable[[str], None]
"""Is told what is going on, a line at a time."""

RUN = "/run/kdumpy"
"""Files of this boot."""

_TRIES, _PAUSE_S = 10, 0.5
"""Another program that loads or unloads is done in a few seconds."""

_COMPLAINTS = 3
"""Lines of kexec-tools that are told."""

_ELSEWHERE = {errno.ENOSYS, errno.EOPNOTSUPP, kexecerrors.ENOTSUPP}
"""Errors after which kexec_load is tried: this kernel has no kexec_file_load."""


def put(system: System, attempt: Attempt, text: str, say: Say, call: str) -> tuple[str, str, str]:
    """Load a capture kernel; return by what, why not by kexec_file_load, and what was complained of all the same.

    Args:
        system: the running system.
        attempt: what is loaded.
        text: the command line.
        say: is told what is done.
        call: `kexec_file_load` or `kexec_load`, to have just that; else empty.

    Raises:
        HostError: the kernel refuses; why, and the mend.
    """
    if call == "kexec_load":
        _by_segments(system, replace(attempt, call="kexec_load"), text)
        return "kexec_load", "as wished", ""
    with KernelLog(system) as log:
        try:
            _by_files(system, attempt, text)
            return "kexec_file_load", "", ""
        except OSError as error:
            number = error.errno or 0
            said = log.about_loading(signature=number in kexecerrors.ABOUT_SIGNATURES)
    reason = kexecerrors.explain(system, number, attempt, said)
    if number in _ELSEWHERE and not call:
        say(f"by kexec_load, because {reason.why}")
        if attempt.kernel is not None and attempt.kernel.kind == "bzImage" and kexecx86.suits(attempt.release):
            _by_segments(system, replace(attempt, call="kexec_load"), text)
            return "kexec_load", reason.why, ""
        if system.which("kexec") is not None:
            return "kexec-tools", reason.why, _by_kexec_tools(system, attempt, text, reason)
        raise HostError(reason.what, where=reason.where, why=reason.why,
                        mend=f"{reason.mend}; or install kexec-tools, which know other calls: "
                             f"{packages.advice(system, 'kexec')}")
    raise reason


def take_out(system: System) -> None:
    """Unload the capture kernel.

    Raises:
        OSError: the kernel refused.
        HostError: only kexec-tools know this architecture, and they are not there or failed.
    """
    if kexec.known():
        kexec.unload()
    else:
        system.run(("kexec", "--unload", "--load-panic"))


def patiently(call: Callable[[], None]) -> None:
    """Make a call; wait a little where another program is in it.

    Raises:
        OSError: the kernel refused.
    """
    for left in reversed(range(_TRIES)):
        try:
            call()
            return
        except OSError as error:
            if error.errno != errno.EBUSY or not left:
                raise
        time.sleep(_PAUSE_S)


def _by_segments(system: System, attempt: Attempt, text: str) -> None:
    """Load by kexec_load, with segments that are laid out here."""
    if not kexecx86.suits(attempt.release):
        raise HostError("kdumpy itself uses kexec_load on x86-64 and Linux 5.5 or newer only", why=attempt.release,
                        mend="install kexec-tools, which is used where this kernel has no kexec_file_load")
    assert attempt.kernel is not None
    text = " ".join([text, *kexecx86.further_parameters(system)])
    try:
        kernel, initrd = (system.path(path).read_bytes() for path in (attempt.kernel.path, attempt.initrd))
    except OSError as error:
        raise HostError("cannot read what is to be loaded", where=str(error.filename),
                        why=error.strerror or str(error)) from error
    layout = kexecx86.lay_out(system, kernel, initrd, text)
    with KernelLog(system) as log:
        try:
            patiently(lambda: kexec.segments_load(layout.entry, layout.segments))
        except OSError as error:
            raise kexecerrors.explain(system, error.errno or 0, attempt, log.about_loading()) from error


def _by_files(system: System, attempt: Attempt, text: str) -> None:
    assert attempt.kernel is not None
    source = system.path(attempt.kernel.path)
    unpacked = kernelfile.plain(attempt.kernel, source)
    with tempfile.TemporaryDirectory(dir=system.path(RUN)) as folder:
        if unpacked is not None:
            # No file that is open for writing is taken: it is closed, and opened again.
            source = system.path(f"{RUN}/{Path(folder).name}/kernel")
            source.write_bytes(unpacked)
        kernel = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            initrd = os.open(system.path(attempt.initrd), os.O_RDONLY | os.O_CLOEXEC)
            try:
                patiently(lambda: kexec.file_load(kernel, initrd, text))
            finally:
                os.close(initrd)
        finally:
            os.close(kernel)


def _by_kexec_tools(system: System, attempt: Attempt, text: str, reason: HostError) -> str:
    """Load by kexec-tools; return what they complained of: they load with half of the facts, and end with 0.

    Such as "Can't get the symbol of _text to calculate page_offset" on arm64 without CONFIG_KALLSYMS_ALL: the
    dump's headers are made with a page_offset of 0 then.
    """
    assert attempt.kernel is not None
    done = system.run(("kexec", "--load-panic", "--kexec-syscall", f"--initrd={attempt.initrd}",
                       f"--command-line={text}", attempt.kernel.path), seconds=120, check=False)
    if done.code:
        raise HostError(reason.what, where=reason.where, mend=reason.mend,
                        why=f"{reason.why}; and kexec-tools says: {done.told}")
    return "; ".join(line.strip() for line in done.err.splitlines()[-_COMPLAINTS:] if line.strip())
