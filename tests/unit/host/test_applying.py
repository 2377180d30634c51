"""What a plan does is done in whole and taken back byte for byte, also after several setups and a cut one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.host import applying
from kdumpy.host.changes import Command, FileChange, Plan, Step, remove, write
from kdumpy.host.system import Done, System


class Recording(System):
    """A tree whose programs are noted instead of run."""

    def __init__(self, root: Path, failing: tuple[str, ...] = ()) -> None:
        super().__init__(root)
        self.ran: list[str] = []
        self.failing = failing

    def run(self, words, *, seconds=60, check=True, stdin=""):  # type: ignore[no-untyped-def]
        self.ran.append(" ".join(words))
        if words[0] in self.failing:
            raise HostError("a program failed", where=words[0], why="it was told to")
        return Done(0, "", "")


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(root.rglob("*"))}


@pytest.fixture
def system(tmp_path: Path) -> Recording:
    (tmp_path / "etc/default").mkdir(parents=True)
    grub = tmp_path / "etc/default/grub"
    grub.write_bytes(b"GRUB_TIMEOUT=5\nno newline at the end")
    grub.chmod(0o640)
    (tmp_path / "var/lib").mkdir(parents=True)
    return Recording(tmp_path)


def quiet(_text: str) -> None:
    pass


def plan(system: System, *changes: object) -> Plan:
    return Plan((Step("one", tuple(changes)),))  # type: ignore[arg-type]


def test_a_file_is_replaced_with_its_mode_and_given_back(system: Recording) -> None:
    before = tree(system.root)
    changes = [*write(system, "/etc/default/grub", "GRUB_TIMEOUT=0\n", "faster"),
               *write(system, "/etc/sysctl.d/60-kdumpy.conf", "kernel.panic = 10\n", "reboot")]
    applying.apply(system, plan(system, *changes), quiet)
    assert system.read("/etc/default/grub") == "GRUB_TIMEOUT=0\n"
    assert (system.root / "etc/default/grub").stat().st_mode & 0o777 == 0o640
    assert (system.root / "var/lib/kdumpy").stat().st_mode & 0o777 == 0o700
    undone = applying.undo(system, quiet)
    assert undone.restored == ("/etc/default/grub",)
    assert undone.removed == ("/etc/sysctl.d/60-kdumpy.conf", "/etc/sysctl.d")
    assert tree(system.root) == before


def test_after_two_setups_the_first_state_comes_back(system: Recording) -> None:
    before = tree(system.root)
    for text in ("GRUB_TIMEOUT=1\n", "GRUB_TIMEOUT=2\n"):
        applying.apply(system, plan(system, *write(system, "/etc/default/grub", text, "")), quiet)
    applying.undo(system, quiet)
    assert tree(system.root) == before


def test_a_removed_file_comes_back(system: Recording) -> None:
    before = tree(system.root)
    applying.apply(system, plan(system, *remove(system, "/etc/default/grub", "not wanted")), quiet)
    assert not system.exists("/etc/default/grub")
    applying.undo(system, quiet)
    assert {name: data for name, (_mode, data) in tree(system.root).items()} == \
        {name: data for name, (_mode, data) in before.items()}


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_a_removed_file_comes_back_with_its_mode_and_owner(system: Recording) -> None:
    grub = system.root / "etc/default/grub"
    os.chown(grub, 7, 8)
    grub.chmod(0o604)
    applying.apply(system, plan(system, *remove(system, "/etc/default/grub", "gone")), quiet)
    assert not grub.exists()
    applying.undo(system, quiet)
    status = grub.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o604, 7, 8)


@pytest.mark.parametrize("used", [False, True])
def test_directories_that_a_command_made_go_and_those_in_use_stay(system: Recording, used: bool) -> None:
    (system.root / "srv").mkdir()
    before = tree(system.root)
    makes = Command(("mkdir", "-p", "/srv/a/b/crash"), "dumps go there", makes=("/srv/a/b/crash",))
    applying.apply(system, plan(system, makes), quiet)
    (system.root / "srv/a/b/crash").mkdir(parents=True)
    if used:
        (system.root / "srv/a/mine").write_text("x")
    undone = applying.undo(system, quiet)
    assert undone.removed == ("/srv/a/b/crash", "/srv/a/b", "/srv/a")[:3 - used]
    assert undone.failed == ()
    assert used or tree(system.root) == before


def test_a_directory_that_somebody_removed_is_no_failure(system: Recording) -> None:
    makes = Command(("mkdir", "-p", "/srv/a"), "dumps go there", makes=("/srv/a",))
    applying.apply(system, plan(system, makes), quiet)
    assert applying.undo(system, quiet).removed == ()


def test_commands_are_taken_back_on_their_side_of_the_files(system: Recording) -> None:
    changes = [*write(system, "/etc/unit", "x", ""), Command(("systemctl", "enable"), "", ("systemctl", "disable"),
                                                            undo_first=True),
               Command(("update-grub",), "", ("update-grub",)), Command(("sync",), "")]
    applying.apply(system, plan(system, *changes), quiet)
    assert system.ran == ["systemctl enable", "update-grub", "sync"]
    system.ran.clear()
    said: list[str] = []
    applying.undo(system, said.append)
    assert said == ["ran systemctl disable", "removed /etc/unit", "ran update-grub"]


def test_a_failing_command_stops_and_what_was_done_is_undone(system: Recording) -> None:
    before = tree(system.root)
    system.failing = ("update-grub",)
    changes = [*write(system, "/etc/default/grub", "x", ""), Command(("update-grub",), "", ("true",)),
               *write(system, "/etc/never", "x", "")]
    with pytest.raises(HostError, match="a program failed") as stopped:
        applying.apply(system, plan(system, *changes), quiet)
    assert "kdumpy setup --undo" in stopped.value.mend
    assert not system.exists("/etc/never")
    applying.undo(system, quiet)
    assert tree(system.root) == before


def test_a_boot_loader_s_command_that_was_not_come_to_is_known_until_it_is_done(system: Recording) -> None:
    command = Command(("update-grub",), "the menu", ("update-grub",))

    def step(*changes: object) -> Plan:
        return Plan((Step("boot loader", tuple(changes), reboot=True),))  # type: ignore[arg-type]

    assert applying.unfinished(system) == ()
    system.failing = ("update-grub",)
    with pytest.raises(HostError, match="a program failed"):
        applying.apply(system, step(*write(system, "/etc/default/grub", "x", ""), command), quiet)
    assert applying.unfinished(system) == (command,)
    system.failing = ()
    applying.apply(system, step(*applying.unfinished(system)), quiet)
    assert applying.unfinished(system) == ()


def test_a_command_that_may_fail_is_told(system: Recording) -> None:
    system.failing = ("sysctl",)
    failures = applying.apply(system, plan(system, Command(("sysctl", "-p"), "", may_fail=True)), quiet)
    assert failures == ("sysctl -p: it was told to",)


def test_a_file_that_changed_after_the_plan_is_not_touched(system: Recording) -> None:
    made = plan(system, *write(system, "/etc/default/grub", "ours", ""))
    (system.root / "etc/default/grub").write_text("theirs")
    with pytest.raises(HostError, match="changed since the plan"):
        applying.apply(system, made, quiet)
    assert system.read("/etc/default/grub") == "theirs"


def test_a_file_that_changed_after_the_setup_is_left_unless_forced(system: Recording) -> None:
    before = tree(system.root)
    applying.apply(system, plan(system, *write(system, "/etc/default/grub", "ours", "")), quiet)
    (system.root / "etc/default/grub").write_text("theirs")
    undone = applying.undo(system, quiet)
    assert undone.left == ("/etc/default/grub",)
    assert system.read("/etc/default/grub") == "theirs"
    applying.undo(system, quiet, force=True)
    assert tree(system.root) == before


def test_a_link_stays_a_link(system: Recording) -> None:
    (system.root / "etc/grub").symlink_to("default/grub")
    applying.apply(system, plan(system, *write(system, "/etc/grub", "ours", "")), quiet)
    assert (system.root / "etc/grub").is_symlink()
    assert system.read("/etc/default/grub") == "ours"
    applying.undo(system, quiet)
    assert (system.root / "etc/grub").is_symlink()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}'])
def test_a_damaged_journal_is_an_error_with_the_place_of_the_copies(system: Recording, text: str) -> None:
    applying.prepare_home(system)
    system.path(applying.JOURNAL).write_text(text)
    with pytest.raises(HostError) as caught:
        applying.undo(system, quiet)
    assert applying.JOURNAL in str(caught.value)


def test_nothing_to_undo_is_said(system: Recording) -> None:
    with pytest.raises(HostError, match="nothing to undo"):
        applying.undo(system, quiet)


def test_the_journal_is_written_before_the_file(system: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace
    seen: list[str] = []

    def note(self: Path, target: Path) -> Path:
        seen.append(str(target))
        real(self, target)
        return target

    monkeypatch.setattr(Path, "replace", note)
    applying.apply(system, plan(system, *write(system, "/etc/default/grub", "ours", "")), quiet)
    names = [Path(name).name for name in seen]
    assert names == ["0000", "setup.json", "grub"]
    assert json.loads(system.read(applying.JOURNAL) or "")["files"]["/etc/default/grub"]["backup"] == "0000"


def test_a_diff_shows_a_missing_newline_and_hides_a_secret() -> None:
    change = FileChange("/etc/x", b"a\nb", b"a\nc", "")
    assert "\\ no newline" in change.diff()
    assert "swordfish" not in FileChange("/etc/x", b"a", b"swordfish", "", secret=True).diff()
