"""Many compressed pages at once, each straight into its row: the sibling of `compressors`, and `compression` in bulk.

Measured on one core, microseconds a page of 4 KiB: zlib with libdeflate 7, with isal 10, with the standard library
15 (8 and 6 in two threads: they let go of the interpreter's lock); lzo with liblzo2 4; snappy 2.5; zstd with libzstd
2.7, with the zstandard module 4, one page at a time with one context (multi_decompress_to_buffer: 6, and 4 in two
threads). Threads gain nothing but for zlib.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from kdumpy.dumpfile import compression

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Jobs = Sequence[tuple[int, int, int]]
"""(offset in the data, bytes, row of the page) of each page."""
Unpacker = Callable[[bytes, Jobs, "NDArray[np.uint8]"], None]
"""Takes data, jobs and pages of shape (n, page_size), C-contiguous, and fills the rows; raises whatever it likes
when one page is wrong (then rows may be half done)."""

_loaded: dict[int, Unpacker] = {}
_THREADED: Final = 128
"""Pages from which on threads are worth their start."""


def unpacker(flags: int) -> Unpacker:
    """Return the fastest way at hand for the method that a descriptor's flags name; HostError when there is none."""
    bit = next(bit for bit in compression.NAMES if flags & bit)
    if bit not in _loaded:
        fast = {compression.ZLIB: _libdeflate, compression.LZO: _liblzo, compression.SNAPPY: _snappy,
                compression.ZSTD: _libzstd}.get(bit)
        found = fast() if fast is not None else None
        if found is None:
            found = _one_by_one(bit)
            if bit == compression.ZLIB and (os.cpu_count() or 1) > 1:
                found = _threaded(found)
        _loaded[bit] = found
    return _loaded[bit]


def _one_by_one(bit: int) -> Unpacker:
    method = compression.method_of(bit)

    def unpack(data: bytes, jobs: Jobs, pages: NDArray[np.uint8]) -> None:
        size = pages.shape[1]
        target = memoryview(pages.reshape(-1).data)
        for offset, length, row in jobs:
            # A page of another size does not fit, and raises.
            target[row * size:(row + 1) * size] = method(data[offset:offset + length], size)
    return unpack


def _threaded(unpack: Unpacker) -> Unpacker:
    def unpack_in_threads(data: bytes, jobs: Jobs, pages: NDArray[np.uint8]) -> None:
        if len(jobs) < _THREADED:
            unpack(data, jobs, pages)
            return
        from concurrent.futures import ThreadPoolExecutor
        share = -(-len(jobs) // (os.cpu_count() or 1))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(unpack, data, jobs[at:at + share], pages) for at in range(0, len(jobs), share)]:
                done.result()
    return unpack_in_threads


def _each_thread(make: Callable[[], int | None]) -> Callable[[], int]:
    """Return what gives a thread its own handle of a C library, made when first asked for and kept.

    Two threads must not use one at a time.
    """
    own = threading.local()

    def handle() -> int:
        if not hasattr(own, "handle"):
            made = make()
            if not made:
                raise MemoryError
            own.handle = made
        return int(own.handle)
    return handle


def _libdeflate() -> Unpacker | None:
    """Source: libdeflate.h; the decompressor needs the exact size of the page, and writes no more."""
    try:
        import ctypes
        library = ctypes.CDLL("libdeflate.so.0")
        function = library.libdeflate_zlib_decompress
        library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
    except (ImportError, OSError, AttributeError):
        return None
    pointer, size_t = ctypes.c_void_p, ctypes.c_size_t
    function.argtypes, function.restype = (pointer, pointer, size_t, pointer, size_t, pointer), ctypes.c_int
    own = _each_thread(library.libdeflate_alloc_decompressor)       # 11 KB

    def unpack(data: bytes, jobs: Jobs, pages: NDArray[np.uint8]) -> None:
        handle = own()
        source, target, size = _address(data), pages.ctypes.data, pages.shape[1]
        for offset, length, row in jobs:
            # Without a place for the actual size, less than a page is an error too.
            if function(handle, source + offset, length, target + row * size, size, None):
                raise ValueError("libdeflate refuses")
    return unpack


def _liblzo() -> Unpacker | None:
    try:
        from kdumpy.dumpfile.liblzo import LibLzo
        library = LibLzo()
    except (ImportError, OSError):
        return None
    import ctypes
    decompress = library.decompress_safe

    def unpack(data: bytes, jobs: Jobs, pages: NDArray[np.uint8]) -> None:
        source, target, size = _address(data), pages.ctypes.data, pages.shape[1]
        room = ctypes.c_size_t()
        room_at = ctypes.addressof(room)
        for offset, length, row in jobs:
            room.value = size
            if decompress(source + offset, length, target + row * size, room_at, None) or room.value != size:
                raise ValueError("liblzo2 refuses, or there is less than a page")
    return unpack


def _libzstd() -> Unpacker | None:
    """Source: zstd.h; a frame is decompressed straight into its page, and writes no more than that."""
    try:
        import ctypes
        library = ctypes.CDLL("libzstd.so.1")
        function = library.ZSTD_decompressDCtx
        library.ZSTD_createDCtx.restype = ctypes.c_void_p
    except (ImportError, OSError, AttributeError):
        return None
    pointer, size_t = ctypes.c_void_p, ctypes.c_size_t
    function.argtypes, function.restype = (pointer, pointer, size_t, pointer, size_t), size_t
    own = _each_thread(library.ZSTD_createDCtx)     # 160 KB

    def unpack(data: bytes, jobs: Jobs, pages: NDArray[np.uint8]) -> None:
        context = own()
        source, target, size = _address(data), pages.ctypes.data, pages.shape[1]
        for offset, length, row in jobs:
            # What is wrong comes as a huge number (ZSTD_isError).
            if function(context, target + row * size, size, source + offset, length) != size:
                raise ValueError("libzstd refuses, or there is less than a page")
    return unpack


def _snappy() -> Unpacker | None:
    try:
        from cramjam import snappy
    except ImportError:
        return None
    into = snappy.decompress_raw_into

    def unpack(data: bytes, jobs: Jobs, pages: NDArray[np.uint8]) -> None:
        size = pages.shape[1]
        source, target = memoryview(data), memoryview(pages.reshape(-1).data)
        for offset, length, row in jobs:
            if into(source[offset:offset + length], target[row * size:(row + 1) * size]) != size:
                raise ValueError("less than a page")
    return unpack


def _address(data: bytes) -> int:
    import numpy as np
    return np.frombuffer(data, np.uint8).ctypes.data
