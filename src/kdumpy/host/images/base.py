"""What a builder of capture images gets, gives, and is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdumpy.host.images.needs import Needs
from kdumpy.host.system import System
from kdumpy.image.initramfs import Compression
from kdumpy.image.modules import ModuleTree
from kdumpy.image.python import PythonTree

Say = Callable[[str], None]
"""Is told what is going on, a line at a time."""


@dataclass(frozen=True)
class Task:
    """One image to be built."""

    system: System
    release: str
    """Of the capture kernel."""
    running: bool
    """It is the kernel that runs: what it has no module of, it has built in."""
    tree: ModuleTree
    needs: Needs
    python: PythonTree
    compression: Compression
    work: Path
    """An empty directory of the builder's own, which is removed afterwards."""
    output: Path
    """Where to write the image."""
    say: Say

    @property
    def network_first(self) -> bool:
        """Whether the first target is a server."""
        return self.needs.config.targets[0].partition(":")[0] in ("nfs", "ssh", "http", "https")


@dataclass(frozen=True)
class Made:
    """What a builder made."""

    bytes: int
    unpacked: int
    modules: tuple[str, ...]
    """Kernel modules in it, by name."""


class Builder(Protocol):
    """A module of this package."""

    NAME: str

    ROOM: int
    """Bytes that such an image unpacks to, about, before one was made."""

    def refuses(self, system: System, needs: Needs) -> str:
        """Return why this builder cannot make such an image here; empty: it can."""

    def ingredients(self, system: System) -> tuple[str, ...]:
        """Return files of the host that make such an image another one when they change."""

    def build(self, task: Task) -> Made:
        """Write the image at `task.output`; HostError when it cannot be."""
