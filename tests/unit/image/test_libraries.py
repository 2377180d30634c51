from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.image import libraries


@pytest.mark.parametrize("program", ["/bin/ls", "/usr/bin/python3", "/sbin/mke2fs", "/usr/bin/makedumpfile",
                                     "/usr/bin/qemu-system-x86_64"])
def test_the_closure_is_what_ldd_says(program: str) -> None:
    if not Path(program).exists():
        pytest.skip(f"{program} is not installed")
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    theirs = {Path(path).resolve() for path in re.findall(r"(/\S+) \(0x", shown)}
    ours = {path.resolve() for path in libraries.closure([Path(program)])}
    assert ours == theirs


def test_a_static_program_needs_nothing() -> None:
    if shutil.which("busybox") is None or "statically" not in subprocess.run(
            ["ldd", "/bin/busybox"], capture_output=True, text=True, check=False).stderr + "statically":
        pytest.skip("no static busybox")
    assert libraries.closure([Path("/bin/busybox")]) == ()


def test_the_loader_is_part_of_the_closure() -> None:
    dynamic = libraries.read_dynamic(Path("/bin/ls").resolve())
    assert dynamic.interpreter is not None
    assert Path(dynamic.interpreter) in libraries.closure([Path("/bin/ls")])


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + bytes(10)])
def test_what_is_not_elf_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(data)
    with pytest.raises(HostError, match="ELF"):
        libraries.read_dynamic(path)


def test_a_damaged_elf_is_refused(tmp_path: Path) -> None:
    data = bytearray(Path("/bin/ls").read_bytes()[:2000])
    struct.pack_into("<Q", data, 32, 1 << 40)       # program headers beyond the end
    path = tmp_path / "program"
    path.write_bytes(data)
    with pytest.raises(HostError, match="damaged ELF"):
        libraries.read_dynamic(path)


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copyfile("/bin/ls", tmp_path / "bin/ls")
    with pytest.raises(HostError, match=r"libselinux|libc\.so"):
        libraries.closure([Path("/bin/ls")], tmp_path)


def test_a_root_of_its_own_is_searched_by_its_own_configuration(tmp_path: Path) -> None:
    for path in [Path("/bin/ls"), *libraries.closure([Path("/bin/ls")])]:
        target = tmp_path / ("opt/odd" if ".so" in path.name else "bin") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
    (tmp_path / "etc/ld.so.conf.d/odd.conf").write_text("# ours\n/opt/odd\n")
    found = libraries.closure([Path("/bin/ls")], tmp_path)
    assert {path.parent for path in found if "ld-linux" not in path.name} == {Path("/opt/odd")}
