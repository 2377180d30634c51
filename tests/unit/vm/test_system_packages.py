"""tools/system-packages, with dpkg-query, apt-get and id played by scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "system-packages"

APT_GET = """#!/bin/sh
echo "$*" >>{log}
case $1 in update) touch {updated} ;; install) [ -e {updated} ] || [ ! -e {stale} ] ;; esac
"""


class System:
    """A system whose PATH holds only what a test puts there."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        for program in ("sh", "sed", "mktemp", "rm", "tail", "touch"):
            (self.bin / program).symlink_to(f"/bin/{program}")
        self.log = directory / "log"
        self.stale = directory / "stale"
        self.updated = directory / "updated"

    def put(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)

    def debian(self, *installed: str, user: int = 0) -> None:
        names = "|".join(installed) or "none"
        self.put("dpkg-query", f'#!/bin/sh\ncase $3 in {names}) printf installed ;; *) exit 1 ;; esac\n')
        self.put("apt-get", APT_GET.format(log=self.log, updated=self.updated, stale=self.stale))
        self.put("apt-cache", '#!/bin/sh\necho "  Candidate: 1.0"\n')
        self.put("id", f"#!/bin/sh\necho {user}\n")

    def run(self, *groups: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(SCRIPT), *groups], env={"PATH": str(self.bin)}, capture_output=True,
                              text=True, check=False)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_only_what_is_missing_is_installed(system: System) -> None:
    system.debian("kmod", "e2fsprogs", "makedumpfile")
    done = system.run("lab", "bench")
    assert done.returncode == 0
    assert system.log.read_text().splitlines() == [
        "install --yes --no-install-recommends -qq -o Dpkg::Use-Pty=0 "
        "qemu-system-x86 qemu-system-arm busybox-static kexec-tools debian-archive-keyring mmdebstrap dmsetup crash "
        "gcc libc6-dev"]
    assert "installing qemu-system-x86" in done.stderr


def test_nothing_is_said_or_done_when_all_is_there(system: System) -> None:
    system.debian("python3", "python3-venv")
    done = system.run("python")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not system.log.exists()


def test_old_lists_are_fetched_again(system: System) -> None:
    system.debian()
    system.stale.touch()
    assert system.run("python").returncode == 0
    assert [line.split()[0] for line in system.log.read_text().splitlines()] == ["install", "update", "install"]


def test_a_user_is_told_what_to_install(system: System) -> None:
    system.debian("crash", "gcc", "libc6-dev", user=1000)
    done = system.run("bench")
    assert done.returncode == 3
    assert done.stderr == "system-packages: not root; run: apt-get install --no-install-recommends makedumpfile\n"
    assert not system.log.exists()


def test_another_distribution_is_told_what_to_install(system: System) -> None:
    done = system.run("bench")
    assert done.returncode == 3
    assert "not Debian" in done.stderr
    assert "crash makedumpfile" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("groups", [(), ("labs",)])
def test_a_wrong_call_is_a_usage_error(system: System, groups: tuple[str, ...]) -> None:
    system.debian()
    done = system.run(*groups)
    assert done.returncode == 2
    assert "lab" in done.stderr
