"""Keys of encrypted targets: where they are looked for, and why a device is refused that nobody could open."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.host import settings
from kdumpy.host.images import luks
from kdumpy.host.images.needs import Needs, look
from kdumpy.host.system import Done
from recordedhost import RecordedSystem, put, recorded

TARGET = '[capture]\ntargets = ["/c/dumps"]\n'
UUID = "UUID"


@pytest.fixture
def host(tmp_path: Path) -> RecordedSystem:
    return recorded(tmp_path)


def needs(host: RecordedSystem) -> Needs:
    return look(host, settings.parse(TARGET))


def uuid_of(host: RecordedSystem) -> str:
    digits = (host.value("/sys/class/block/dm-1/dm/uuid") or "").split("-")[2]
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@pytest.mark.parametrize("line", ["safe /dev/nvme0n1p1 /etc/safe.key luks", "# x\nother UUID={uuid} /etc/safe.key",
                                  "safe UUID={uuid} /etc/safe.key luks,discard,keyfile-size=32,keyslot=1"])
def test_the_key_of_crypttab_is_carried(host: RecordedSystem, line: str) -> None:
    put(host.root, "etc/crypttab", line.format(uuid=uuid_of(host)) + "\n")
    put(host.root, "etc/safe.key", b"x" * 64)
    found = needs(host)
    assert found.files["etc/kdumpy/keys/safe"] == "/etc/safe.key"
    assert found.locks[0].flags == (("--keyfile-size", "32", "--key-slot", "1") if "32" in line else ())
    assert found.locks[0].uuid == uuid_of(host)


def test_a_key_for_the_capture_alone_wins_over_a_typed_passphrase(host: RecordedSystem) -> None:
    put(host.root, "etc/crypttab", "safe /dev/nvme0n1p1 none luks\n")
    put(host.root, "etc/kdumpy/luks/safe.key", b"x" * 64)
    assert needs(host).files["etc/kdumpy/keys/safe"] == "/etc/kdumpy/luks/safe.key"


def test_systemd_s_place_for_keys_is_known(host: RecordedSystem) -> None:
    put(host.root, "etc/crypttab", "safe /dev/nvme0n1p1 - \n")
    put(host.root, "etc/cryptsetup-keys.d/safe.key", b"x" * 64)
    assert needs(host).locks[0].key == "/etc/cryptsetup-keys.d/safe.key"


@pytest.mark.parametrize(("crypttab", "why"), [
    ("", "does not name it"), ("safe /dev/nvme0n1p1 none luks\n", "names no key file"),
    ("safe /dev/nvme0n1p1\n", "names no key file"), ("safe /dev/nvme0n1p1 - tpm2-device=auto\n", "TPM"),
    ("safe /dev/nvme0n1p1 /x keyscript=/lib/y\n", "a script gives the key"),
    ("safe /dev/nvme0n1p1 /key:LABEL=stick luks\n", "no file of this system"),
    ("safe /dev/nvme0n1p1 /dev/urandom luks\n", "no file of this system")])
def test_what_nobody_could_open_is_refused_with_the_mend(host: RecordedSystem, crypttab: str, why: str) -> None:
    put(host.root, "etc/crypttab", crypttab)
    with pytest.raises(HostError) as refused:
        needs(host)
    assert why in refused.value.why
    assert "luksAddKey --pbkdf pbkdf2" in refused.value.mend
    assert "/etc/kdumpy/luks/safe.key" in refused.value.mend


@pytest.mark.parametrize("data", [None, b""])
def test_a_key_file_that_is_none_is_refused(host: RecordedSystem, data: bytes | None) -> None:
    put(host.root, "etc/crypttab", "safe /dev/nvme0n1p1 /etc/safe.key luks\n")
    if data is not None:
        put(host.root, "etc/safe.key", data)
    with pytest.raises(HostError, match="key file"):
        needs(host)


def test_plain_encryption_is_refused(host: RecordedSystem) -> None:
    place = host.path("/sys/class/block/dm-1").resolve() / "dm" / "uuid"
    place.write_text("CRYPT-PLAIN-safe\n")
    with pytest.raises(HostError, match="no LUKS device"):
        needs(host)


@pytest.mark.parametrize(("user", "what", "mend"), [
    (0, "the key does not open the encrypted target", "luksAddKey"),
    (1000, "is for root to see", "run it as root")])
def test_a_key_that_does_not_open_is_told_and_who_may_not_try_is_not_told_to_make_another(
        host: RecordedSystem, monkeypatch: pytest.MonkeyPatch, user: int, what: str, mend: str) -> None:
    put(host.root, "etc/kdumpy/luks/safe.key", b"x" * 64)
    lock = needs(host).locks[0]
    monkeypatch.setattr(RecordedSystem, "run", lambda system, words, **limits: Done(2, "", "No key available."))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(HostError, match=what) as refused:
        luks.prove(host, lock)
    assert mend in refused.value.mend


def luks_file(path: Path, *words: str) -> Path:
    """Make a LUKS container in a file, with cryptsetup itself."""
    with path.open("wb") as file:
        file.truncate(20 << 20)
    subprocess.run(["cryptsetup", "luksFormat", "--batch-mode", "--key-file", "-", *words, path], input=b"x" * 32,
                   check=True)
    return path


def test_memory_that_a_key_takes_is_read_from_a_real_header(tmp_path: Path) -> None:
    path = luks_file(tmp_path / "a", "--pbkdf", "argon2id", "--pbkdf-memory", "65536", "--pbkdf-force-iterations", "4",
                     "--pbkdf-parallel", "1")
    key = tmp_path / "key"
    key.write_bytes(b"y" * 64)
    subprocess.run(["cryptsetup", "luksAddKey", "--batch-mode", "--key-file", "-", "--pbkdf", "pbkdf2",
                    "--pbkdf-force-iterations", "1000", path, key], input=b"x" * 32, check=True)
    values = luks.header(path)
    assert luks.memory_of(values, "0") == 64 << 20
    assert luks.memory_of(values, "1") == 0
    assert luks.memory_of(values) == 64 << 20


def test_luks1_takes_no_memory(tmp_path: Path) -> None:
    path = luks_file(tmp_path / "a", "--type", "luks1", "--pbkdf-force-iterations", "1000")
    assert luks.memory_of(luks.header(path)) == 0


@pytest.mark.parametrize("data", [b"", b"LUKS", b"\0" * 8192, b"LUKS\xba\xbe\0\2" + b"\xff" * 8,
                                  struct.pack(">6sHQ", b"LUKS\xba\xbe", 2, 16384).ljust(4096, b"\0") + b"{nonsense"])
def test_a_damaged_header_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(HostError):
        luks.header(path)


@pytest.mark.parametrize("values", [{}, {"keyslots": 1}, {"keyslots": {"0": 1, "1": {"kdf": 1}}},
                                    {"keyslots": {"0": {"kdf": {"memory": "x"}}}}])
def test_a_strange_header_counts_for_nothing(values: dict[str, object]) -> None:
    assert luks.memory_of(json.loads(json.dumps(values)), "0") == 0
