"""Rehearsals for real: a whole one through the command line; and everything that can go wrong, brought about.

One is in the default run; KDUMPY_MATRIX=full takes the rest.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hosttree
import lab
import tinykernel
from kdumpy.cli import main as cli
from kdumpy.cli import rehearsing
from kdumpy.dumpfile import open_dump
from kdumpy.host import images, rehearsed, settings
from kdumpy.host.system import System
from kdumpy.vm import bootparams, capturing, kernels, programs, rehearsal, standin, targetdisk
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.qemu import qemu_devices
from kdumpy.vm.rehearsal import Rehearsed, Subject
from kdumpy.vm.rehearsalguest import fault_of
from kdumpy.vm.troubles import Stage
from saving import need_program, need_root, run

MIB = 1 << 20

full = pytest.mark.skipif(not lab.FULL, reason="KDUMPY_MATRIX=full takes it")


def rehearse(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and its JSON."""
    code = cli.main(["rehearse", "--json", *map(str, words)])
    said = capsys.readouterr()
    assert said.out, said.err
    return code, json.loads(said.out)


def named(kernel: Kernel) -> tuple[str | Path, ...]:
    return "--kernel", kernel.image, "--modules", kernel.modules.directory


def test_a_named_kernel_is_rehearsed_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = kernels.get("6.1")
    keep = tmp_path / "kept"
    code, answer = rehearse(capsys, *named(kernel), "--crashkernel", "192M", "--keep", keep)
    assert code == 0, answer["trouble"]
    assert answer["release"] == kernel.release
    dump = answer["dump"]
    assert (dump["health"], dump["cause"], dump["confidence"]) == ("complete", "sysrq", "certain")
    assert dump["release"] == kernel.release
    assert [phase["stage"] for phase in answer["phases"]] == [stage.value for stage in Stage]
    memory = answer["memory"]
    assert memory["reserved"] == answer["crashkernel"] == 192 * MIB
    assert 8 * MIB < memory["process"] < memory["used"] < memory["total"] < memory["reserved"]
    assert memory["least"] > 0
    # By trying, 112M do and 96M do not.
    assert 112 * MIB <= answer["need"] < answer["smallest_safe_crashkernel"] <= 192 * MIB
    assert sorted(path.name for path in keep.iterdir()) == ["capture", "cmdline", "console.log", "crash"]
    with open_dump(keep / "crash/vmcore") as kept:
        assert kept.vmcoreinfo.osrelease == kernel.release
    assert "crashkernel=196608K" in (keep / "cmdline").read_text()


