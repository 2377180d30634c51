"""Every error number of the kexec calls has its meaning on this machine, and its mend."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from armedhost import MIB, RELEASE, Host
from kdumpy.errors import HostError
from kdumpy.host import kexec, kexecerrors, loadcalls
from kdumpy.host.kernelfile import KernelFile
from kdumpy.host.kexecerrors import Attempt
from kdumpy.host.system import System


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def attempt(host: Host, call: str = "kexec_file_load", **changes: object) -> Attempt:
    path = f"/boot/vmlinuz-{RELEASE}"
    kernel = KernelFile(path, "bzImage", RELEASE, 8192, 60 * MIB, 2047)
    values: dict[str, object] = {"kernel": kernel, "initrd": "/image", "initrd_bytes": 9 * MIB, "release": RELEASE,
                                 **changes}
    return Attempt(call, **values)      # type: ignore[arg-type]


def told(host: Host, number: int, said: str = "", **changes: object) -> HostError:
    return kexecerrors.explain(host.system, number, attempt(host, **changes), said)  # type: ignore[arg-type]


def test_a_user_is_told_to_be_root(host: Host) -> None:
    host.write("/proc/self/status", "CapEff:\t0000000000000000\n")
    assert "only root" in told(host, errno.EPERM).why


def test_a_sysctl_that_forbids_it_is_named(host: Host) -> None:
    host.write("/proc/sys/kernel/kexec_load_disabled", "1\n")
    assert "kernel.kexec_load_disabled is set" in told(host, errno.EPERM).why
    host.write("/proc/sys/kernel/kexec_load_disabled", "0\n")
    host.write("/proc/sys/kernel/kexec_load_limit_panic", "0\n")
    assert "kernel.kexec_load_limit_panic is used up" in told(host, errno.EPERM).why


def test_lockdown_wants_a_signature_and_refuses_the_older_call(host: Host) -> None:
    host.write("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    found = told(host, errno.EPERM, "Lockdown: kexec: kexec of unsigned images is restricted")
    assert "no signature that it trusts" in found.why
    assert "the kernel says: Lockdown:" in found.why
    assert "mokutil" in found.mend
    assert "only by kexec_file_load" in told(host, errno.EPERM, call="kexec_load").why


def test_what_else_forbids_it(host: Host) -> None:
    assert "seccomp" in told(host, errno.EPERM).why


@pytest.mark.parametrize("number", sorted(kexecerrors.SIGNATURE))
def test_each_error_of_a_signature(host: Host, number: int) -> None:
    found = told(host, number)
    assert "sign" in found.why
    assert "signed" in found.mend
    assert errno.errorcode[number] in found.why


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENOMEM])
def test_without_a_reservation_each_answer_is_the_reservation(host: Host, number: int) -> None:
    host.write("/sys/kernel/kexec_crash_size", "0\n")
    found = told(host, number)
    assert "no memory is reserved" in found.why
    assert "kdumpy setup" in found.mend


def test_what_does_not_fit_is_told_with_its_size(host: Host) -> None:
    assert "69.0 MiB, do not fit into the 256.0 MiB" in told(host, errno.EADDRNOTAVAIL).why
    assert "memory is short" in told(host, errno.ENOMEM).why


def test_a_device_or_an_empty_file_is_what_einval_means(host: Host) -> None:
    (host.root / "image").mkdir()
    assert "/image is not a regular file: the kernel reads no device" in told(host, errno.EINVAL).why
    (host.root / "image").rmdir()
    host.write("/image", "")
    assert "/image is empty" in told(host, errno.EINVAL).why
    host.write("/image", "x")
    assert "the command line" in told(host, errno.EINVAL).why


def test_a_kernel_without_the_call_is_told_by_its_configuration(host: Host) -> None:
    assert "the kernel has it" in told(host, errno.ENOSYS).why
    host.write(f"/boot/config-{RELEASE}", "# CONFIG_KEXEC_FILE is not set\n")
    assert "this kernel was built without CONFIG_KEXEC_FILE" in told(host, kexecerrors.ENOTSUPP).why
    assert "ENOTSUPP" in told(host, kexecerrors.ENOTSUPP).why
    host.remove(f"/boot/config-{RELEASE}")
    assert "seems to be built without CONFIG_KEXEC" in told(host, errno.ENOSYS, call="kexec_load").why


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOEXEC, errno.ETXTBSY, errno.EACCES, errno.EFBIG, errno.EIO,
                                    errno.ENOENT, errno.EFAULT, errno.EBADF, errno.EXDEV])
def test_every_other_number_has_a_reason_and_a_mend(host: Host, number: int) -> None:
    found = told(host, number)
    assert errno.errorcode[number] in found.why
    assert found.mend
    assert found.where == f"/boot/vmlinuz-{RELEASE}"


def test_an_unload_is_told_as_one(host: Host) -> None:
    found = kexecerrors.explain(host.system, errno.EBUSY, Attempt("kexec_file_load", unload=True))
    assert found.what == "the kernel did not unload its capture kernel"


@pytest.mark.parametrize(("machine", "load", "file_load"), [
    ("x86_64", 246, 320), ("i686", 283, None), ("aarch64", 104, 294), ("ppc64le", 268, 382), ("s390x", 277, 381),
    ("riscv64", 104, 294), ("loongarch64", 104, 294), ("armv7l", 347, 401),
])
def test_the_numbers_of_the_calls(machine: str, load: int, file_load: int | None) -> None:
    assert kexec.calls(machine) == kexec.Calls(load, file_load)


def test_an_unknown_architecture_is_refused_with_a_mend() -> None:
    with pytest.raises(HostError, match="kexec-tools"):
        kexec.calls("alpha")
    assert not kexec.known("alpha")
    assert [kexec.takes_files(machine) for machine in ("alpha", "i686", "x86_64")] == [False, False, True]


def test_on_an_architecture_that_only_kexec_tools_know_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine="alpha"))
    with pytest.raises(OSError, match="not implemented") as refused:
        kexec.file_load(3, 4, "")
    assert refused.value.errno == errno.ENOSYS      # after which loadcalls tries them
    asked: list[object] = []
    monkeypatch.setattr(System, "run", lambda self, words: asked.append(words))
    loadcalls.take_out(System())
    assert asked == [("kexec", "--unload", "--load-panic")]


class Libc:
    """Stands for the C library: keeps the call, and answers with an error number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.words: list[object] = []
        self.syscall = self._syscall

    def __call__(self, name: object, *, use_errno: bool) -> Libc:
        assert use_errno
        return self

    def _made(self, *words: object) -> int:
        self.words = [getattr(word, "value", word) for word in words]
        ctypes.set_errno(self.number)
        return -1 if self.number else 0

    @property
    def _syscall(self) -> object:
        def call(*words: object) -> int:
            return self._made(*words)
        return call


