"""Consoles of the crash shell on the dumps that most tests of its commands ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lab
from brokendump import Broken
from console import Console, kernel_of


@pytest.fixture(params=lab.KERNELS)
def null(request: pytest.FixtureRequest) -> Iterator[Console]:
    """The driver's NULL pointer, on every kernel."""
    console = Console(kernel_of(request.param, "null-workqueue"))
    yield console
    console("set -p")


@pytest.fixture
def old() -> Console:
    """One dump, for what does not depend on the kernel."""
    return Console(kernel_of("6.1", "null-workqueue"))


@pytest.fixture
def broken() -> Iterator[Broken]:
    """The same dump, for what must break."""
    console = Broken(lab.dump("6.1", "null-workqueue").path)
    yield console
    console.close()
