"""What every kind of target offers to the ladder, and what the kinds share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kdumpy.dumpfile.sink import Sink

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
"""A dump holds all that was in memory: passwords and keys among it."""


class ByteStream(Protocol):
    """A file on a target that can only be written from front to back."""

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it; NoSpace or HostError when it cannot be."""

    def finish(self) -> None:
        """Make sure that all of it lies there for good, under its incomplete name."""

    def abort(self) -> None:
        """Stop; what was written stays under its incomplete name where the target can do so."""


class Target(Protocol):
    """One place where a crash can be saved."""

    url: str
    """As configured, for messages."""
    seekable: bool
    """Files may be written at any offset; else `vmcore` becomes the flattened stream `vmcore.flat`."""

    def prepare(self) -> None:
        """Mount, connect, make the crash's directory; HostError with why and mend."""

    def free_bytes(self) -> int | None:
        """Bytes that can still be written; None where that cannot be known."""

    def open(self, name: str) -> Sink:
        """Create a dump under its incomplete name, which `keep` makes its name."""

    def stream(self, name: str) -> ByteStream:
        """Create a file, written from front to back, under its incomplete name."""

    def keep(self, name: str, size: int | None = None) -> str:
        """Make a file that was closed last for good: sync it, give it its name. Return that; `size` in bytes."""

    def abandon(self, name: str, size: int | None = None) -> str:
        """Close a file that failed, without ending it. Return where its incomplete part stays, empty if nowhere."""

    def discard(self, name: str) -> None:
        """Remove the incomplete file that was abandoned, so that its space is free again."""

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 of a kept file in hexadecimal, or None where it cannot be had."""

    def put(self, name: str, data: bytes | bytearray) -> None:
        """Write a small file at once, whole or not at all, for good."""

    def place(self, name: str) -> str:
        """Return where a file lies, for messages: a path, a URL, a device."""

    def close(self) -> None:
        """Unmount, disconnect. HostError when the target may not hold what was written."""


def incomplete(name: str) -> str:
    """Return the name of a file that is not finished: `vmcore.flat` -> `vmcore-incomplete.flat`."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}-incomplete{dot}{suffix}"
