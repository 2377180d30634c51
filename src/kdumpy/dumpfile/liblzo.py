"""The system's liblzo2, the library that makedumpfile and crash use, called by ctypes.

It compresses pages ten times faster than the LZO modules of PyPI do, and its decompressor is bounded by the
buffer that it is given. It stands where makedumpfile does, for that needs it.
Source: lzo/lzo1x.h, lzo/lzodefs.h of LZO 2.10.
"""

from __future__ import annotations

import ctypes
from typing import Final

NAME: Final = "liblzo2.so.2"
_WORK: Final = 16384 * ctypes.sizeof(ctypes.c_void_p)
"""Bytes: LZO1X_1_MEM_COMPRESS."""


def worst_case(size: int) -> int:
    """Return how many bytes `size` bytes can become at most (LZO's own FAQ: size + size / 16 + 64 + 3)."""
    return size + size // 16 + 64 + 3


class LibLzo:
    """The two functions, on addresses; OSError where the library is not there. Threads may share `decompress` alone."""

    def __init__(self) -> None:
        library = ctypes.CDLL(NAME)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._compress = library.lzo1x_1_compress
        self.decompress_safe = library.lzo1x_decompress_safe
        """lzo1x_decompress_safe(source, size, target, where the target's size is and the result's goes, None)."""
        for function in (self._compress, self.decompress_safe):
            function.argtypes = (pointer, size, pointer, pointer, pointer)
            function.restype = ctypes.c_int
        self._work = ctypes.create_string_buffer(_WORK)
        self._length = ctypes.c_size_t()
        self._length_at = ctypes.addressof(self._length)
        self._work_at = ctypes.addressof(self._work)

    def compress(self, source: int, size: int, target: int) -> int:
        """Compress from one address to another, which has room for `worst_case(size)`; return the bytes written."""
        # The function cannot fail: it returns 0 always.
        self._compress(source, size, target, self._length_at, self._work_at)
        return self._length.value

    def decompress(self, data: bytes, page_size: int) -> bytes:
        """Return what `data` holds, at most `page_size` bytes; ValueError when it is no LZO or holds more."""
        page = ctypes.create_string_buffer(page_size)
        length = ctypes.c_size_t(page_size)
        # A bytes object's own address; it is not written to.
        source = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        status = self.decompress_safe(source, len(data), ctypes.addressof(page), ctypes.addressof(length),
                                      None)
        if status:
            raise ValueError(f"liblzo2 answers {status}")
        return page.raw[:length.value]
