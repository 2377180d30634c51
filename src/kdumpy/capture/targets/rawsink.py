"""The sink of a raw target; a file of its own, since dumpfile.sink is not to be imported before the log is safe."""

from __future__ import annotations

from pathlib import Path

from kdumpy.dumpfile.sink import Buffer, FileSink, flat_bytes
from kdumpy.errors import NoSpace


class RawSink(FileSink):
    """A device, up to where the small files begin."""

    def __init__(self, node: Path, limit: int) -> None:
        super().__init__(node)
        self._limit = limit

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write all of `data`, or NoSpace."""
        if offset + len(flat_bytes(data)) > self._limit:
            raise NoSpace("the device is full", where=f"{self.name} at {offset:#x}",
                          why=f"{self._limit} bytes of it are for the dump",
                          mend="take a larger device, or a higher dump level")
        super().write_at(offset, data)
