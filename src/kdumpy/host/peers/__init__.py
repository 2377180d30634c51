"""The distributions' own kdump services, one file each: whether they are on, what they are set to, how to stop them.

A further one is a module with `find(system) -> Peer | None` and its row in ORDER.
"""

from __future__ import annotations

import importlib

from kdumpy.host.peers.base import Imported, Peer
from kdumpy.host.system import System

__all__ = ["ORDER", "Imported", "Peer", "find"]

ORDER = ("kdump_tools", "kdumpctl", "suse")
"""Modules of this package."""


def find(system: System) -> tuple[Peer, ...]:
    """Return the services that are installed."""
    found = (importlib.import_module(f"{__name__}.{name}").find(system) for name in ORDER)
    return tuple(peer for peer in found if peer is not None)