@full
@pytest.mark.parametrize("line", ["5.10", "6.12", "newest"])
def test_other_kernels_are_rehearsed(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = rehearse(capsys, *named(kernels.get(line)))
    assert code == 0, answer["trouble"]
    assert answer["dump"]["cause"] == "sysrq"


@full
@pytest.mark.parametrize("fault", ["nmi", "init-exit", "out-of-memory"])
def test_other_faults_are_brought_about(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = rehearse(capsys, *named(kernels.get("6.1")), "--fault", fault)
    assert code == 0, (answer["trouble"], answer["dump"])
    assert answer["dump"]["cause"] == fault


@full
def test_a_bisection_finds_what_trying_by_hand_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = rehearse(capsys, *named(kernels.get("6.1")), "--bisect", "--crashkernel", "64M")
    assert code == 0, answer["trouble"]
    tried = {one["crashkernel"] // MIB: one["works"] for one in answer["tries"]}
    assert tried[64] is False
    assert tried[128] is True
    smallest = answer["bisected_crashkernel"]
    assert tried[smallest // MIB] is True
    assert tried[smallest // MIB - 16] is False
    assert answer["need"] == smallest



# --- this host's own image ---

def tree_of(root: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when a file of the tree does."""
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()
            and "lib/modules" not in str(path)}


def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> System:
    """Return a host with a capture image, which the command takes for the machine that it runs on."""
    need_root("the state of a host is root's")
    need_program("mkfs.xfs", "busybox")
    root = tmp_path / "root"
    root.mkdir()
    kernel = kernels.get("6.1")
    system = hosttree.make(root, kernel, **more)
    images.build(system, settings.load(system), kernel.release)
    monkeypatch.setattr(rehearsing, "System", lambda: system)
    return system


@full
def test_this_hosts_image_saves_to_a_disk_like_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    system = host(tmp_path, monkeypatch)
    before = tree_of(system.root)
    code, answer = rehearse(capsys)
    assert code == 0, answer["trouble"]
    assert answer["image"] == {"origin": "host", "path": str(system.path(images.path_of(answer["release"])))}
    assert answer["target"] == {"filesystem": "xfs", "uuid": hosttree.UUID, "bus": "nvme"}
    assert answer["crashkernel"] == 256 * MIB           # as this host has reserved
    assert "slub_debug=P" in answer["guest"]["cmdline"]
    assert answer["host"]["cpus"] == 32
    assert any("/var/crash/db7-" in step for step in answer["steps"])
    after = tree_of(system.root)
    record = rehearsed.PATH[1:]
    assert {name: value for name, value in after.items() if name != record} == before
    assert rehearsed.need(system, answer["release"]) == answer["smallest_safe_crashkernel"]
    assert rehearsed.need(system, "another") is None


@full
def test_a_target_and_drivers_that_a_guest_cannot_have_are_replaced(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    host(tmp_path, monkeypatch, toml='[capture]\ntargets = ["raw:/dev/nvme0n1p2"]\nraw_overwrite = true\n')
    devices = qemu_devices()
    monkeypatch.setattr(targetdisk, "qemu_devices", lambda: devices - {"nvme"})
    code, answer = rehearse(capsys)
    assert code == 0, answer["trouble"]
    assert answer["target"]["bus"] == "virtio-blk"
    notes = " ".join(answer["not_rehearsed"])
    assert "raw:/dev/nvme0n1p2 cannot be rehearsed" in notes
    assert "virtio_blk is added" in notes


@full
def test_an_encrypted_dump_is_left_to_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    need_program("age", "age-keygen")
    run("age-keygen", "-o", tmp_path / "key")
    public = run("age-keygen", "-y", tmp_path / "key").decode().strip()
    host(tmp_path, monkeypatch, filesystem="ext4", programs=("age",),
         toml=f'[capture]\ntargets = ["/var/crash"]\nencrypt = "{public}"\n')
    code, answer = rehearse(capsys, "--keep", tmp_path / "kept")
    assert code == 0, answer["trouble"]
    assert answer["dump"]["health"] == "encrypted"
    assert any("encrypted" in note for note in answer["not_rehearsed"])
    (sealed,) = (tmp_path / "kept/crash").glob("vmcore.*age")
    (tmp_path / "vmcore").write_bytes(run("age", "-d", "-i", tmp_path / "key", sealed))
    with open_dump(tmp_path / "vmcore") as dump:
        assert dump.vmcoreinfo.osrelease == answer["release"]


# --- what goes wrong ---

@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    kernel = kernels.get("6.1")
    work = tmp_path_factory.mktemp("image")
    made = standin.build(kernel.modules, work / "image", disk_mib=1024)
    text, _left = bootparams.crashed("", 192 * MIB)
    return Subject(kernel=kernel.image, release=kernel.release, modules=kernel.modules, image=work / "image",
                   unpacked=made.built.unpacked, cmdline=text, capture_cmdline=bootparams.capture(capturing.CMDLINE),
                   crashkernel=192 * MIB, disk=made.disk, fault=fault_of("sysrq", 640), memory_mib=640)


def fails(subject: Subject, work: Path) -> Rehearsed:
    """Run a rehearsal that must fail, and soon."""
    done = rehearsal.run(subject, work)
    assert done.trouble is not None, done.steps
    assert done.seconds < 90
    return done


@full
@pytest.mark.parametrize(("mib", "stage", "words"), [
    (32, Stage.LOAD, "do not fit into the reservation"),
    (64, Stage.START, "ran out of memory"),
    (96, Stage.START, "ran out of memory"),
])
def test_a_reservation_that_is_too_small(subject: Subject, tmp_path: Path, mib: int, stage: Stage,
                                         words: str) -> None:
    done = fails(rehearsal.with_reservation(subject, mib * MIB), tmp_path)
    assert done.trouble is not None
    assert (done.trouble.stage, done.trouble.short_of_memory) == (stage, True)
    assert words in done.trouble.what
    assert "crashkernel" in done.trouble.mend
    assert done.dump is None


@full
def test_a_reservation_that_the_machine_cannot_give(subject: Subject, tmp_path: Path) -> None:
    done = fails(rehearsal.with_reservation(subject, 2048 * MIB), tmp_path)
    assert done.trouble is not None
    assert "reserved no memory" in done.trouble.what
    assert done.trouble.why


@full
@pytest.mark.parametrize("damage", ["cut", "scrambled"])
def test_an_image_that_is_broken(subject: Subject, tmp_path: Path, damage: str) -> None:
    data = bytearray(subject.image.read_bytes())
    if damage == "cut":
        data = data[:1 << 16]
    else:
        data[1000:9000] = bytes(reversed(data[1000:9000]))
    (tmp_path / "broken").write_bytes(data)
    (tmp_path / "run").mkdir()
    done = fails(replace(subject, image=tmp_path / "broken"), tmp_path / "run")
    assert done.trouble is not None
    assert "image" in done.trouble.what
    assert not done.trouble.short_of_memory
    assert "kdumpy image" in done.trouble.mend


@full
def test_a_target_that_is_full(subject: Subject, tmp_path: Path) -> None:
    done = fails(replace(subject, disk=replace(subject.disk, mib=14)), tmp_path)
    assert done.trouble is not None
    assert "too little space" in done.trouble.what
    assert done.trouble.mend
    assert done.directory is not None
    assert "sysrq" in (done.directory / "vmcore-dmesg.txt").read_text()
    assert done.dump is None


@full
def test_a_target_that_is_not_there(subject: Subject, tmp_path: Path) -> None:
    done = fails(replace(subject, disk=replace(subject.disk, uuid="")), tmp_path)
    assert done.trouble is not None
    assert standin.UUID in done.trouble.why


@full
def test_a_kernel_that_cannot_capture(subject: Subject, tmp_path: Path) -> None:
    done = fails(replace(subject, kernel=tinykernel.image()), tmp_path)
    assert done.trouble is not None
    assert done.trouble.what == "this kernel cannot load a capture kernel"
    assert "CONFIG_CRASH_DUMP" in done.trouble.mend


@full
def test_a_fault_that_does_nothing(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", {**rehearsal.SECONDS, Stage.CRASH: 5})
    done = fails(replace(subject, fault=replace(subject.fault, trigger=":", seconds=1)), tmp_path)
    assert done.trouble is not None
    assert "did not bring the kernel down" in done.trouble.what


@full
def test_without_busybox_the_machines_own_programs_do(subject: Subject, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda name: None)
    done = rehearsal.run(subject, tmp_path)
    assert done.trouble is None
    assert done.dump is not None