def test_the_arguments_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = Libc(0)
    monkeypatch.setattr(ctypes, "CDLL", libc)
    monkeypatch.setattr(kexec, "calls", lambda machine="": kexec.Calls(246, 320))
    kexec.file_load(5, 6, "a=b")
    assert libc.words == [320, 5, 6, 4, b"a=b\0", kexec.FILE_ON_CRASH]
    kexec.file_load(5, None, "")
    assert libc.words == [320, 5, -1, 1, b"\0", kexec.FILE_ON_CRASH | kexec.FILE_NO_INITRAMFS]
    kexec.unload()
    assert libc.words == [320, -1, -1, 0, None, kexec.FILE_ON_CRASH | kexec.FILE_UNLOAD]
    libc.number = errno.EBUSY
    with pytest.raises(OSError) as caught:
        kexec.unload()
    assert caught.value.errno == errno.EBUSY


def test_without_the_newer_call_the_older_one_unloads(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = Libc(0)
    monkeypatch.setattr(ctypes, "CDLL", libc)
    monkeypatch.setattr(kexec, "calls", lambda machine="": kexec.Calls(283, None))
    kexec.unload()
    assert libc.words == [283, 0, 0, None, kexec.ON_CRASH]
    with pytest.raises(OSError) as caught:
        kexec.file_load(5, 6, "")
    assert caught.value.errno == errno.ENOSYS
