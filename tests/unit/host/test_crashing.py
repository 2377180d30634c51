"""The mark that a wanted crash leaves, and that nothing crashes without it. (The crash itself: tests/vm.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.host.crashing import MARK, TRIGGER, crash, read_mark
from kdumpy.host.system import System


@pytest.fixture
def system(tmp_path: Path) -> System:
    for name, text in (("proc/sys/kernel/osrelease", "6.1.0\n"), ("proc/sys/kernel/random/boot_id", "b0-07\n")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return System(tmp_path)


def test_the_mark_is_there_before_the_crash(system: System) -> None:
    system.path(TRIGGER).write_text("")
    crash(system)
    assert system.read(TRIGGER) == "c"
    mark = read_mark(system)
    assert mark is not None
    assert (mark.release, mark.boot_id) == ("6.1.0", "b0-07")
    assert system.path(MARK).stat().st_mode & 0o777 == 0o600


def test_a_kernel_without_sysrq_is_told_and_no_mark_is_left(system: System) -> None:
    with pytest.raises(HostError, match="SysRq"):
        crash(system)
    assert read_mark(system) is None


def test_a_container_would_crash_its_host_and_is_refused(system: System) -> None:
    system.path(TRIGGER).write_text("")
    system.path("/run/systemd").mkdir(parents=True)
    system.path("/run/systemd/container").write_text("podman\n")
    with pytest.raises(HostError, match="the kernel is its host's"):
        crash(system)
    assert system.read(TRIGGER) == ""
    assert read_mark(system) is None


def test_a_trigger_that_refuses_leaves_no_mark(system: System) -> None:
    system.path(TRIGGER).mkdir()
    with pytest.raises(HostError, match="refused"):
        crash(system)
    assert read_mark(system) is None


def test_a_damaged_mark_is_none(system: System) -> None:
    system.path(MARK).parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"time": 1}'):
        system.path(MARK).write_text(text)
        assert read_mark(system) is None
