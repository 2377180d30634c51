"""Page compression: the four methods of the kdump-compressed format (and none), many pages a call.

The sibling of `compression`. Each method works on one core: the capture pipeline has one process a core. Measured
on one core over the pages that level 31 keeps of a Linux 6.1 guest (MB/s, size left): lzo 750, 0.38; zstd level -1
560, 0.32; zstd 1 370, 0.28; zlib 1 (isal) 260, 0.29; zlib 1 (standard library) 75, 0.28; snappy 950, 0.40.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from kdumpy.dumpfile import compression
from kdumpy.errors import HostError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHODS: Final = ("zlib", "lzo", "snappy", "zstd", "none")
"""What `compressor` knows."""

DEFAULT_LEVEL: Final = {"zlib": 1, "zstd": -1}
"""The methods that have levels; zlib 0 to 9 (isal: 0 to 3), zstd -7 to 19."""

_Piece = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Packed:
    """Pages as they are stored."""

    data: memoryview | bytes
    """The stored bytes of all pages, one after the other."""
    sizes: NDArray[np.int64]
    """Shape (n,): stored bytes of each page."""
    flags: NDArray[np.uint32]
    """Shape (n,): the compression method's bit, 0 where the page did not shrink and is stored as it is."""


class PageCompressor(Protocol):
    """One method at one level. Made anew in each process that uses it."""

    @property
    def name(self) -> str:
        """`zlib`, `lzo`, `snappy`, `zstd` or `none`."""

    @property
    def flag(self) -> int:
        """The method's bit in a page descriptor and in the dump's header; 0 for none."""

    def pack(self, pages: NDArray[np.uint8]) -> Packed:
        """Compress pages of shape (n, page_size), C-contiguous."""


def compressor(name: str, level: int | None = None) -> PageCompressor:
    """Return a compressor by name; HostError, with the package to install, where the host lacks its library."""
    flag = next((bit for bit, known in compression.NAMES.items() if known == name), 0)
    if name == "none":
        return _Store()
    if name == "zstd":
        return _Zstd(flag, DEFAULT_LEVEL[name] if level is None else level)
    if name == "lzo":
        return _lzo(flag)
    if name == "zlib":
        return _OneByOne(name, flag, _zlib(DEFAULT_LEVEL[name] if level is None else level))
    if name == "snappy":
        return _OneByOne(name, flag, _snappy())
    raise UsageError(f"no such compression: {name}", why=f"there are {', '.join(METHODS)}")


def _joined(pages: NDArray[np.uint8], pieces: list[_Piece], flag: int) -> Packed:
    """Return the compressed pages, the ones that did not shrink replaced by the pages themselves."""
    import numpy as np
    page_size = pages.shape[1]
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    grown = sizes >= page_size
    for row in np.flatnonzero(grown).tolist():
        pieces[row] = pages[row].data
    sizes[grown] = page_size
    return Packed(b"".join(pieces), sizes, np.where(grown, 0, flag).astype(np.uint32))


class _Store:
    """No compression."""

    name = "none"
    flag = 0

    def pack(self, pages: NDArray[np.uint8]) -> Packed:
        import numpy as np
        count, page_size = pages.shape
        return Packed(pages.reshape(-1).data, np.full(count, page_size, np.int64), np.zeros(count, np.uint32))


class _OneByOne:
    """A method whose library takes one page a call."""

    def __init__(self, name: str, flag: int, method: Callable[[memoryview], _Piece]) -> None:
        self.name = name
        self.flag = flag
        self._method = method

    def pack(self, pages: NDArray[np.uint8]) -> Packed:
        return _joined(pages, list(map(self._method, _rows(pages))), self.flag)


def _rows(pages: NDArray[np.uint8]) -> Iterable[memoryview]:
    """Yield each page's bytes; slices of one view cost a third of numpy's rows."""
    count, page_size = pages.shape
    view = pages.reshape(-1).data
    return (view[start:start + page_size] for start in range(0, count * page_size, page_size))


class _Zstd:
    """Zstandard: a batch a call, without a Python loop over pages. Each frame says its size, as crash asks."""

    name = "zstd"

    def __init__(self, flag: int, level: int) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise _lacking("zstd", "zstandard") from error
        self.flag = flag
        self._library = zstandard
        self._context = zstandard.ZstdCompressor(level=level)

    def pack(self, pages: NDArray[np.uint8]) -> Packed:
        import numpy as np
        count, page_size = pages.shape
        if not count:
            return Packed(b"", np.zeros(0, np.int64), np.zeros(0, np.uint32))
        if not hasattr(self._context, "multi_compress_to_buffer"):
            # Distributions build zstandard with the system's libzstd, which takes one page at a time.
            return _joined(pages, [self._context.compress(page.data) for page in pages], self.flag)
        extents = np.empty((count, 2), np.uint64)  # offset, size
        extents[:, 0] = np.arange(count, dtype=np.uint64) * page_size
        extents[:, 1] = page_size
        batch = self._library.BufferWithSegments(pages.reshape(-1).data, extents.tobytes())
        # No threads: what they give on top of one process a core is less than what they cost.
        stored = cast("Iterable[_Piece]", self._context.multi_compress_to_buffer(batch, threads=0))
        return _joined(pages, list(stored), self.flag)


class _LibLzo:
    """LZO by the system's library, each page's output right behind the one before."""

    name = "lzo"

    def __init__(self, flag: int) -> None:
        from kdumpy.dumpfile.liblzo import LibLzo
        self.flag = flag
        self._library = LibLzo()

    def pack(self, pages: NDArray[np.uint8]) -> Packed:
        import numpy as np

        from kdumpy.dumpfile.liblzo import worst_case
        count, page_size = pages.shape
        flat = pages.reshape(-1)
        target = np.empty(count * page_size + worst_case(page_size), np.uint8)
        source_at, target_at = flat.ctypes.data, target.ctypes.data
        compress, sizes, done = self._library.compress, [], 0
        for start in range(0, count * page_size, page_size):
            size = compress(source_at + start, page_size, target_at + done)
            if size >= page_size:
                size = page_size
                target[done:done + size] = flat[start:start + size]
            sizes.append(size)
            done += size
        stored = np.array(sizes, np.int64)
        return Packed(target[:done].data, stored, np.where(stored < page_size, self.flag, 0).astype(np.uint32))


def _lzo(flag: int) -> PageCompressor:
    try:
        return _LibLzo(flag)
    except OSError:
        pass
    try:
        from lzallright import LZOCompressor
    except ImportError as error:
        raise HostError("pages cannot be compressed with lzo", why="neither liblzo2 nor the lzallright module is here",
                        mend="install the package liblzo2-2 (lzo), or pip install lzallright") from error
    return _OneByOne("lzo", flag, LZOCompressor().compress)


def _zlib(level: int) -> Callable[[memoryview], _Piece]:
    try:
        from isal import isal_zlib
    except ImportError:
        pass
    else:
        if level in (0, 1, 2, 3):
            return lambda page: isal_zlib.compress(page, level)
    import zlib
    return lambda page: zlib.compress(page, level)


def _snappy() -> Callable[[memoryview], _Piece]:
    try:
        from cramjam import snappy
    except ImportError as error:
        raise _lacking("snappy", "cramjam") from error
    return lambda page: memoryview(snappy.compress_raw(page))


def _lacking(method: str, module: str) -> HostError:
    return HostError(f"pages cannot be compressed with {method}", why=f"the {module} module is missing",
                     mend=f"pip install {module}, or choose another method")
