"""A whole Debian that is armed, in trouble: its dump goes to a server; its disk is full; too little memory is reserved.

One story, told in the order of the tests. What a host cannot save has to be told before the crash and after it, and
the machine has to come up again by itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import packaged
from debianstory import Story, begun, check_order
from kdumpy.dumpfile import open_dump
from nfsserver import HOST, NfsServer, serving

pytestmark = pytest.mark.skipif(os.environ.get("KDUMPY_MATRIX") != "full",
                                reason="ten boots of a whole system: taken in the full matrix only")

NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net")

COMES_BACK_S = 900
"""Seconds from a crash to the agent's greeting after it: two boots, on a busy machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    with serving(tmp_path_factory.mktemp("nfs")) as started:
        yield started


@pytest.fixture(scope="module")
def story(server: NfsServer, request: pytest.FixtureRequest,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with begun(tmp_path_factory.mktemp("debian"), request.session.testsfailed, NETWORK) as told:
        told.guest.put(packaged.deb(), "/root/kdumpy.deb")
        told.guest.shell("dpkg --install /root/kdumpy.deb", seconds=300)
        yield told


@pytest.fixture(autouse=True)
def in_order(story: Story, request: pytest.FixtureRequest) -> None:
    check_order(story, request)


def status(story: Story) -> dict[str, Any]:
    """Return what `kdumpy status --json` says."""
    found: dict[str, Any] = json.loads(story.guest.run(("kdumpy", "status", "--json")).out)
    # Shown where a test fails.
    print(story.guest.shell("journalctl -b -u kdumpy --no-pager -o short-monotonic | tail -20; uptime"))
    print(story.guest.run(("kdumpy", "status")).out)
    return found


def crash(story: Story, *options: str) -> float:
    """Crash the guest; return the seconds until it was back, all of its boot's reports written."""
    started = time.monotonic()
    story.guest.send(("kdumpy", "test", "--yes-crash-this-machine", *options))
    story.guest.wait_for_boot(COMES_BACK_S)
    took = time.monotonic() - started
    deadline = time.monotonic() + 180
    while "active" in story.guest.run(("systemctl", "is-active", "kdumpy-report.service")).out.split():
        assert time.monotonic() < deadline
        time.sleep(1)
    return took


def told_at_boot(story: Story) -> str:
    """Return the journal's lines of the report service, and the message of the next log-in."""
    journal = story.guest.shell("journalctl -b -u kdumpy-report --no-pager -o cat")
    return journal + story.guest.shell("cat /run/motd.d/kdumpy 2>/dev/null || true")


def test_a_dump_goes_to_a_server(story: Story, server: NfsServer) -> None:
    url = f"nfs://{HOST}:{server.port}/srv/dumps"
    said = story.guest.shell(f"kdumpy setup --yes --target {url}", seconds=900)
    assert "Reboot once" in said
    story.guest.reboot()
    found = status(story)
    assert found["ready"], found
    assert url in found["verdict"]
    print(f"\ncame back after {crash(story):.0f} s")
    (folder,) = (server.folder / "dumps").iterdir()
    assert folder.name.startswith("web-3-2")
    assert {"vmcore", "vmcore-dmesg.txt", "kexec-dmesg.log"} <= {file.name for file in folder.iterdir()}
    with open_dump(folder / "vmcore") as dump:
        assert not dump.incomplete
        assert dump.utsname is not None
        assert dump.utsname.nodename == "web-3"
    assert "sysrq" in (folder / "vmcore-dmesg.txt").read_text().lower()
    last = status(story)["checks"]["last-crash"]
    assert (last["facts"]["kind"], last["facts"]["cause"]) == ("elsewhere", "`kdumpy test` crashed it")
    assert url in last["reason"]
    assert f"dumps went to {url}" in told_at_boot(story)


def test_a_full_disk_is_told_before_the_crash(story: Story) -> None:
    story.guest.shell("kdumpy setup --yes --target /var/crash", seconds=900)
    assert status(story)["ready"]
    # What ext4 keeps for root takes a dump, too; 16 MiB that it keeps for itself do not.
    blocks, size = map(int, story.guest.shell("stat -f -c '%f %S' /").split())
    story.guest.shell(f"fallocate -l {blocks * size - (22 << 20)} /root/ballast", seconds=300)
    found = status(story)
    assert found["ready"] is False
    assert "NOT READY: about " in found["verdict"]
    assert " and only " in found["verdict"]
    assert "free on /var/crash" in found["verdict"]
    refused = story.guest.run(("kdumpy", "test", "--yes-crash-this-machine"))
    assert refused.code == 1
    assert "not crashed" in refused.err


def test_on_a_full_disk_the_log_is_saved_and_the_next_boot_says_why_no_more(story: Story) -> None:
    print(f"\ncame back after {crash(story, '--force'):.0f} s")
    (row,) = json.loads(story.guest.shell("kdumpy list --json"))
    print(row, told_at_boot(story))
    assert row["state"] in ("log", "incomplete")
    folder = str(Path(row["path"]).parent)
    print(story.guest.shell(f"ls -la {folder}; df -h /; cat {folder}/kexec-dmesg.log | grep kdumpy:"))
    assert "sysrq" in story.guest.get(f"{folder}/vmcore-dmesg.txt").decode().lower()
    assert "space" in told_at_boot(story)
    last = status(story)["checks"]["last-crash"]
    assert (last["verdict"], last["facts"]["kind"]) == ("warn", "partly")
    assert "space" in last["reason"]
    assert "make room" in last["mend"]
    story.guest.shell("rm /root/ballast; rm -rf /var/crash/web-3-*")


def test_too_small_a_reservation_is_told_by_setup_and_by_status(story: Story) -> None:
    said = story.guest.shell("kdumpy setup --yes --crashkernel 72M", seconds=900)
    assert "less than the advised" in said
    assert "would not start" in status(story)["checks"]["next-boot"]["reason"]
    story.guest.reboot()
    found = status(story)
    assert found["ready"] is False
    assert "72.0 MiB are reserved" in found["verdict"]
    assert "larger crashkernel" in found["checks"]["memory"]["mend"]
    assert story.guest.run(("kdumpy", "test", "--yes-crash-this-machine")).code == 1


def test_with_too_small_a_reservation_it_comes_back_and_says_why_there_is_no_dump(story: Story) -> None:
    print(f"\ncame back after {crash(story, '--force'):.0f} s")
    assert json.loads(story.guest.shell("kdumpy list --json")) == []
    last = status(story)["checks"]["last-crash"]
    assert (last["verdict"], last["facts"]["kind"]) == ("warn", "lost")
    assert "72.0 MiB were reserved" in last["reason"]
    assert "larger crashkernel" in last["mend"]
    assert "72.0 MiB were reserved" in told_at_boot(story)
