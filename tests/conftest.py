"""What tests of several folders share and pytest hands out: small file systems; and memory given back."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from saving import need_root, run

GROWTH = 128 << 20
"""Bytes by which the process may grow before what nobody uses any more is looked for."""


class _Memory:
    """An opened kernel and drgn's program of it point at each other: only the collector frees them, 30 MB each.

    It comes by too seldom: it counts objects, of which a program has few. Without this the process had 6 GB in the end.
    """

    def __init__(self) -> None:
        self.after = self.used()

    @staticmethod
    def used() -> int:
        """Return the process's resident memory in bytes. Source: proc_pid_statm(5)."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def give_back(self) -> None:
        """Collect what is unreachable when the process has grown."""
        if self.used() > self.after + GROWTH:
            gc.collect()
            self.after = self.used()


_memory = _Memory()

# How long an example takes is said by what else the machine does: a guest boots beside the tests.
settings.register_profile("kdumpy", deadline=None)
settings.load_profile("kdumpy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Guests first: a file of theirs takes minutes, and where several processes run, the short ones fill the rest."""
    guests = Path(__file__).parent / "vm"
    items.sort(key=lambda item: item.path.parent != guests)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """After each test's fixtures are gone."""
    yield
    _memory.give_back()


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
