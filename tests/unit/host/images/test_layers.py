"""The script that brings up what lies between the disks and a target; and the modules that it takes."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kdumpy.host import settings
from kdumpy.host.images import layers, stage
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


def run(script: str, tmp_path: Path, shell: tuple[str, ...], **programs: str) -> str:
    """Run a script whose programs are these, and return what it wrote of its steps."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
        script = script.replace(f'{name} "UUID', f'{tools}/{name} "UUID')     # busybox takes its own findfs first
    place = tmp_path / "layers"
    place.write_text(script.replace("/run/kdumpy", str(tmp_path)))
    done = subprocess.run([*shell, place], capture_output=True, text=True, check=False, timeout=60,
                          env={"PATH": f"{tools}:/usr/bin:/bin"})
    assert (done.returncode, "syntax" in done.stderr) == (0, False), done.stderr
    return (tmp_path / "steps").read_text()


SHELLS = pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh"), ("bash", "--posix")],
                                 ids=["sh", "busybox", "bash"])


@SHELLS
def test_an_encrypted_device_that_appears_late_is_waited_for(host: RecordedSystem, tmp_path: Path,
                                                             shell: tuple[str, ...]) -> None:
    """First the device is not there; then it is, and its header cannot be read yet; then it is opened."""
    count = f"echo x >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -gt"
    steps = run(layers.script(needs(host, "/c/dumps", wait=30), wait=True), tmp_path, shell,
                findfs=f"{count} 2 ] && echo /dev/null", cryptsetup=f"{count} 5 ] || exit 4")
    assert steps == "kdumpy: layers: the encrypted device safe is there\n"


@SHELLS
@pytest.mark.parametrize(("code", "told"), [(2, "cryptsetup ended with 2: No key available"),
                                            (4, "cryptsetup ended with 4: No key available")])
def test_a_wrong_key_and_a_device_that_stays_away_are_told_and_not_waited_for_for_ever(
        host: RecordedSystem, tmp_path: Path, code: int, told: str, shell: tuple[str, ...]) -> None:
    steps = run(layers.script(needs(host, "/c/dumps", wait=1), wait=True), tmp_path, shell,
                findfs="echo /dev/null", cryptsetup=f"echo x >>{tmp_path}/calls; echo No key available; exit {code}")
    assert (told in steps, "stays away" in steps or "did not appear in 1 s" in steps) == (True, True), steps
    assert (len((tmp_path / "calls").read_text().splitlines()) == 1) is (code == 2)


@SHELLS
def test_names_are_data_and_no_shell_reads_them(host: RecordedSystem, tmp_path: Path, shell: tuple[str, ...]) -> None:
    odd = f"md_$(touch {tmp_path}/owned)\n touch {tmp_path}/owned #'\""
    found = needs(host, "/b")
    bent = tuple(replace(device, layers=tuple(
        replace(layer, name=f"{odd}{number}", detail=layer.detail if layer.kind == "raid" else odd)
        for number, layer in enumerate(device.layers))) for device in found.devices)
    bad = replace(found, devices=bent)
    assert "mdadm --assemble" in layers.script(bad, wait=True)
    run(layers.script(bad, wait=True), tmp_path, shell)
    assert not (tmp_path / "owned").exists()


@SHELLS
def test_a_module_is_found_without_the_find_program(tmp_path: Path, shell: tuple[str, ...]) -> None:
    text = (stage.OWN / "begin").read_text()
    function = text[text.index("find_module() {"):text.index("insert() {")]
    for name in ("kernel/drivers/md/dm-mod.ko", "kernel/drivers/md/dm-crypt.ko.xz", "updates/raid1.ko",
                 "kernel/lib/dm-mod-extra.ko"):
        put(tmp_path, f"modules/{name}", b"")
    (tmp_path / "modules/build").symlink_to(tmp_path)
    for name, there in (("dm[-_]mod", "kernel/drivers/md/dm-mod.ko"), ("raid1", "updates/raid1.ko"),
                        ("dm[-_]crypt", "kernel/drivers/md/dm-crypt.ko.xz"), ("dm[-_]thin", "")):
        done = subprocess.run([*shell, "-c", f"{function}\nfind_module '{name}' {tmp_path}/modules"], text=True,
                              capture_output=True, check=False)
        assert done.stdout.strip() == (f"{tmp_path}/modules/{there}" if there else ""), done.stderr
    assert "find " not in re.sub("(?m)^ *#.*$", "", text.replace("find_module", ""))


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
