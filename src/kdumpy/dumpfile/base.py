"""What every dump offers, whatever its format, and what the formats share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, Self

from kdumpy.dumpfile.notes import Machine, Note, PrStatus, parse_prstatus
from kdumpy.dumpfile.source import Source
from kdumpy.dumpfile.utsname import Utsname
from kdumpy.dumpfile.vmcoreinfo import LARGEST, VmcoreInfo
from kdumpy.errors import DamagedDump, MissingPage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PHYSICAL = 1 << 52
"""Bytes; no machine that is read addresses more physical memory."""

_CACHED_PAGES = 256


class Dump(Protocol):
    """A dump opened for reading. Physical addresses and sizes are bytes; a pfn is address // page_size."""

    @property
    def source(self) -> Source:
        """The bytes below."""

    @property
    def format(self) -> str:
        """`elf` or `kdump` (or `diskdump`), with ` flattened` behind where the file is a makedumpfile stream."""

    @property
    def machine(self) -> Machine:
        """The crashed machine's architecture."""

    @property
    def page_size(self) -> int:
        """Bytes of a page: 4096, 16384 or 65536."""

    @property
    def vmcoreinfo(self) -> VmcoreInfo:
        """The kernel's VMCOREINFO; empty (and false) when the dump has none."""

    @property
    def notes(self) -> tuple[Note, ...]:
        """All ELF notes."""

    @property
    def prstatus(self) -> tuple[PrStatus, ...]:
        """Each CPU's registers at the crash."""

    @property
    def dump_level(self) -> int | None:
        """The bits of makedumpfile's -d with which pages were left out; None when the format does not tell."""

    @property
    def crash_time(self) -> int | None:
        """Seconds since the epoch at the crash (VMCOREINFO), else when the dump was written; None if unknown."""

    @property
    def utsname(self) -> Utsname | None:
        """From the header, or read from the kernel's memory; None when neither can be had."""

    @property
    def compression(self) -> str:
        """`zlib`, `lzo`, `snappy`, `zstd` or `none`."""

    @property
    def incomplete(self) -> bool:
        """The program that wrote the dump marked it as not finished."""

    @property
    def pages_present(self) -> int:
        """Pages that the dump says it holds."""

    @property
    def max_pfn(self) -> int:
        """One more than the largest page frame number there can be."""

    def has_page(self, pfn: int) -> bool:
        """Tell whether the dump says it holds a page (its contents may still be damaged)."""

    def held(self, pfns: Sequence[int] | NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell of many pages at once what `has_page` tells of one; shape (n,)."""

    def present(self) -> Iterator[range]:
        """Yield the page frame numbers held, as rising ranges."""

    def adopt_vmcoreinfo(self, found: VmcoreInfo) -> None:
        """Take a VMCOREINFO that came from elsewhere, where the dump has none."""

    def read_physical(self, address: int, size: int) -> bytes:
        """Return bytes of physical memory; MissingPage or DamagedDump when one page cannot be had."""

    def read_pages(self, pfns: Sequence[int] | NDArray[np.integer],
                   missing: Literal["raise", "zero"] = "raise") -> NDArray[np.uint8]:
        """Return whole pages, shape (n, page_size), in the order asked for."""

    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class PagedDump:
    """The part of a Dump that does not depend on the format; a format adds how one page is found and read."""

    format: str
    source: Source
    machine: Machine
    page_size: int
    vmcoreinfo: VmcoreInfo
    notes: tuple[Note, ...]
    pages_present: int
    max_pfn: int

    def __init__(self) -> None:
        self._cache: dict[int, bytes] = {}
        self._prstatus: tuple[PrStatus, ...] | None = None
        self._utsname: Utsname | None = None
        self._looked_for_utsname = False
        self._runs: NDArray[np.int64] | None = None

    # What a format brings.

    def has_page(self, pfn: int) -> bool:
        """Tell whether the dump says it holds a page."""
        raise NotImplementedError

    def present(self) -> Iterator[range]:
        """Yield the page frame numbers held, as rising ranges."""
        raise NotImplementedError

    def _page(self, pfn: int) -> bytes:
        """Return one whole page."""
        raise NotImplementedError

    def _header_utsname(self) -> Utsname | None:
        return None

    def _count_pages(self) -> None:
        """Set the page size, and the counts that hang on it, from `vmcoreinfo`."""
        raise NotImplementedError

    # What all share.

    def held(self, pfns: Sequence[int] | NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell of many pages at once what `has_page` tells of one; shape (n,)."""
        import numpy as np
        if self._runs is None:
            runs = [(run.start, run.stop) for run in self.present()]
            self._runs = np.array(runs, np.int64).reshape(-1, 2)
        wanted = np.asarray(pfns, np.int64)
        if not len(self._runs):
            return np.zeros(len(wanted), np.bool_)
        run = np.searchsorted(self._runs[:, 0], wanted, "right") - 1
        within: NDArray[np.bool_] = (run >= 0) & (wanted < self._runs[run, 1])
        return within

    def adopt_vmcoreinfo(self, found: VmcoreInfo) -> None:
        """Take a VMCOREINFO that came from elsewhere (`salvage.find_vmcoreinfo`), and its page size."""
        self.vmcoreinfo = found
        self._cache.clear()
        self._runs = None
        self._count_pages()

    @property
    def prstatus(self) -> tuple[PrStatus, ...]:
        """Each CPU's registers at the crash, in the order of the notes."""
        if self._prstatus is None:
            self._prstatus = parse_prstatus(self.notes, self.machine)
        return self._prstatus

    @property
    def crash_time(self) -> int | None:
        """Seconds since the epoch at the crash."""
        try:
            return self.vmcoreinfo.crash_time
        except DamagedDump:
            return None

    @property
    def utsname(self) -> Utsname | None:
        """From the header, else out of the kernel's memory."""
        if not self._looked_for_utsname:
            self._looked_for_utsname = True
            self._utsname = self._header_utsname()
            if self._utsname is None:
                from kdumpy.dumpfile.paging import read_utsname  # the page tables are seldom needed here
                self._utsname = read_utsname(self)
        return self._utsname

    def page(self, pfn: int) -> bytes:
        """Return one whole page, from a small cache where it was read lately."""
        data = self._cache.get(pfn)
        if data is None:
            data = self._page(pfn)
            if len(self._cache) >= _CACHED_PAGES:
                del self._cache[next(iter(self._cache))]
            self._cache[pfn] = data
        return data

    def read_physical(self, address: int, size: int) -> bytes:
        """Return `size` bytes of physical memory at `address`."""
        pfn, start = divmod(address, self.page_size)
        if size >= 0 and start + size <= self.page_size:
            return self.page(pfn)[start:start + size]
        self.check_extent(address, size)
        parts = []
        while size:
            part = self.page(pfn)[start:start + size]
            parts.append(part)
            size -= len(part)
            pfn, start = pfn + 1, 0
        return b"".join(parts)

    def check_extent(self, address: int, size: int) -> None:
        """Refuse a size that no memory of this dump can have, before anything is allocated for it."""
        if size < 0 or address < 0 or size > min(self.max_pfn, self.pages_present + 1) * self.page_size:
            raise MissingPage("no such memory in the dump", where=f"{self.source.name}, physical {address:#x}",
                              why=f"{size} bytes were wanted")

    def read_pages(self, pfns: Sequence[int] | NDArray[np.integer],
                   missing: Literal["raise", "zero"] = "raise") -> NDArray[np.uint8]:
        """Return whole pages, shape (n, page_size), in the order asked for.

        A page that is not held raises MissingPage, or is zero with missing="zero" (ask `has_page`);
        a page that cannot be read raises DamagedDump in both cases.
        """
        import numpy as np
        pages = np.zeros((len(pfns), self.page_size), np.uint8)
        for row, pfn in enumerate(map(int, pfns)):
            if missing == "zero" and not self.has_page(pfn):
                continue
            pages[row] = np.frombuffer(self._page(pfn), np.uint8)
        return pages

    def close(self) -> None:
        """Close the file."""
        self.source.close()
        self._cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # For the formats.

    def _missing(self, pfn: int, why: str) -> MissingPage:
        return MissingPage("the dump does not hold this page", why=why,
                           where=f"{self.source.name}, physical {pfn * self.page_size:#x}")

    def _choose_vmcoreinfo(self, found: VmcoreInfo | None) -> None:
        """Set `vmcoreinfo` from a header, else from the note of that name."""
        if found is None:
            for note in self.notes:
                if note.name == "VMCOREINFO" and note.kind == 0:
                    found = VmcoreInfo(note.data[:LARGEST], where=f"{self.source.name}, note VMCOREINFO")
                    break
        self.vmcoreinfo = found if found is not None else VmcoreInfo(b"", where=self.source.name)
