"""Encryption to a public key: what arrives is opened with the private one alone, by the tools' own commands."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdumpy.capture.targets import programs, rawtable, target_of
from kdumpy.capture.targets.encrypted import cipher_of
from kdumpy.dumpfile.sink import Sink
from kdumpy.errors import HostError, NoSpace
from saving import SshServer, assert_is_the_dump, config, need_program, run, save_dump


@dataclass
class Key:
    encrypt: str
    """As the configuration names it."""
    suffix: str
    decrypt: list[str]

    def open(self, encrypted: Path, plain: Path) -> Path:
        plain.write_bytes(run(*self.decrypt, data=encrypted.read_bytes()))
        return plain


def age_key(folder: Path) -> Key:
    need_program("age", "age-keygen")
    run("age-keygen", "-o", folder / "age.key")
    public = run("age-keygen", "-y", folder / "age.key").decode().strip()
    return Key(public, ".age", ["age", "--decrypt", "-i", str(folder / "age.key")])


def gpg_key(folder: Path) -> Key:
    need_program("gpg")
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    run(*gpg, "--quick-generate-key", "crash@example.org", "future-default", "default", "never")
    (folder / "public.gpg").write_bytes(run(*gpg, "--export", "crash@example.org"))
    return Key(f"gpg:{folder / 'public.gpg'}", ".gpg", [*gpg, "--decrypt"])


@pytest.fixture(params=[age_key, gpg_key], ids=["age", "gpg"], scope="module")
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    folder = tmp_path_factory.mktemp("key")
    yield request.param(folder)
    if (folder / "gnupg").is_dir():     # gpg left its agent running
        run("gpgconf", "--homedir", folder / "gnupg", "--kill", "gpg-agent")


def test_dump_and_log_are_opened_with_the_private_key(key: Key, tmp_path: Path) -> None:
    target = target_of(str(tmp_path), config(encrypt=key.encrypt), "here")
    target.prepare()
    target.put("vmcore-dmesg.txt", b"[    0.000000] a secret")
    target.put("kexec-dmesg.log", b"steps")
    assert save_dump(target) == f"vmcore.flat{key.suffix}"
    target.close()
    folder = tmp_path / "here"
    assert sorted(path.name for path in folder.iterdir()) == [
        "kexec-dmesg.log", f"vmcore-dmesg.txt{key.suffix}", f"vmcore.flat{key.suffix}"]
    assert (folder / "kexec-dmesg.log").read_bytes() == b"steps"
    log = folder / f"vmcore-dmesg.txt{key.suffix}"
    assert b"secret" not in log.read_bytes()
    assert key.open(log, tmp_path / "log").read_bytes() == b"[    0.000000] a secret"
    assert b"makedumpfile" not in (folder / f"vmcore.flat{key.suffix}").read_bytes()
    assert_is_the_dump(key.open(folder / f"vmcore.flat{key.suffix}", tmp_path / "vmcore.flat"))
    assert target.place("vmcore-dmesg.txt") == str(log)


def test_it_works_through_ssh_and_on_a_bare_device(key: Key, tmp_path: Path, sshd: SshServer,
                                                   loop: Callable[[int], Path]) -> None:
    device = loop(128)
    for url in (sshd.url(tmp_path), f"raw:{device}"):
        target = target_of(url, sshd.config(encrypt=key.encrypt, sha256=True), "here")
        target.prepare()
        name = save_dump(target)
        digest = target.digest(name)
        target.put(f"{name}.sha256", f"{digest}  {name}\n".encode())
        target.close()
        folder = tmp_path / "here"
        if url.startswith("raw:"):
            (tmp_path / "collected").mkdir()
            folder = rawtable.collect(device, tmp_path / "collected")
        done = subprocess.run(["sha256sum", "-c", f"{name}.sha256"], cwd=folder, check=False, capture_output=True)
        assert done.returncode == 0
        assert_is_the_dump(key.open(folder / name, tmp_path / "vmcore.flat"))


def fill(sink: Sink) -> None:
    import random

    chance = random.Random(1)
    for piece in range(64):
        sink.write_at(piece << 18, chance.randbytes(1 << 18))
    sink.close()


def test_a_full_disk_behind_the_cipher_is_told_as_such(key: Key, tmpfs: Callable[[int], Path]) -> None:
    base = tmpfs(4)
    target = target_of(str(base), config(encrypt=key.encrypt), "here")
    target.prepare()
    with pytest.raises(NoSpace, match="No space left"):
        fill(target.open("vmcore"))
    assert target.abandon("vmcore") == str(base / "here" / f"vmcore-incomplete.flat{key.suffix}")
    target.discard("vmcore")
    target.put("kexec-dmesg.log", b"why")
    target.close()
    assert [path.name for path in (base / "here").iterdir()] == ["kexec-dmesg.log"]


def test_the_programs_see_the_public_key_and_nothing_else(key: Key) -> None:
    command = cipher_of(key.encrypt).command()
    allowed = {key.encrypt.removeprefix("gpg:")}
    others = [word for word in command[1:] if not word.startswith("-") and word not in allowed
              and not word.startswith("/tmp/kdumpy-gpg-")]
    assert others in ([], ["always", "none"])
    assert programs(config(encrypt=key.encrypt)) == [command[0]]


@pytest.mark.parametrize("encrypt", ["age1" + "q" * 58, "gpg:/no/such/file"])
def test_nothing_is_reached_when_the_key_is_of_no_use(encrypt: str, tmp_path: Path) -> None:
    need_program("age", "gpg")
    with pytest.raises(HostError, match="cannot encrypt"):
        target_of(str(tmp_path), config(encrypt=encrypt), "here").prepare()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_reached_when_the_program_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"the program is not here.*build the capture image again"):
        target_of(str(tmp_path), config(encrypt="age1" + "q" * 58), "here").prepare()
    assert list(tmp_path.iterdir()) == []
