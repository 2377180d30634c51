"""What tests of several folders share and pytest hands out: small file systems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saving import need_root, run


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount small file systems: `tmpfs(12)` has 12 MiB."""
    need_root("mounts a tmpfs")
    mounted: list[Path] = []

    def mount(mib: int) -> Path:
        where = tmp_path / f"tmpfs-{len(mounted)}"
        where.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", where)
        mounted.append(where)
        return where

    yield mount
    for where in mounted:
        run("umount", where)
