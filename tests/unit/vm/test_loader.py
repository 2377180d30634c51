"""The program that loads a capture kernel in a guest: run here, where the call is refused, and disassembled."""

from __future__ import annotations

import errno
import platform
import subprocess
from pathlib import Path

import capstone  # type: ignore[import-untyped]
import pytest

from kdumpy.vm import loader


@pytest.fixture
def program(tmp_path: Path) -> Path:
    if platform.machine() != "x86_64":
        pytest.skip("an x86-64 program")
    path = tmp_path / "load-capture"
    path.write_bytes(loader.program())
    path.chmod(0o755)
    return path


def test_the_kernels_answer_is_the_exit_code(program: Path, tmp_path: Path) -> None:
    # An empty file is no kernel: a kernel with the call says so to root, and refuses others.
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    done = subprocess.run([program, empty, empty, "console=ttyS0 a"], check=False)
    assert done.returncode in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ENOEXEC, errno.EADDRNOTAVAIL)


def test_it_makes_the_calls_that_it_should() -> None:
    found = [(one.mnemonic, one.op_str) for one in
             capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(loader.CODE, loader.BASE)]
    numbers = [text for name, text in found if name == "mov" and text.startswith("eax, ")]
    # open, open, kexec_file_load, exit. Source: arch/x86/entry/syscalls/syscall_64.tbl
    assert [int(text.removeprefix("eax, "), 0) for text in numbers] == [2, 2, 320, 60]
    assert sum(name == "syscall" for name, _ in found) == 4
    assert ("mov", "r8d, 2") in found                       # KEXEC_FILE_ON_CRASH
    assert ("mov", "r10, qword ptr [rsp + 0x20]") in found   # the command line: argv[3]
    loop = next(int(text, 16) for name, text in found if name == "jne")
    at = next(one.address for one in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(
        loader.CODE, loader.BASE) if one.mnemonic == "cmp")
    assert loop == at
