"""A file seen with some bytes replaced, and perhaps some more behind its end; the file itself is not touched."""

from __future__ import annotations

from collections.abc import Mapping

from kdumpy.dumpfile.source import Source, beyond_end


class PatchedSource:
    """A Source with patches: whole pieces of bytes at their offsets, each within the file or touching its end."""

    def __init__(self, source: Source, patches: Mapping[int, bytes]) -> None:
        self._source = source
        self._patches = sorted(patches.items())
        self.name = source.name
        self.size = max([source.size, *(at + len(data) for at, data in self._patches)])
        self.file_size = source.file_size

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise beyond_end(self, offset, size)
        inside = max(min(size, self._source.size - offset), 0)
        data = self._source.read(offset, inside) if inside else b""
        if not any(at < offset + size and offset < at + len(patch) for at, patch in self._patches):
            return data
        patched = bytearray(data.ljust(size, b"\0"))
        for at, patch in self._patches:
            low, high = max(at, offset), min(at + len(patch), offset + size)
            if low < high:
                patched[low - offset:high - offset] = patch[low - at:high - at]
        return bytes(patched)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target`."""
        target[:] = self.read(offset, len(target))

    def close(self) -> None:
        """Close the file."""
        self._source.close()
