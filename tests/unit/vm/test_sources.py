from __future__ import annotations

from pathlib import Path

from kdumpy.vm.sources import DEFAULT_MAIN, DEFAULT_SECURITY, debian_archive

DEB822 = """Types: deb
# a mirror of ours
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs:
 http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
"""

ONE_LINE = """# deb http://commented.example/debian bookworm main
deb-src http://sources.example/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] https://one.example/debian bookworm main contrib
deb https://one.example/debian-security bookworm-security main # why not
deb https://packages.example/cloud-sdk cloud main
"""


def system(directory: Path, name: str, text: str) -> Path:
    (directory / "sources.list.d").mkdir(exist_ok=True)
    (directory / name).write_text(text)
    return directory


def test_the_address_comes_from_deb822(tmp_path: Path) -> None:
    archive = debian_archive(system(tmp_path, "sources.list.d/debian.sources", DEB822))
    assert archive.main == "http://mirror.example/debian"
    assert archive.security == "http://mirror.example/debian-security"


def test_the_address_comes_from_one_line_sources(tmp_path: Path) -> None:
    archive = debian_archive(system(tmp_path, "sources.list", ONE_LINE))
    assert archive.main == "https://one.example/debian"
    assert archive.security == "https://one.example/debian-security"


def test_a_file_that_apt_does_not_read_is_not_read(tmp_path: Path) -> None:
    archive = debian_archive(system(tmp_path, "sources.list.d/debian.sources.disabled", DEB822))
    assert (archive.main, archive.security) == (DEFAULT_MAIN, DEFAULT_SECURITY)


def test_another_distribution_uses_debians_own_address(tmp_path: Path) -> None:
    ubuntu = "deb http://archive.ubuntu.com/ubuntu noble main\ndeb http://vendor.example/linux/debian bookworm stable\n"
    archive = debian_archive(system(tmp_path, "sources.list", ubuntu))
    assert archive.main == DEFAULT_MAIN


def test_sid_has_no_security_suite(tmp_path: Path) -> None:
    archive = debian_archive(system(tmp_path, "sources.list", ONE_LINE))
    assert len(archive.lines("sid")) == 1
    bookworm = archive.lines("bookworm")
    assert [line.split("] ")[1] for line in bookworm] == [
        "https://one.example/debian bookworm main", "https://one.example/debian-security bookworm-security main"]
