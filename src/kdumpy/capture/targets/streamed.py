"""What targets share that take a dump as a stream: the flattened records, and the sum of what was sent."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kdumpy.capture.targets.base import ByteStream

if TYPE_CHECKING:
    from kdumpy.dumpfile.sink import StreamSink

FLAT = ".flat"
"""Suffix of a flattened stream, which open_dump, crash and `makedumpfile -R` read."""


class SummedStream:
    """Passes bytes on and sums them: the sum is of what was meant, whatever the other end stored."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner
        self._sum = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it."""
        self._inner.write(data)
        self._sum.update(data)

    def finish(self) -> None:
        """End the stream."""
        self._inner.finish()

    def abort(self) -> None:
        """Stop."""
        self._inner.abort()

    def digest(self) -> str:
        """Return the SHA-256 so far, in hexadecimal."""
        return self._sum.hexdigest()


class StreamedTarget:
    """The half of such a target that does not depend on how the bytes travel."""

    seekable = False

    def __init__(self, url: str, *, summed: bool) -> None:
        self.url = url
        self._summed = summed
        self._stream: ByteStream | None = None
        self._digests: dict[str, str] = {}
        self._names: dict[str, str] = {}
        """Of dumps: the name that was asked for, and the stream's."""

    # What a kind brings.

    def connect(self, name: str) -> ByteStream:
        """Begin a file on the other side, under its incomplete name."""
        raise NotImplementedError

    def rename(self, name: str) -> None:
        """Sync a file on the other side and give it its name."""
        raise NotImplementedError

    def place(self, name: str) -> str:
        """Return where a file lies."""
        raise NotImplementedError

    # What all share.

    def open(self, name: str) -> StreamSink:
        """Begin a dump: `vmcore` becomes `vmcore.flat`."""
        from kdumpy.dumpfile.sink import StreamSink

        self._names[name] = name + FLAT
        stream = self.stream(name + FLAT)
        return StreamSink(stream.write, self.place(name + FLAT), finish=stream.finish)

    def stream(self, name: str) -> ByteStream:
        """Begin a file."""
        stream = self.connect(name)
        self._stream = SummedStream(stream) if self._summed else stream
        return self._stream

    def keep(self, name: str, size: int | None = None) -> str:
        """Give the file that was finished its name."""
        name = self._names.get(name, name)
        stream, self._stream = self._stream, None
        self.rename(name)
        if isinstance(stream, SummedStream):
            self._digests[name] = stream.digest()
        return name

    def digest(self, name: str) -> str | None:
        """Return the sum of what was sent, where it was to be summed."""
        return self._digests.get(name)

    def _abort(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
