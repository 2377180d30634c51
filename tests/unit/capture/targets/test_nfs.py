"""NFS: what is asked of mount. A server and a kernel that knows NFS are in tests/vm."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from kdumpy.capture.targets import mounting, nfs, target_of
from kdumpy.errors import HostError, UsageError
from saving import config


class Mount:
    """Stands in for mount: keeps what it was asked, refuses some exports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: dict[str, str], *, helper: bool) -> None:
        self.asked: list[tuple[str, str]] = []
        self.refused = refused
        monkeypatch.setattr(mounting, "mount", self.mount)
        monkeypatch.setattr(mounting, "unmount", lambda where: mounting.remove_mount_point(where))
        monkeypatch.setattr(nfs, "_helper", lambda: helper)

    def mount(self, kind: str, what: str, where: Path, *options: str, seconds: float, helper: bool) -> None:
        chosen = ",".join(option for option in options if option)
        self.asked.append((what, chosen))
        for words, why in self.refused.items():
            if words in f"{what} {chosen}":
                mounting.remove_mount_point(where)
                raise HostError("cannot mount the target", why=why)


def test_the_deepest_directory_that_is_there_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(monkeypatch, {"/srv/crash/web ": "mount.nfs: mounting a:/… failed, reason given by server: "
                                "No such file or directory"}, helper=True)
    target = target_of("nfs://server/srv/crash/web", config(), "here")
    assert isinstance(target, nfs.NfsTarget)
    where, inside = target._mount()
    assert mount.asked == [
        ("server:/srv/crash/web", "nosuid,nodev,noexec,soft,timeo=150,retrans=4,retry=0"),
        ("server:/srv/crash", "nosuid,nodev,noexec,soft,timeo=150,retrans=4,retry=0")]
    assert inside == PurePosixPath("web")
    mounting.remove_mount_point(where)
    assert target.place("vmcore") == "nfs://server/srv/crash/web/here/vmcore"


def test_without_the_helper_the_kernel_is_told_address_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(monkeypatch, {"vers=4": "mount: mounting failed: Protocol not supported"}, helper=False)
    target = target_of("nfs://127.0.0.1:12049/dir", config(nfs_options="hard"), "here")
    assert isinstance(target, nfs.NfsTarget)
    where, _inside = target._mount()
    mounting.remove_mount_point(where)
    assert [options for _what, options in mount.asked] == [
        f"nosuid,nodev,noexec,hard,{version},port=12049,addr=127.0.0.1"
        for version in ("vers=4.2", "vers=4.0", "vers=3,proto=tcp,nolock")]


def test_a_version_is_not_given_up_because_a_directory_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(monkeypatch, {"/srv/a": "failed: No such file or directory", "vers=4.0": "Protocol not supported",
                                "vers=3": "Protocol not supported"}, helper=False)
    target = target_of("nfs://127.0.0.1/srv/a/b", config(), "here")
    assert isinstance(target, nfs.NfsTarget)
    where, inside = target._mount()
    mounting.remove_mount_point(where)
    assert [what for what, _options in mount.asked] == [f"127.0.0.1:/srv{rest}" for rest in ("/a/b", "/a", "")]
    assert inside == PurePosixPath("a/b")


def test_a_version_that_was_chosen_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(monkeypatch, {"vers": "Protocol not supported"}, helper=False)
    with pytest.raises(HostError, match="Protocol not supported"):
        target_of("nfs://[::1]/x", config(nfs_options="nfsvers=4.1"), "here").prepare()
    assert mount.asked == [("[::1]:/x", "nosuid,nodev,noexec,nfsvers=4.1,addr=::1")]


def test_a_server_that_does_not_answer_is_no_reason_to_try_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(monkeypatch, {"server": "Connection timed out"}, helper=True)
    with pytest.raises(HostError, match="timed out"):
        target_of("nfs://server/a/b/c", config(), "here").prepare()
    assert len(mount.asked) == 1


def test_a_name_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Mount(monkeypatch, {}, helper=False)
    monkeypatch.setattr(mounting, "MOUNTS", tmp_path)
    with pytest.raises(HostError, match=r"cannot find the NFS server.*address in place of its name"):
        target_of("nfs://no-such-host.invalid/x", config(), "here").prepare()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["nfs:///export", "nfs://user@server/x", "nfs://server/a/../b", "nfs://server:x/y"])
def test_a_url_that_is_not_whole_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        target_of(url, config())
