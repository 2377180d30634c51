"""Page decompression: the four methods of the kdump-compressed format, each bounded to one page.

The libraries are loaded when the first page of their kind is read. LZO and snappy fall back to plain Python
(`lzo`, `snappy`), about a thousand times slower, so that a kernel log can be read on a host without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kdumpy.errors import DamagedDump, HostError

ZLIB: Final = 0x1
LZO: Final = 0x2
SNAPPY: Final = 0x4
ZSTD: Final = 0x20
"""Bits of a page descriptor's flags and of the header's status. Source: makedumpfile diskdump_mod.h."""
ANY: Final = ZLIB | LZO | SNAPPY | ZSTD

NAMES: Final = {ZLIB: "zlib", LZO: "lzo", SNAPPY: "snappy", ZSTD: "zstd"}

Decompressor = Callable[[bytes, int], bytes]
"""Takes a compressed page and the page's size in bytes, gives the page (or raises whatever it likes)."""

_loaded: dict[int, Decompressor] = {}


def name_of(flags: int) -> str:
    """Return the method that flags name, or `none`."""
    return next((name for bit, name in NAMES.items() if flags & bit), "none")


def decompress(flags: int, data: bytes, page_size: int, where: str) -> bytes:
    """Return the page of `page_size` bytes that `data` holds; DamagedDump when it does not."""
    method = _loaded.get(flags) or method_of(flags)
    try:
        page = method(data, page_size)
    except (HostError, MemoryError):
        raise
    except Exception as error:  # each library has errors of its own
        raise DamagedDump("a page cannot be decompressed", where=where,
                          why=f"{name_of(flags)}: {error}") from None
    if len(page) != page_size:
        raise DamagedDump("a page cannot be decompressed", where=where,
                          why=f"{name_of(flags)} gave {len(page)} of {page_size} bytes")
    return page


def method_of(flags: int) -> Decompressor:
    """Return what decompresses pages of a method; HostError when the host lacks its library."""
    if flags in _loaded:
        return _loaded[flags]
    bit = next(bit for bit in NAMES if flags & bit)
    method = {ZLIB: _zlib, LZO: _lzo, SNAPPY: _snappy, ZSTD: _zstd}[bit]()
    _loaded[flags] = method
    return method


def _zlib() -> Decompressor:
    make: Callable[[], Any]
    try:
        from isal import isal_zlib
        make = isal_zlib.decompressobj
    except ImportError:
        import zlib
        make = zlib.decompressobj

    def zlib_page(data: bytes, page_size: int) -> bytes:
        # One byte more than a page may come out, so that a longer stream is seen and not cut.
        page: bytes = make().decompress(data, page_size + 1)
        return page
    return zlib_page


def _lzo() -> Decompressor:
    try:
        from kdumpy.dumpfile.liblzo import LibLzo
        return LibLzo().decompress
    except (ImportError, OSError):  # no liblzo2, or a Python without ctypes
        pass
    try:
        from lzallright import LZOCompressor
    except ImportError:
        from kdumpy.dumpfile.lzo import decompress_lzo
        return decompress_lzo

    def lzo_page(data: bytes, page_size: int) -> bytes:
        # The hint does not bound it; the format does: at most 255 bytes come of one, so 16 MiB of 64 KiB.
        return bytes(LZOCompressor.decompress(data, page_size))
    return lzo_page


def _snappy() -> Decompressor:
    from kdumpy.dumpfile.snappy import decompress_snappy, stated_size
    try:
        from cramjam import snappy
    except ImportError:
        return decompress_snappy

    def snappy_page(data: bytes, page_size: int) -> bytes:
        if stated_size(data) != page_size:
            raise ValueError(f"says it is {stated_size(data)} bytes")
        page = bytearray(page_size)
        count = snappy.decompress_raw_into(data, page)
        return bytes(page[:count])
    return snappy_page


def _zstd() -> Decompressor:
    try:
        import zstandard
    except ImportError as error:
        raise HostError("the dump's pages are compressed with zstd", why="the zstandard module is missing",
                        mend="pip install zstandard") from error
    import threading
    own = threading.local()  # a context must not be used by two threads at a time

    def zstd_page(data: bytes, page_size: int) -> bytes:
        # max_output_size is ignored when the frame says its size, so look at that first.
        size = zstandard.frame_content_size(data)
        if size > page_size:
            raise ValueError(f"says it is {size} bytes")
        context = getattr(own, "context", None)
        if context is None:
            context = own.context = zstandard.ZstdDecompressor()
        page: bytes = context.decompress(data, max_output_size=page_size)
        return page
    return zstd_page
