"""/proc/vmcore through mmap: reading it copies page by page, with a mapping made and torn down for each.

Source: fs/proc/vmcore.c, mmap_vmcore(); Documentation/admin-guide/kdump/kdump.rst.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from kdumpy.dumpfile.source import FileSource, beyond_end

PROC_VMCORE = Path("/proc/vmcore")

WINDOW = 4 << 20
"""Bytes mapped at a time: the page tables of a larger window are memory that a capture kernel lacks."""
_WINDOWS = 2
"""Struct pages and the pages that they describe are read in turns."""
_FAILURES = 8
"""Windows that could not be mapped before no more are tried."""


class MappedSource(FileSource):
    """A file whose bytes do not change, read through small windows; by read() where it cannot be mapped."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._windows: dict[int, memoryview] = {}
        self._failures = 0

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise beyond_end(self, offset, size)
        window = self._window(offset)
        start = offset % WINDOW
        if window is not None and start + size <= len(window):
            return bytes(window[start:start + size])
        data = bytearray(size)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target`, window by window."""
        if offset < 0 or offset + len(target) > self.size:
            raise beyond_end(self, offset, len(target))
        done = 0
        while done < len(target):
            start = (offset + done) % WINDOW
            count = min(len(target) - done, WINDOW - start)
            window = self._window(offset + done)
            if window is None:
                super().read_into(offset + done, target[done:done + count])
            else:
                target[done:done + count] = window[start:start + count]
            done += count

    def close(self) -> None:
        """Let go of the windows and close the file."""
        self._windows.clear()
        super().close()

    def _window(self, offset: int) -> memoryview | None:
        """Return the window that holds `offset`; None where it cannot be mapped."""
        number = offset // WINDOW
        window = self._windows.get(number)
        if window is None and self._failures < _FAILURES:
            start = number * WINDOW
            try:
                window = memoryview(mmap.mmap(self._fd, min(WINDOW, self.size - start), flags=mmap.MAP_PRIVATE,
                                              prot=mmap.PROT_READ, offset=start))
            except (OSError, ValueError, MemoryError):      # short of memory, or an old kernel
                self._failures += 1
                return None
            if len(self._windows) >= _WINDOWS:
                del self._windows[next(iter(self._windows))]
            self._windows[number] = window
        return window
