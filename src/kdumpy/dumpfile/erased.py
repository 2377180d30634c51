"""A dump seen with its secrets gone: some bytes read as `X`, some pages are not there.

It offers what every Dump does, so that whatever writes a dump writes this one too; the file below is not touched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Self

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.kdumpwriter import erase_information
from kdumpy.dumpfile.notes import Machine, Note, PrStatus
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import VmcoreInfo
from kdumpy.errors import MissingPage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILL = ord("X")
"""What erased bytes read as; makedumpfile's erase writes the same."""

LeftOut = Callable[[int, int], "NDArray[np.bool_]"]
"""(first pfn, count) -> which of these pages are not to be seen; shape (count,)."""

_STEP = 32768
"""Pages of which the mask is asked for at a time."""


class ErasedDump:
    """A Dump with holes in it."""

    def __init__(self, dump: Dump, extents: Iterable[tuple[int, int]], eraseinfo: bytes = b"", *,
                 left_out: LeftOut | None = None, level: int = 0,
                 told: tuple[dict[str, object], ...] = ()) -> None:
        """Wrap `dump`.

        Args:
            dump: the dump below.
            extents: (physical address, bytes) of what is to read as `X`; may overlap, in any order.
            eraseinfo: what was erased, lines `erase NAME size BYTES` for the header; follows what the dump has.
            left_out: which pages are not to be seen at all.
            level: the bits of the dump level that `left_out` amounts to.
            told: what was erased and what could not be judged, as JSON values, for whoever writes a summary.
        """
        self.dump = dump
        self.told = told
        """What was erased and what could not be judged, as JSON values."""
        self.eraseinfo = erase_information(dump, eraseinfo)
        """Text of the header's erase information."""
        self._starts, self._stops = _merged(extents)
        self._left_out = left_out
        self._level = level
        self._mask: tuple[int, NDArray[np.bool_]] | None = None
        self._pages_present: int | None = None
        self._touched: NDArray[np.int64] | None = None

    # What is as it was.

    @property
    def source(self) -> Source:
        """The bytes below, with the secrets in them."""
        return self.dump.source

    @property
    def format(self) -> str:
        """Of the file below."""
        return self.dump.format

    @property
    def machine(self) -> Machine:
        """The crashed machine's architecture."""
        return self.dump.machine

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self.dump.page_size

    @property
    def vmcoreinfo(self) -> VmcoreInfo:
        """The kernel's VMCOREINFO."""
        return self.dump.vmcoreinfo

    @property
    def notes(self) -> tuple[Note, ...]:
        """All ELF notes."""
        return self.dump.notes

    @property
    def prstatus(self) -> tuple[PrStatus, ...]:
        """Each CPU's registers at the crash."""
        return self.dump.prstatus

    @property
    def crash_time(self) -> int | None:
        """Seconds since the epoch at the crash."""
        return self.dump.crash_time

    @property
    def utsname(self) -> Utsname | None:
        """What `uname -a` said."""
        return self.dump.utsname

    @property
    def compression(self) -> str:
        """Of the file below."""
        return self.dump.compression

    @property
    def incomplete(self) -> bool:
        """The program that wrote the dump below marked it as not finished."""
        return self.dump.incomplete

    @property
    def max_pfn(self) -> int:
        """One more than the largest page frame number there can be."""
        return self.dump.max_pfn

    def adopt_vmcoreinfo(self, found: VmcoreInfo) -> None:
        """Take a VMCOREINFO that came from elsewhere."""
        self.dump.adopt_vmcoreinfo(found)

    def close(self) -> None:
        """Close the file."""
        self.dump.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Which pages there are.

    @property
    def dump_level(self) -> int | None:
        """The bits of the dump level, those that were added among them."""
        level = self.dump.dump_level
        return level if not self._level else (level or 0) | self._level

    @property
    def pages_present(self) -> int:
        """Pages that are to be seen."""
        if self._left_out is None:
            return self.dump.pages_present
        if self._pages_present is None:
            self._pages_present = sum(map(len, self.present()))
        return self._pages_present

    def _hidden(self, pfn: int) -> bool:
        if self._left_out is None:
            return False
        first = pfn - pfn % _STEP
        if self._mask is None or self._mask[0] != first:
            self._mask = (first, self._left_out(first, _STEP))
        return bool(self._mask[1][pfn - first])

    def has_page(self, pfn: int) -> bool:
        """Tell whether a page is to be seen."""
        return self.dump.has_page(pfn) and not self._hidden(pfn)

    def held(self, pfns: Sequence[int] | NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell of many pages at once whether they are to be seen; shape (n,)."""
        import numpy as np
        wanted = np.asarray(pfns, np.int64)
        return self.dump.held(wanted) & ~self._hidden_among(wanted)

    def present(self) -> Iterator[range]:
        """Yield the page frame numbers that are to be seen, as rising ranges."""
        for run in self.dump.present():
            if self._left_out is None:
                yield run
                continue
            for start in range(run.start - run.start % _STEP, run.stop, _STEP):
                yield from self._seen(max(start, run.start), min(start + _STEP, run.stop))

    def _seen(self, start: int, stop: int) -> Iterator[range]:
        import numpy as np
        assert self._left_out is not None
        hidden = np.ones(stop - start + 2, np.int8)
        hidden[1:-1] = self._left_out(start, stop - start)
        edges = (np.flatnonzero(np.diff(hidden)) + start).tolist()
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            yield range(first, last)

    # What they hold.

    def read_physical(self, address: int, size: int) -> bytes:
        """Return bytes of physical memory, the erased ones as `X`; MissingPage when a page is not to be seen."""
        if self._left_out is not None and size > 0:
            for pfn in range(address // self.page_size, (address + size - 1) // self.page_size + 1):
                if self._hidden(pfn):
                    raise self._missing(pfn)
        data = self.dump.read_physical(address, size)
        covering = list(self._within(address, address + len(data)))
        if not covering:
            return data
        erased = bytearray(data)
        for start, stop in covering:
            erased[start - address:stop - address] = bytes([FILL]) * (stop - start)
        return bytes(erased)

    def _within(self, address: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of what is erased of [address, end)."""
        at = max(bisect_right(self._starts, address) - 1, 0)
        while at < len(self._starts) and self._starts[at] < end:
            start, stop = max(self._starts[at], address), min(self._stops[at], end)
            if start < stop:
                yield start, stop
            at += 1

    def read_pages(self, pfns: Sequence[int] | NDArray[np.integer],
                   missing: Literal["raise", "zero"] = "raise") -> NDArray[np.uint8]:
        """Return whole pages, shape (n, page_size), in the order asked for, the erased bytes as `X`."""
        import numpy as np
        wanted = np.asarray(pfns, np.int64)
        hidden = self._hidden_among(wanted)
        if hidden.any() and missing == "raise":
            raise self._missing(int(wanted[int(np.argmax(hidden))]))
        pages = self.dump.read_pages(wanted, missing)
        pages[hidden] = 0
        for row in np.flatnonzero(np.isin(wanted, self._pages_touched())).tolist():
            address = int(wanted[row]) * self.page_size
            if not hidden[row]:
                for start, stop in self._within(address, address + self.page_size):
                    pages[row, start - address:stop - address] = FILL
        return pages

    def _hidden_among(self, pfns: NDArray[np.int64]) -> NDArray[np.bool_]:
        import numpy as np
        hidden = np.zeros(len(pfns), np.bool_)
        if self._left_out is not None:
            steps = pfns // _STEP
            for step in np.unique(steps).tolist():
                rows = np.flatnonzero(steps == step)
                hidden[rows] = self._left_out(step * _STEP, _STEP)[pfns[rows] - step * _STEP]
        return hidden

    def _pages_touched(self) -> NDArray[np.int64]:
        """Return the pfns of the pages in which something is erased, rising."""
        import numpy as np
        if self._touched is None:
            touched: set[int] = set()
            for start, stop in zip(self._starts, self._stops, strict=True):
                touched.update(range(start // self.page_size, (stop - 1) // self.page_size + 1))
            self._touched = np.array(sorted(touched), np.int64)
        return self._touched

    def _missing(self, pfn: int) -> MissingPage:
        return MissingPage("the page was erased", where=f"{self.source.name}, physical {pfn * self.page_size:#x}")


def _merged(extents: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return the starts and stops of (start, size) extents, rising, those that touch joined."""
    starts: list[int] = []
    stops: list[int] = []
    for start, size in sorted(extents):
        if size <= 0:
            continue
        if stops and start <= stops[-1]:
            stops[-1] = max(stops[-1], start + size)
        else:
            starts.append(start)
            stops.append(start + size)
    return starts, stops
