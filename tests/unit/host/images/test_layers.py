"""The script that brings up what lies between the disks and a target; and the modules that it takes."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kdumpy.host import settings
from kdumpy.host.images import layers
from kdumpy.host.images.needs import Needs, look
from kdumpy.image.modules import ModuleTree
from recordedhost import RecordedSystem, put, recorded


@pytest.fixture
def host(tmp_path: Path) -> RecordedSystem:
    system = recorded(tmp_path)
    put(system.root, "etc/crypttab", "safe /dev/nvme0n1p1 /etc/safe.key luks,keyfile-size=32\n")
    put(system.root, "etc/safe.key", b"x" * 64)
    for name in ("sdc", "sdd"):
        place = system.root / "sys/fs/btrfs/11111111-2222-4333-8444-000000000004/devices" / name
        place.mkdir(parents=True, exist_ok=True)
    return system


def needs(host: RecordedSystem, *targets: str, wait: int = 0) -> Needs:
    listed = ", ".join(f'"{target}"' for target in targets)
    return look(host, settings.parse(f"[capture]\ntargets = [{listed}]\ndevice_wait_s = {wait}\n"))


def test_nothing_is_done_for_a_plain_disk(host: RecordedSystem) -> None:
    assert layers.script(needs(host, "/a/var/crash"), wait=True) == ""


def test_arrays_come_before_the_volumes_on_them_and_only_the_target_s_own(host: RecordedSystem) -> None:
    text = layers.script(needs(host, "/b"), wait=True)
    assert text.index("mdadm --assemble") < text.index("lvm lvchange")
    assert "--ignoreactivationskip vg-0/var-crash" in text
    assert "vgchange" not in text
    assert "cryptsetup" not in text


def test_an_encrypted_device_is_opened_by_its_uuid_and_asks_nobody(host: RecordedSystem) -> None:
    text = layers.script(needs(host, "/c/dumps"), wait=False)
    assert ("cryptsetup open --type luks --batch-mode --tries 1 --keyfile-size 32 --key-file /etc/kdumpy/keys/safe "
            "\"$device\" safe") in text
    assert text.endswith("bring_up &\n")


@pytest.mark.parametrize("target", ["/b", "/c/dumps", "/d", "/e/crash"])
@pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh"), ("bash", "--posix")], ids=["sh", "busybox", "bash"])
def test_any_shell_takes_it_and_it_ends_where_no_device_comes(host: RecordedSystem, tmp_path: Path, target: str,
                                                              shell: tuple[str, ...]) -> None:
    """The real script, with no mdadm, LVM or disk of that kind at hand: it says so, and ends in time."""
    steps = tmp_path / "steps"
    text = layers.script(needs(host, target), wait=True).replace("/run/kdumpy", str(tmp_path))
    place = tmp_path / "layers"
    place.write_text(text)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run([*shell, place], capture_output=True, text=True, check=False, timeout=60,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(empty)})
    assert done.returncode == 0, done.stderr
    assert "did not appear in 0 s; there are" in steps.read_text() or "stays away" in steps.read_text()
    assert "syntax" not in done.stderr


@pytest.mark.parametrize(("name", "parts"), [
    ("vg-lv", ("vg", "lv")), ("crash--vg-dumps", ("crash-vg", "dumps")), ("a--b-c--d", ("a-b", "c-d")),
    ("vg--0-var--crash", ("vg-0", "var-crash"))])
def test_names_of_device_mapper_are_read(name: str, parts: tuple[str, str]) -> None:
    assert layers.names_of(name) == parts


def test_hidden_parts_of_a_volume_are_not_asked_for(host: RecordedSystem) -> None:
    found = needs(host, "/b")
    device = found.devices[0]
    hidden = replace(device.layers[0], name="dm-9", detail="vg-pool_tdata", uuid=device.layers[0].uuid + "-tdata")
    with_hidden = replace(found, devices=(replace(device, layers=(*device.layers, hidden)),))
    assert "pool_tdata" not in layers.script(with_hidden, wait=True)


def test_a_missing_program_is_a_reason(host: RecordedSystem) -> None:
    assert "mdadm is not installed" in layers.missing(host, needs(host, "/b"))
    for name in ("mdadm", "lvm"):
        put(host.root, f"usr/sbin/{name}", b"")
    assert layers.missing(host, needs(host, "/b")) == ""


def test_modules_are_those_of_the_level_and_what_the_system_has_loaded(host: RecordedSystem, tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    names = ("dm-mod", "dm-crypt", "dm-thin-pool", "dm-cache", "raid1", "raid456", "md-mod")
    put(folder, "modules.dep", "".join(f"kernel/drivers/md/{name}.ko:\n" for name in names))
    put(host.root, "proc/modules", "dm_thin_pool 1 0 - Live 0x0\nraid456 1 0 - Live 0x0\ndm_crypt 1 0 - Live 0x0\n")
    assert layers.modules(host, ModuleTree(folder), needs(host, "/b")) == ("md_mod", "dm_mod", "raid1", "dm_thin_pool")


def test_uuids_of_arrays_are_written_as_mdadm_has_them() -> None:
    text = layers._md_uuid("53a9b712-d16b-54ae-a0b2-1511c4d0f76b")
    assert text == "53a9b712:d16b54ae:a0b21511:c4d0f76b"


def test_the_script_is_an_ingredient(host: RecordedSystem) -> None:
    before = layers.script(needs(host, "/b"), wait=True)
    place = host.path("/sys/class/block/md0").resolve() / "md" / "uuid"
    place.parent.mkdir(exist_ok=True)
    place.write_text("00000000-0000-0000-0000-000000000009\n")
    assert layers.script(needs(host, "/b"), wait=True) != before


def test_all_devices_of_a_file_system_are_waited_for(host: RecordedSystem) -> None:
    assert "btrfs device ready" in layers.script(needs(host, "/e/crash"), wait=True)
