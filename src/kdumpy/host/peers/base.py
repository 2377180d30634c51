"""What every other kdump service answers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from kdumpy.host.changes import Change


class Imported(NamedTuple):
    """A peer's configuration in our words."""

    values: Mapping[str, object]
    """Keys of /etc/kdumpy.toml as `settings.from_values` takes them, tables within: {"capture": {"level": 31}}. Only
    what the peer's files set, and all of it is right: it makes `Settings`."""
    notes: tuple[str, ...]
    """What cannot be carried over, or means something else here, a sentence each."""


class Peer(Protocol):
    """A kdump service of the distribution that is installed here. `find` of `kdumpy.host.peers` finds it."""

    @property
    def name(self) -> str:
        """`kdump-tools`, `kdump-utils`, `suse-kdump`."""

    @property
    def active(self) -> bool | None:
        """Whether it loads its capture kernel at boot: it would unload ours. None: nothing tells."""

    def imported(self) -> Imported:
        """Read its configuration.

        Raises:
            HostError: a file of it is there and cannot be read, or is not what its own reader takes.
        """

    def disable(self) -> tuple[Change, ...]:
        """Return the changes after which it does nothing any more; nothing when it is so already."""
