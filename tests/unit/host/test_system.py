"""The gateway to a host's files: what /proc and /sys need of a reader."""

from __future__ import annotations

import os
from pathlib import Path

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
