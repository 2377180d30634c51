"""Stories on a whole Debian: one guest, whose tests follow each other, and stop when one has failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdumpy.vm import debian
from kdumpy.vm.debian import Guest
from kdumpy.vm.qemu import Disk, Hardware

MEMORY_MIB = 2048


class Story:
    """What the tests hand on to the next."""

    def __init__(self, guest: Guest, failures: int) -> None:
        self.guest = guest
        self.before = ""
        """The state after the package was installed, before the setup."""
        self.failures = failures
        """Tests that failed before the story began."""


@contextmanager
def begun(home: Path, failures: int, extra: tuple[str, ...] = (), *, packages: tuple[str, ...] = (),
          disks: tuple[Disk, ...] = ()) -> Iterator[Story]:
    """Boot a guest with a disk of its own.

    Args:
        home: where its disk and the log of its console lie.
        failures: tests that failed before.
        extra: further arguments for QEMU.
        packages: what is installed beside the base's packages.
        disks: further ones.
    """
    made = debian.base(packages)
    disk = made.copy(home / "disk.img")
    try:
        hardware = Hardware(made.kernel, None, "", MEMORY_MIB, disks=disks, extra=extra, firmware=True)
        with Guest(disk, home / "console.log", hardware) as guest:
            yield Story(guest, failures)
    finally:
        disk.unlink(missing_ok=True)


def check_order(story: Story, request: pytest.FixtureRequest) -> None:
    """Skip a test when an earlier one of its story failed."""
    if request.session.testsfailed > story.failures:
        pytest.skip("an earlier part of the story failed")
