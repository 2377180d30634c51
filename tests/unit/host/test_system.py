"""The gateway to a host's files: what /proc and /sys need of a reader."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from kdumpy.errors import HostError
from kdumpy.host import system
from kdumpy.host.system import LARGEST_TEXT, System


def test_a_sysctl_can_be_read() -> None:
    # A single large read() is answered with ENOMEM there.
    assert System().value("/proc/sys/kernel/osrelease") == os.uname().release


def test_a_file_is_read_to_its_limit(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST_TEXT + 5)
    data = System(tmp_path).read_bytes("/large")
    assert data is not None
    assert len(data) == LARGEST_TEXT


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert System(tmp_path).read("/no/such") is None
    assert System(tmp_path).read("/file/below") is None


def test_what_is_too_slow_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="did not end in time"):
        System().run(("sh", "-c", f"sleep 300 & echo $! >{tmp_path}/child; wait"), seconds=0.5)
    child = Path("/proc") / (tmp_path / "child").read_text().strip()
    for _try in range(50):      # init, or who stands for it, may take its time to bury it
        if not child.exists() or "State:\tZ" in (child / "status").read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{child} still runs")


def test_what_is_too_slow_may_put_away_what_it_has_begun(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="did not end in time"):
        System().run(("sh", "-c", f"trap 'rm {tmp_path}/lock; exit' TERM; : >{tmp_path}/lock; sleep 300 & wait"),
                     seconds=0.5)
    assert not (tmp_path / "lock").exists()


def test_what_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "GRACE_S", 0.2)
    began = time.monotonic()
    with pytest.raises(HostError, match="did not end in time"):
        System().run(("sh", "-c", "trap '' TERM; while :; do sleep 1; done"), seconds=0.3)
    assert time.monotonic() - began < 10


def test_a_program_reads_its_input_and_cannot_ask_on_the_terminal() -> None:
    done = System().run(("sh", "-c", "cat; cut -d' ' -f6 /proc/$$/stat; echo $$ >&2"), stdin="given\n")
    assert done.out.splitlines()[0] == "given"
    assert done.out.splitlines()[1] == done.err.strip()


def test_a_program_does_not_inherit_our_limit_of_memory() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, hard))       # as the command line sets it
    try:
        said = System().run(("sh", "-c", "ulimit -S -d")).out.strip()
        assert resource.getrlimit(resource.RLIMIT_DATA) == (1 << 30, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert said == ("unlimited" if hard == resource.RLIM_INFINITY else str(hard >> 10))
