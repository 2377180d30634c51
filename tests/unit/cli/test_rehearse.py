"""What `kdumpy rehearse` makes of its arguments, and of what came of it; the rehearsal itself: tests/vm."""

from __future__ import annotations

import argparse
import json
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdumpy.cli import rehearsalsubject, rehearsaltext, rehearse, rehearsing
from kdumpy.cli.rehearsalsubject import Found
from kdumpy.cli.rehearsing import Answer, Opened, Try
from kdumpy.errors import HostError, UsageError
from kdumpy.host import need, rehearsed, settings
from kdumpy.host.images import BuiltImage, layers
from kdumpy.host.images.needs import look as look_at_needs
from kdumpy.host.machine import look
from kdumpy.host.settings import Settings
from kdumpy.host.system import System
from kdumpy.image.modules import ModuleTree
from kdumpy.vm import programs
from kdumpy.vm.rehearsal import Phase, Rehearsed, Subject
from kdumpy.vm.rehearsalguest import FAULT_NAMES, fault_of
from kdumpy.vm.reservation import Memory
from kdumpy.vm.targetdisk import TargetDisk
from kdumpy.vm.troubles import Stage, Trouble
from recordedhost import put, recorded

MIB = 1 << 20


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    rehearse.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def system(tmp_path: Path) -> System:
    for name, text in (("etc/os-release", "ID=fedora\n"), ("proc/sys/kernel/arch", "x86_64"),
                       ("proc/sys/kernel/osrelease", "6.1.0-1"), ("proc/cmdline", "crashkernel=256M quiet"),
                       ("proc/meminfo", f"MemTotal: {64 << 20} kB\n"), ("sys/devices/system/cpu/present", "0-15"),
                       ("usr/bin/dnf", "")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return System(tmp_path)


def found(system: System) -> Found:
    subject = Subject(kernel=Path("/boot/vmlinuz"), release="6.1.0-1", modules=ModuleTree(Path("/nowhere")),
                      image=Path("/var/lib/kdumpy/capture-6.1.0-1.img"), unpacked=30 * MIB, cmdline="a",
                      capture_cmdline="nr_cpus=1", crashkernel=256 * MIB, fault=fault_of("sysrq", 1024),
                      disk=TargetDisk(1024, "xfs", "u-u", bus="nvme"))
    return Found(subject, "host", installed=True, machine=look(system), settings=Settings(), notes=("a note",))


def answer(trouble: Trouble | None = None, opened: Opened | None = None) -> Answer:
    memory = Memory(256 * MIB, 214 * MIB, 135 * MIB, 40 * MIB, 10 * MIB, 30 * MIB)
    steps = ("memory: …", "saved the kernel log, 4 lines, to UUID=u-u: /crash/h-1/vmcore-dmesg.txt",
             "saved UUID=u-u: /crash/h-1/vmcore: 3 of 9 pages")
    done = Rehearsed((Phase(Stage.BOOT, 3.0), Phase(Stage.START, 2.0)), trouble, None if trouble else memory, steps,
                     Path("console.log"), Path("crash"))
    return Answer(done, 256 * MIB, opened, "sysrq", "tcg")


GOOD = Opened("complete", "", 20 * MIB, "6.1.0-1", "sysrq", "certain", "The crash was asked for")


def test_a_good_one_says_what_is_safe_and_what_the_host_changes(system: System) -> None:
    one, made = found(system), answer(opened=GOOD)
    text = rehearsaltext.render(one, made, kept=None, recorded="/var/lib/kdumpy/rehearsal.json")
    assert text.startswith("A whole dump arrived, with the right cause\n")
    for words in ("Smallest safe: crashkernel=160M", "sysrq (certain)", "3 of 9 pages", "64.0 GiB", "16 CPUs",
                  "bare metal", "was not measured", "a note", "disk on nvme (xfs, with the same UUID", "emulated",
                  "rehearsal.json", "Advice: crashkernel="):
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 110
    values = json.loads(json.dumps(rehearsaltext.as_json(one, made)))
    assert values["good"] is True
    assert values["smallest_safe_crashkernel"] == 160 * MIB
    assert values["memory"]["used"] == 79 * MIB
    assert values["host"]["cpus"] == 16


def test_a_bad_one_says_why_and_the_mend(system: System) -> None:
    trouble = Trouble(Stage.START, "the capture kernel ran out of memory", "System is deadlocked", "reserve more", True)
    made = answer(trouble)
    assert not made.good
    assert made.smallest is None
    text = rehearsaltext.render(found(system), made, kept=None, recorded="")
    assert text.startswith("No whole dump arrived: the capture kernel ran out of memory\n")
    for words in ("the capture kernel boots", "System is deadlocked", "reserve more", "--keep DIR"):
        assert words in text, words
    assert rehearsaltext.as_json(found(system), made)["trouble"]["stage"] == "start"


@pytest.mark.parametrize(("change", "words"), [
    ({"cause": "bug"}, "its cause is not the one"),
    ({"health": "incomplete", "problems": "its writer stopped"}, "it cannot be read whole"),
])
def test_a_dump_that_is_not_as_it_should_be_is_no_success(system: System, change: dict[str, str], words: str) -> None:
    made = answer(opened=replace(GOOD, **change))       # type: ignore[arg-type]
    assert not made.good
    assert made.need is None
    assert words in rehearsaltext.render(found(system), made, kept=None, recorded="")


def test_an_encrypted_dump_is_taken_by_the_captures_word() -> None:
    assert answer(opened=Opened("encrypted", "", 9, "", "", "", "")).good


def test_a_bisection_is_shown_and_believed(system: System) -> None:
    made = replace(answer(opened=GOOD), tries=(Try(256 * MIB, True, ""), Try(96 * MIB, False, "too little")),
                   bisected=112 * MIB)
    assert made.need == 112 * MIB
    text = rehearsaltext.render(found(system), made, kept=None, recorded="")
    assert "crashkernel=96M      too little" in text
    assert "by trying" in text
    assert "Smallest safe: crashkernel=144M" in text


@pytest.mark.parametrize(("words", "what"), [
    (("--kernel", "a"), "go together"),
    (("--modules", "a"), "go together"),
    (("--kernel", "a", "--modules", "b", "--release", "c"), "exclude each other"),
])
def test_arguments_that_contradict_each_other(words: tuple[str, ...], what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        rehearsing.find(arguments(*words), tmp_path)


def test_another_architecture_is_told_so(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (system.root / "proc/sys/kernel/arch").write_text("aarch64")
    monkeypatch.setattr(rehearsing, "System", lambda: system)
    with pytest.raises(HostError, match="x86-64"):
        rehearsing.find(arguments(), tmp_path)


def test_without_qemu_its_package_is_named(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsing, "System", lambda: system)
    monkeypatch.setattr(programs, "find", lambda program: None if "qemu" in program else "/bin/true")
    with pytest.raises(HostError) as caught:
        rehearsing.find(arguments(), tmp_path)
    assert caught.value.mend == "dnf install qemu-kvm"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("text", "mib"), [("", 200), ("192M", 192), ("2G-64G:256M,64G-:512M", 512), ("auto", 256),
                                           ("300M,high", 300)])
def test_the_reservation_is_as_asked_and_auto_keeps_what_setup_would(text: str, mib: int, system: System) -> None:
    asked = arguments("--crashkernel", text)
    assert rehearsalsubject.reserved(asked, look(system), Settings(), 200 * MIB) == mib * MIB


def test_a_range_beyond_this_host_reserves_nothing(system: System) -> None:
    with pytest.raises(UsageError, match="nothing would be reserved"):
        rehearsalsubject.reserved(arguments("--crashkernel", "512G-:1G"), look(system), Settings(), 0)


@pytest.mark.parametrize(("text", "reserved_mib", "mib"), [("", 192, 1024), ("", 512, 1408), ("3G", 192, 3072),
                                                           ("768m", 192, 768)])
def test_the_guests_memory_fits_the_reservation(text: str, reserved_mib: int, mib: int) -> None:
    assert rehearsalsubject.guest_memory(arguments("--memory", text), reserved_mib * MIB) == mib


@pytest.mark.parametrize("text", ["400M", "much", "1T", "-1G"])
def test_too_little_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        rehearsalsubject.guest_memory(arguments(f"--memory={text}"), 192 * MIB)


def test_the_faults_are_those_of_the_guest() -> None:
    parser = argparse.ArgumentParser()
    rehearse.add_arguments(parser)
    choices = next(action.choices for action in parser._actions if "--fault" in action.option_strings)
    assert tuple(choices or ()) == FAULT_NAMES


def test_what_is_kept_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    work, keep = tmp_path / "work", tmp_path / "keep"
    for name in ("run/console.log", "run/capture", "run/crash/vmcore", "run/target.img", "run-64M/console.log"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    rehearse._keep(work, keep)
    kept = sorted(str(path.relative_to(keep)) for path in keep.rglob("*") if path.is_file())
    assert kept == ["capture", "console.log", "crash/vmcore", "run-64M/console.log"]
    assert keep.stat().st_mode & 0o777 == 0o700
    assert (keep / "capture").stat().st_mode & 0o777 == 0o600


def test_what_was_measured_is_found_by_setup(system: System) -> None:
    assert rehearsed.need(system, "6.1.0-1") is None
    rehearsed.save(system, {"release": "6.1.0-1", "smallest_safe_crashkernel": 160 * MIB})
    assert rehearsed.need(system, "6.1.0-1") == 160 * MIB
    assert system.path(rehearsed.PATH).stat().st_mode & 0o777 == 0o600
    rehearsed.save(system, {"release": "6.1.0-1", "smallest_safe_crashkernel": None})     # a later one failed
    assert rehearsed.need(system, "6.1.0-1") is None


def test_qemu_is_not_held_by_our_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(rehearsing, "find", lambda *given: None)
    monkeypatch.setattr(rehearsing, "record", lambda *given: False)
    monkeypatch.setattr(rehearsaltext, "as_json", lambda *given: {})
    def done(*given: object) -> SimpleNamespace:
        seen.append(resource.getrlimit(resource.RLIMIT_DATA))
        return SimpleNamespace(good=True)

    monkeypatch.setattr(rehearsing, "rehearse", done)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, hard))       # as the command line sets it
    try:
        assert rehearse.run(argparse.Namespace(keep=None, json=True)) == 0
        assert resource.getrlimit(resource.RLIMIT_DATA) == (1 << 30, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert seen == [(hard, hard)]


def test_layers_of_the_target_are_not_waited_for_where_the_guest_has_none(tmp_path: Path) -> None:
    host = recorded(tmp_path / "host")
    put(tmp_path, "modules/modules.dep", "kernel/virtio_blk.ko:\nkernel/virtio_pci.ko:\nkernel/ext4.ko:\n")
    for target, overlaid in (("/b", [layers.SCRIPT]), ("/a/var/crash", [])):
        wanted = settings.parse(f'[capture]\ntargets = ["{target}"]\n')
        built = BuiltImage("/x", "6.1.0-1", 9 * MIB, 28 * MIB, "dracut", "", ("virtio_blk", "virtio_pci", "ext4"),
                           look_at_needs(host, wanted).config.targets, 2.0, 0.0, {})
        found = rehearsalsubject._target(host, wanted, built, ModuleTree(tmp_path / "modules"), 512)
        assert [name for name in found.overlay if name == layers.SCRIPT] == overlaid
        assert any("they are not brought up" in note for note in found.notes) is bool(overlaid)


def test_what_a_key_takes_is_added_to_what_was_rehearsed(system: System) -> None:
    rehearsed.save(system, {"release": "6.1.0-1", "smallest_safe_crashkernel": 160 * MIB})
    image = BuiltImage("/x", "6.1.0-1", 9 * MIB, 28 * MIB, "dracut", "", (), (), 2.0, 0.0, {})
    assert need.measured(system, "6.1.0-1", image) == 160 * MIB
    locked = replace(image, unlock=1024 * MIB)
    assert need.measured(system, "6.1.0-1", locked) == (40 + 28 + 1024) * MIB
    found = need.look(system, "6.1.0-1", locked)
    assert found is not None
    assert (found.bytes, found.measured) == ((40 + 28 + 1024) * MIB, True)
    assert need.measured(system, "6.1.0-2", locked) is None
