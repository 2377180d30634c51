"""ssh as target, against a real daemon: its host key, its rights, its full disk."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpy.capture.targets import target_of
from kdumpy.dumpfile.sink import Sink
from kdumpy.errors import HostError, NoSpace, UsageError
from saving import SshServer, assert_is_the_dump, config, run, save_dump


def test_a_dump_arrives_as_a_flattened_stream(sshd: SshServer, tmp_path: Path) -> None:
    base = tmp_path / "with blank" / "crash"
    target = target_of(sshd.url(base).replace(" ", "%20"), sshd.config(sha256=True), "web-3-2026-11-23-17:58:57")
    target.prepare()
    directory = base / "web-3-2026-11-23-17:58:57"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    free = target.free_bytes()
    assert free is not None
    assert free > 1 << 20
    target.put("vmcore-dmesg.txt", b"[    0.000000] Linux\n" * 10000)
    assert save_dump(target) == "vmcore.flat"
    target.close()
    assert sorted(path.name for path in directory.iterdir()) == ["vmcore-dmesg.txt", "vmcore.flat"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert (directory / "vmcore-dmesg.txt").read_bytes() == b"[    0.000000] Linux\n" * 10000
    assert target.place("vmcore.flat") == f"root@127.0.0.1:{directory}/vmcore.flat"
    assert target.digest("vmcore.flat") == hashlib.sha256((directory / "vmcore.flat").read_bytes()).hexdigest()
    assert_is_the_dump(directory / "vmcore.flat")


def test_an_unknown_host_is_refused_with_the_mend(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("")
    with pytest.raises(HostError, match=r"Host key verification failed.*ssh-keyscan"):
        target_of(sshd.url(tmp_path), sshd.config(ssh_known_hosts=str(known)), "here").prepare()
    assert known.read_text() == ""
    assert not (tmp_path / "here").exists()


def test_a_host_with_another_key_is_refused(sshd: SshServer, tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {(tmp_path / 'other.pub').read_text()}")
    with pytest.raises(HostError, match="Host key verification failed"):
        target_of(sshd.url(tmp_path), sshd.config(ssh_known_hosts=str(known)), "here").prepare()


def test_a_key_that_does_not_open_the_door_is_told(sshd: SshServer, tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other")
    with pytest.raises(HostError, match=r"Permission denied.*authorized_keys of root@127.0.0.1"):
        target_of(sshd.url(tmp_path), sshd.config(ssh_key=str(tmp_path / "other")), "here").prepare()


def test_a_daemon_that_is_not_there_is_waited_for(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts.read_text().replace(str(sshd.port), "1"))
    settings = sshd.config(ssh_known_hosts=str(known), device_wait_s=3)
    before = time.monotonic()
    with pytest.raises(HostError, match="Connection refused"):
        target_of(f"ssh://root@127.0.0.1:1{tmp_path}", settings, "here").prepare()
    assert 2 <= time.monotonic() - before < 20


def fill(sink: Sink) -> None:
    for piece in range(256):
        sink.write_at(piece << 17, bytes(1 << 17))
    sink.close()


def test_a_full_disk_over_there_is_told_as_such(sshd: SshServer, tmpfs: Callable[[int], Path]) -> None:
    base = tmpfs(4)
    target = target_of(sshd.url(base), sshd.config(), "here")
    target.prepare()
    sink = target.open("vmcore")
    with pytest.raises(NoSpace, match="No space left on device"):
        fill(sink)
    assert target.abandon("vmcore") == f"root@127.0.0.1:{base}/here/vmcore-incomplete.flat"
    with pytest.raises(NoSpace, match="No space left"):
        target.put("vmcore-dmesg.txt", b"log" * 10000)
    target.discard("vmcore")
    assert [path for path in (base / "here").iterdir() if path.stat().st_size] == []
    target.put("vmcore-dmesg.txt", b"log")
    target.close()


def test_a_connection_that_breaks_leaves_the_incomplete_name(sshd: SshServer, tmp_path: Path) -> None:
    target = target_of(sshd.url(tmp_path), sshd.config(), "here")
    target.prepare()
    sink = target.open("vmcore")
    sink.write_at(0, bytes(1 << 16))
    deadline = time.monotonic() + 10
    incomplete = tmp_path / "here" / "vmcore-incomplete.flat"
    while time.monotonic() < deadline and not (incomplete.exists() and incomplete.stat().st_size > 4096):
        time.sleep(0.05)
    assert target.abandon("vmcore").endswith("vmcore-incomplete.flat")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["vmcore-incomplete.flat"]
    target.close()


def test_a_directory_that_cannot_be_made_is_told(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostError, match=r"Not a directory|File exists"):
        target_of(sshd.url(tmp_path / "file" / "dir"), sshd.config(), "here").prepare()


def test_nothing_of_the_command_line_can_be_an_option_or_a_script(sshd: SshServer, tmp_path: Path) -> None:
    base = tmp_path / "$(touch oops)'; touch oops; '"
    target = target_of(sshd.url(tmp_path) + "/$(touch%20oops)'%3B%20touch%20oops%3B%20'", sshd.config(), "here")
    target.prepare()
    target.put("vmcore-dmesg.txt", b"log")
    assert (base / "here" / "vmcore-dmesg.txt").read_bytes() == b"log"
    assert not list(tmp_path.rglob("oops"))


@pytest.mark.parametrize("url", ["ssh://host/dir", "ssh://user@host", "ssh://user@host/", "ssh://user:pw@host/dir",
                                 "ssh://user@host/a/../b", "ssh://user@host:port/dir", "ssh://-oX=y@host/dir"])
def test_a_url_that_is_not_whole_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        target_of(url, config(ssh_key="/key", ssh_known_hosts="/known"))


def test_key_and_known_hosts_are_asked_for() -> None:
    with pytest.raises(UsageError, match="ssh_key is needed"):
        target_of("ssh://user@host/dir", config())
    with pytest.raises(UsageError, match="ssh_known_hosts is needed"):
        target_of("ssh://user@host/dir", config(ssh_key="/key"))
