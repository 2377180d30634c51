"""The whole promise, on a whole Debian: install, setup, reboot, crash, dump and report, undo.

systemd, GRUB on a disk, an ext4 root, initramfs-tools: nothing in the guest knows of the laboratory but the agent that
takes commands. It is one long story, told in the order of the tests.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import packaged
from debianstory import Story, begun, check_order

pytestmark = pytest.mark.skipif(os.environ.get("KDUMPY_MATRIX") != "full",
                                reason="six boots of a whole system: taken in the full matrix only")

STATE = r"""
cd /
skip='-path var/lib/systemd -o -path var/lib/dhcp -o -path var/lib/dbus -o -name __pycache__'
crash=$(ls -d var/crash 2>/dev/null || true)
find etc boot root var/lib $crash -xdev \( $skip \) -prune -o -printf '%y %m %u %g %p %l\n' | LC_ALL=C sort
find usr opt boot -xdev \( $skip \) -prune -o -type f -printf '%p %s %T@\n' | grep -v ^boot/grub/ | LC_ALL=C sort
find etc boot/grub root var/lib/kdumpy var/crash -xdev -type f -not -name '*.deb' -print0 2>/dev/null |
    LC_ALL=C sort -z | xargs -0 md5sum
"""
"""Names, modes, owners, links and contents of all that a setup could touch. Hashing all of /usr takes minutes under
emulation: there, and of kernels, size and time tell."""


@pytest.fixture(scope="module")
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with begun(tmp_path_factory.mktemp("debian"), request.session.testsfailed) as told:
        yield told


@pytest.fixture(autouse=True)
def in_order(story: Story, request: pytest.FixtureRequest) -> None:
    check_order(story, request)


def test_the_package_installs_without_a_network(story: Story) -> None:
    package = packaged.deb()
    story.guest.put(package, "/root/kdumpy.deb")
    story.guest.shell("dpkg --install /root/kdumpy.deb", seconds=300)
    assert story.guest.shell("kdumpy --version").startswith("kdumpy ")
    story.guest.shell("ls /usr/share/man/man1/kdumpy.1.gz /usr/share/man/man5/kdumpy.toml.5.gz "
                      "/usr/share/bash-completion/completions/kdumpy")
    status = story.guest.run(("kdumpy", "status"))
    assert status.code == 1, status
    assert "NOT READY" in status.out
    story.before = story.guest.shell(STATE)


def test_a_dry_run_changes_nothing(story: Story) -> None:
    said = story.guest.shell("kdumpy setup --dry-run")
    assert "crashkernel=" in said
    assert "/etc/kdumpy.toml" in said
    assert story.guest.shell(STATE) == story.before


def test_setup_arms_it_and_a_second_one_does_nothing(story: Story) -> None:
    said = story.guest.shell("kdumpy setup --yes", seconds=900)
    assert "Reboot once" in said
    second = json.loads(story.guest.shell("kdumpy setup --yes --json"))
    assert second["empty"], second


def test_after_the_reboot_it_is_ready(story: Story) -> None:
    story.guest.reboot()
    assert re.search(r"crashkernel=\d+M", story.guest.shell("cat /proc/cmdline"))
    status = story.guest.run(("kdumpy", "status"))
    assert status.code == 0, status.out + story.guest.shell("journalctl -b -u kdumpy --no-pager | tail -20")
    assert "READY" in status.out
    assert json.loads(story.guest.shell("kdumpy setup --yes --json"))["empty"]


def test_a_real_crash_leaves_a_dump_and_a_report_with_the_right_cause(story: Story) -> None:
    story.guest.send(("kdumpy", "test", "--yes-crash-this-machine"))
    story.guest.wait_for_boot(600)
    rows = json.loads(story.guest.shell("kdumpy list --json"))
    assert [row["state"] for row in rows] == ["complete"]
    folder = str(Path(rows[0]["path"]).parent)
    assert re.fullmatch(r"/var/crash/web-3-\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d", folder)
    deadline = time.monotonic() + 120
    while story.guest.run(("systemctl", "is-active", "--quiet", "kdumpy-report.service")).code == 0:
        assert time.monotonic() < deadline
        time.sleep(1)
    report = json.loads(story.guest.get(f"{folder}/report.json"))
    assert report["verdict"]["cause"] == "sysrq"
    assert report["dump"]["health"] == "complete"
    assert "sysrq" in story.guest.get(f"{folder}/vmcore-dmesg.txt").decode().lower()
    assert "kdumpy: saved" in story.guest.get(f"{folder}/kexec-dmesg.log").decode()
    modes = story.guest.shell(f"stat -c '%a %U %n' {folder} {folder}/*").splitlines()
    assert {line.split()[0] for line in modes[1:]} == {"600"}
    assert modes[0].startswith("700 root")
    assert "sysrq" in story.guest.shell("journalctl -b -u kdumpy-report --no-pager").lower()
    login = story.guest.run(("script", "-qec", "env HISTFILE= login -p -f root", "/dev/null"), stdin="exit\n").out
    assert "web-3 crashed:" in login, login
    assert "this was kdumpy test" in login


def test_it_is_armed_for_the_next_crash(story: Story) -> None:
    assert story.guest.run(("kdumpy", "status")).code == 0


def test_undo_gives_back_every_byte(story: Story) -> None:
    story.guest.shell("rm -rf /var/crash/web-3-*")
    undone = story.guest.run(("kdumpy", "setup", "--undo", "--yes"), seconds=300)
    assert undone.code == 0, undone
    after = story.guest.shell(STATE)
    assert set(after.splitlines()) ^ set(story.before.splitlines()) == set()       # tells what differs
    assert after == story.before
    assert story.guest.shell("cat /sys/kernel/kexec_crash_loaded").strip() == "0"
    assert "crashkernel" not in story.guest.shell("cat /boot/grub/grub.cfg")
