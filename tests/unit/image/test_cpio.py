from __future__ import annotations

import io
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.image.cpio import Archive, read


def _sample(tmp_path: Path) -> Archive:
    copied = tmp_path / "copied"
    copied.write_bytes(b"z" * 4099)
    archive = Archive()
    archive.add_symlink("bin/sh", "busybox")
    archive.add_file("/bin/busybox", b"#!ELF", 0o755)
    archive.add_file("etc/empty", b"")
    archive.add_file("srv/copied", copied)
    archive.add_directory("tmp", 0o1777)
    archive.add_device("dev/console", "c", 5, 1)
    archive.add_device("dev/vda", "b", 254, 16)
    return archive


def _bytes(archive: Archive) -> bytes:
    stream = io.BytesIO()
    archive.write(stream)
    return stream.getvalue()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    archive = _sample(tmp_path)
    entries = list(read(_bytes(archive)))
    assert [entry.name for entry in entries] == [
        "bin", "bin/busybox", "bin/sh", "dev", "dev/console", "dev/vda", "etc", "etc/empty",
        "srv", "srv/copied", "tmp"]
    by_name = {entry.name: entry for entry in entries}
    assert by_name["srv/copied"].contents() == b"z" * 4099
    assert by_name["bin/sh"].contents() == b"busybox"
    assert stat.S_ISLNK(by_name["bin/sh"].mode)
    assert by_name["dev/vda"].device == (254, 16)
    assert stat.S_ISBLK(by_name["dev/vda"].mode)
    assert by_name["tmp"].mode == stat.S_IFDIR | 0o1777
    assert by_name["bin/busybox"].mode == stat.S_IFREG | 0o755


def test_the_order_of_adding_does_not_change_a_byte() -> None:
    one, other = Archive(), Archive()
    one.add_file("a", b"1")
    one.add_file("b/c", b"2")
    other.add_file("b/c", b"2")
    other.add_file("a", b"1")
    assert _bytes(one) == _bytes(other)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_the_system_cpio_extracts_it(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    data = _bytes(_sample(tmp_path))
    listing = subprocess.run(["cpio", "-itv", "--quiet"], input=data, capture_output=True, check=True).stdout.decode()
    rows = {line.split()[-1]: line.split() for line in listing.splitlines() if "->" not in line}
    assert rows["dev/console"][0] == "crw-------"
    assert rows["dev/console"][4:6] == ["5,", "1"]
    assert rows["tmp"][0] == "drwxrwxrwt"
    subprocess.run(["cpio", "-id", "--quiet", "bin/*", "etc/*", "srv/*"], input=data, cwd=target, check=True)
    assert (target / "srv/copied").read_bytes() == b"z" * 4099
    assert (target / "bin/sh").readlink() == Path("busybox")
    assert (target / "bin/busybox").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("cut", [3, 109, 200, -600])
def test_a_cut_archive_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(HostError, match=r"cpio"):
        list(read(_bytes(_sample(tmp_path))[:cut]))


def test_a_path_may_not_leave_the_archive() -> None:
    with pytest.raises(ValueError, match="leaves the archive"):
        Archive().add_file("../etc/passwd", b"")
