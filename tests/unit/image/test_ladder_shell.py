"""The shell's part of the ladder: which bare devices it may overwrite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

LADDER = Path(__file__).parents[3] / "src" / "kdumpy" / "image" / "files" / "ladder"
TABLE = b"kdumpy raw 1\ndirectory web-3\nstart %s\nend\n"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(2 << 20)
    done = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    node = done.stdout.strip()
    yield node
    subprocess.run(["losetup", "--detach", node], check=True)


def is_free(device: str) -> bool:
    """Run the ladder's own function, in the image's own shell."""
    functions = "\n".join(found[0] for found in re.findall(
        r"^((size_of_device|is_free)\(\) \{(?: .*\}|.*?^\}))$", LADDER.read_text(), re.MULTILINE | re.DOTALL))
    assert "is_free()" in functions
    assert "size_of_device()" in functions
    shell = [shutil.which("busybox") or "busybox", "sh", "-uc", f'{functions}\nis_free "$1"', "sh", device]
    return subprocess.run(shell, check=False).returncode == 0


def write(device: str, data: bytes, at: int = 0) -> None:
    with Path(device).open("r+b") as file:
        file.seek(at)
        file.write(data)
        os.fsync(file.fileno())


@pytest.mark.parametrize(("start", "free"), [
    (b"", True), (b"KDUMP   ", True), (b"makedumpfile\0\0\0\0", True), (b"\x7fELF\2\1\1", True),
    (b"XFSB", False), (b"\0" * 1080 + b"\x53\xef", False), (b"age-encryption.org/v1\n", False),
])
def test_what_a_device_begins_with_decides(device: str, start: bytes, free: bool) -> None:
    write(device, start)
    assert is_free(device) is free


def test_an_encrypted_dump_is_known_by_the_table_at_the_end(device: str) -> None:
    start = b"age-encryption.org/v1\n"
    write(device, start)
    write(device, TABLE % start[:16].hex().encode(), (2 << 20) - 4096)
    assert is_free(device)


def test_a_table_that_outlived_a_mkfs_frees_nothing(device: str) -> None:
    write(device, b"XFSB" + b"\0" * 4092)
    write(device, TABLE % b"age-encryption.org/v1"[:16].hex().encode(), (2 << 20) - 4096)
    assert not is_free(device)


@pytest.mark.parametrize(("free", "room"), [(9000, 4904), (4097, 1), (4096, 0), (100, 0)])
def test_the_room_of_a_full_disk_is_none_and_never_less(free: int, room: int) -> None:
    function = next(line for line in LADDER.read_text().splitlines() if line.startswith("room_of_directory() "))
    df = f"df() {{ echo Filesystem; echo /dev/vda1 100000 5 {free} 99% /; }}"
    for shell in ([shutil.which("busybox") or "busybox", "sh"], ["sh"]):
        done = subprocess.run([*shell, "-uc", f"{df}\n{function}\nroom_of_directory /"], capture_output=True, text=True,
                              check=True)
        assert done.stdout == f"{room}\n"
